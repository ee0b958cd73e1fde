#include "ops/rasterize/rasterize.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include "common/host/check.h"
#include "common/host/device.h"
#include "common/host/directions.h"
#include "common/host/ragged.h"
#include "common/host/torch.h"
#include "common/host/zero_masks.h"
#include "common/isa.h"
#include "ops/rasterize/cpu/chains.h"
#include "ops/rle/build_runs.h"
#include "ops/rle/rle.h"

namespace polarmask::rasterize {

#ifdef POLARMASK_WITH_CUDA
template <class T>
cudaError_t launch_polygons(const PolygonsParams<T>&, cudaStream_t);
template <class Shapes>
cudaError_t launch_masks(const MasksParams<Shapes>&, cudaStream_t);
template <class Shapes>
cudaError_t launch_labels(const LabelsParams<Shapes>&, cudaStream_t);
template <class Shapes>
cudaError_t launch_count_runs(const RunsParams<Shapes>&, int64_t* lengths, cudaStream_t);
template <class Shapes>
cudaError_t launch_emit_runs(const RunsParams<Shapes>&, const rle::RunsOut&, cudaStream_t);
#endif

namespace {

constexpr int64_t kRowsPerTask = 256;    // of rays to points: some 10 µs, well above the cost of handing out a task
constexpr int64_t kEdgesPerTask = 4096;  // to runs: some 100 µs
constexpr int64_t kColumnsPerTask = 64;  // of the label image: 256 bytes a row, so that tasks share few cache lines

// ---- CPU: the same three loops for every kind of shape ----

// The edges of shape n that toggle columns in [first, last); none when a coordinate is not finite.
template <class Crossings, class Shapes>
void gather(const Shapes& shapes, int64_t n, int64_t first, int64_t last, std::vector<Crossings>& edges) {
  edges.clear();
  edges.reserve(num_edges(shapes, n));
  bool finite = true;
  visit_edges(
      shapes, n,
      [&]<class T>(const Vec2<T>& vertex) {
        finite = finite && is_finite(vertex.x) && is_finite(vertex.y);
        return typename Crossings::Vertex(finite ? vertex : Vec2<T>{}, first, last);
      },
      [&](const auto& from, const auto& to) {
        if (from.column != to.column) edges.emplace_back(from, to);
      });
  if (!finite) edges.clear();
}

// Pixels of the columns from `origin` on, as bytes, all zero.
struct Plane {
  uint8_t* pixels;
  int64_t origin, stride;

  uint8_t* at(int64_t row, int64_t column) const { return pixels + row * stride + column - origin; }
};

// a += b, bit by bit modulo 2; whether anything is left.
bool add_row(uint8_t* __restrict a, const uint8_t* __restrict b, int64_t count) {
  uint8_t any = 0;
  for (int64_t c = 0; c < count; ++c) any |= a[c] ^= b[c];
  return any != 0;
}

// Toggles the crossings in the plane and sums them up downwards, which runs along the rows although the crossings are
// per column. Then 1 is inside. Returns the pixels that the shape may cover; no row when it covers none.
PixelBox fill(const std::vector<CenterCrossings>& edges, Plane plane, int64_t height) {
  int64_t top = height, bottom = 0, begin = INT64_MAX, end = 0;
  for (const CenterCrossings& edge : edges) {
    begin = std::min(begin, edge.begin), end = std::max(end, edge.end);
    for (int64_t column = edge.begin; column < edge.end; ++column) {
      const int64_t row = edge.row(column, height);
      if (row == height) continue;
      top = std::min(top, row), bottom = std::max(bottom, row);
      *plane.at(row, column) ^= 1;
    }
  }
  int64_t row = top + 1;
  for (bool any = true; row < height && (any || row <= bottom); ++row)
    any = add_row(plane.at(row, begin), plane.at(row - 1, begin), end - begin);
  return {{top, std::min(row, height)}, {begin, end}};
}

template <class Shapes>
void draw_masks(const MasksParams<Shapes>& p) {
  parallel_for(0, p.shapes.size(), 1, [&](int64_t first, int64_t last) {
    std::vector<CenterCrossings> edges;
    for (int64_t n = first; n < last; ++n) {
      gather(p.shapes, n, 0, p.width, edges);
      const Plane mask{p.masks + n * p.height * p.width, 0, p.width};
      with_isa([&] { fill(edges, mask, p.height); });
    }
  });
}

// Leaves the plane zero.
void paint(const std::vector<CenterCrossings>& edges, Plane plane, int64_t height, int32_t* labels, int64_t width,
           int32_t label) {
  const auto [rows, columns] = fill(edges, plane, height);
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t count = columns.size();
    uint8_t* __restrict inside = plane.at(row, columns.begin);
    int32_t* __restrict pixels = labels + row * width + columns.begin;
    for (int64_t c = 0; c < count; ++c) pixels[c] = inside[c] ? label : pixels[c];
    std::fill_n(inside, count, uint8_t{0});
  }
}

template <class Shapes>
void draw_labels(const LabelsParams<Shapes>& p) {
  parallel_for(0, p.width, kColumnsPerTask, [&](int64_t first, int64_t last) {
    const int64_t columns = last - first;
    for (int64_t row = 0; row < p.height; ++row) std::fill_n(p.labels + row * p.width + first, columns, 0);
    std::vector<CenterCrossings> edges;
    std::vector<uint8_t> pixels(p.height * columns);
    for (int64_t position = 0; position < p.count; ++position) {
      const int64_t n = p.order ? p.order[position] : position;
      gather(p.shapes, n, first, last, edges);
      with_isa([&] {
        paint(edges, {pixels.data(), first, columns}, p.height, p.labels, p.width, static_cast<int32_t>(n + 1));
      });
    }
  });
}

template <class T>
void find_vertices(const PolygonsParams<T>& p) {
  parallel_for(0, p.shapes.size(), kRowsPerTask, [&](int64_t first, int64_t last) {
    for (int64_t n = first; n < last; ++n)
      for (int64_t k = 0; k < p.shapes.num_vertices; ++k)
        p.vertices[n * p.shapes.num_vertices + k] = p.shapes.vertex(n, k);
  });
}

template <class Shapes>
int64_t total_edges(const Shapes& shapes) {
  return shapes.num_shapes * shapes.num_vertices;
}
template <class T>
int64_t total_edges(const OutlineShapes<T>& shapes) {
  return shapes.num_segments;
}

template <class Crossings, class Shapes>
std::tuple<Tensor, Tensor> make_runs(const Shapes& shapes, ImageSize size, const Tensor& like) {
  const int64_t shapes_per_task =
      std::max<int64_t>(1, kEdgesPerTask * shapes.size() / std::max<int64_t>(1, total_edges(shapes)));
  return build_ragged<int32_t>(
      shapes.size(), like, ScalarType::Int,
      [&] {
        return
            [&, edges = std::vector<Crossings>(), chains = Chains()](int64_t n, std::vector<int32_t>& counts) mutable {
              with_isa([&] {
                gather(shapes, n, 0, size.height > 0 ? size.width : 0, edges);
                chains.collect(edges, size.height);
                chains.append_to(counts, size.height, size.width);
              });
            };
      },
      shapes_per_task);
}

// ---- The outputs, for any shapes ----

template <class Shapes>
Tensor to_masks(const char* op, const Shapes& shapes, const Tensor& like, int64_t height, int64_t width) {
  const ImageSize size = checked_size(op, height, width);
  const Tensor masks = empty_masks(like, shapes.size(), height, width);
  if (masks.numel() == 0) return masks;
  const MasksParams<Shapes> params{shapes, size.height, size.width, mutable_data_of<uint8_t>(masks)};
  run_on(op, like, [&] { draw_masks(params); }, [&](auto stream) { return launch_masks(params, stream); });
  return masks;
}

template <class Shapes>
std::tuple<Tensor, Tensor> to_rle(const char* op, const Shapes& shapes, const Tensor& like, int64_t height,
                                  int64_t width, bool coco) {
  const ImageSize size = checked_size(op, height, width);
  if (!by_kernels(like))
    return coco ? make_runs<CocoCrossings>(shapes, size, like) : make_runs<CenterCrossings>(shapes, size, like);
  const RunsParams<Shapes> params{shapes, size.height, size.width, coco};
  return rle::build_runs_by_kernels(
      op, shapes.size(), size, like,
      [&](auto* lengths, auto stream) { return launch_count_runs(params, lengths, stream); },
      [&](const rle::RunsOut& out, auto stream) { return launch_emit_runs(params, out, stream); });
}

template <class Shapes>
Tensor to_labels(const char* op, const Shapes& shapes, const Tensor& like, int64_t height, int64_t width,
                 const std::optional<Tensor>& order_in) {
  const ImageSize size = checked_size(op, height, width);
  std::optional<Tensor> order;
  if (order_in) {
    check_dim(op, "order", *order_in, 1, "(K,)");
    check_dtype(op, "order", *order_in, kInt64);
    check_same_device(op, "order", *order_in, "the shapes", like);
    order = as_contiguous(*order_in);
    if (const auto values = values_to_check(*order))
      for (int64_t k = 0; k < values->size(0); ++k) {
        const int64_t n = values->const_data_ptr<int64_t>()[k];
        check_index(n >= 0 && n < shapes.size(), op, ": expected order to hold indices of ", shapes.size(),
                    " shapes, from 0 on, got ", n);
      }
  }
  const int64_t count = order ? order->size(0) : shapes.size();
  check(std::max(count, shapes.size()) < INT32_MAX, op, ": expected fewer than 2**31 - 1 shapes, got ",
        std::max(count, shapes.size()));
  const Tensor labels = allocate(like, {height, width}, ScalarType::Int);
  if (height * width == 0) return labels;
  const LabelsParams<Shapes> params{
      .shapes = shapes,
      .order = data_of<int64_t>(order),
      .count = count,
      .height = size.height,
      .width = size.width,
      .labels = labels.mutable_data_ptr<int32_t>(),
  };
  run_on(op, like, [&] { draw_labels(params); }, [&](auto stream) { return launch_labels(params, stream); });
  return labels;
}

// ---- The inputs: checked, and handed to body as shapes ----

template <class Body>
auto with_polygons(const char* op, const Tensor& polygons_in, Body&& body) {
  check_dim(op, "polygons", polygons_in, 3, "(N, V, 2)");
  check_size(op, "polygons", polygons_in, 2, 2, "(N, V, 2)");
  check_dtype(op, "polygons", polygons_in, kGeometry);
  const Tensor polygons = as_contiguous(polygons_in);
  return dispatch_float(polygons.scalar_type(), [&]<class T>() {
    return body(PolygonShapes<T>{
        .vertices = polygons.const_data_ptr<T>(),
        .num_shapes = polygons.size(0),
        .num_vertices = polygons.size(1),
    });
  });
}

template <class Body>
auto with_rays(const char* op, const Tensor& centers_in, const Tensor& rays_in, const std::optional<Tensor>& scale_in,
               Body&& body) {
  check_dim(op, "rays", rays_in, 2, "(N, R)");
  check_num_rays(op, rays_in.size(1));
  check_dim(op, "centers", centers_in, 2, "(N, 2)");
  check_size(op, "centers", centers_in, 0, rays_in.size(0), "(N, 2)");
  check_size(op, "centers", centers_in, 1, 2, "(N, 2)");
  check_dtype(op, "rays", rays_in, kGeometry);
  check_same_dtype(op, "centers", centers_in, "rays", rays_in);
  check_same_device(op, "centers", centers_in, "rays", rays_in);
  if (scale_in) {
    check_dim(op, "scale", *scale_in, 2, "(N, 2)");
    check_size(op, "scale", *scale_in, 0, rays_in.size(0), "(N, 2)");
    check_size(op, "scale", *scale_in, 1, 2, "(N, 2)");
    check_same_dtype(op, "scale", *scale_in, "rays", rays_in);
    check_same_device(op, "scale", *scale_in, "rays", rays_in);
  }
  const Tensor centers = as_contiguous(centers_in), rays = as_contiguous(rays_in);
  const std::optional<Tensor> scale = as_contiguous(scale_in);
  const bool on_device = by_kernels(rays);
  const auto directions = ray_directions(on_device ? 0 : rays.size(1));
  return dispatch_float(rays.scalar_type(), [&]<class T>() {
    return body(RayShapes<T>{
        .centers = centers.const_data_ptr<T>(),
        .rays = rays.const_data_ptr<T>(),
        .scale = scale ? scale->const_data_ptr<T>() : nullptr,
        .directions = on_device ? nullptr : directions.data(),
        .num_shapes = rays.size(0),
        .num_vertices = rays.size(1),
    });
  });
}

template <class Body>
auto with_outlines(const char* op, const Tensor& segments_in, const Tensor& offsets_in, Body&& body) {
  const Tensor segments = as_contiguous(segments_in), offsets = as_contiguous(offsets_in);
  check_outlines(op, segments, offsets);
  return dispatch_float(segments.scalar_type(), [&]<class T>() {
    return body(OutlineShapes<T>{
        .segments = segments.const_data_ptr<T>(),
        .offsets = offsets.const_data_ptr<int64_t>(),
        .num_shapes = offsets.size(0) - 1,
        .num_segments = segments.size(0),
    });
  });
}

// ---- The ops ----

Tensor rays_to_polygons(const Tensor& centers, const Tensor& rays) {
  return with_rays("rays_to_polygons", centers, rays, std::nullopt, [&]<class T>(const RayShapes<T>& shapes) {
    const Tensor polygons = allocate(rays, {shapes.size(), shapes.num_vertices, 2});
    const PolygonsParams<T> params{shapes, mutable_data_of<Vec2<T>>(polygons)};
    run_on(
        "rays_to_polygons", rays, [&] { find_vertices(params); },
        [&](auto stream) { return launch_polygons(params, stream); });
    return polygons;
  });
}

Tensor polygons_to_masks(const Tensor& polygons, int64_t height, int64_t width) {
  constexpr auto op = "polygons_to_masks";
  return with_polygons(op, polygons, [&](const auto& shapes) { return to_masks(op, shapes, polygons, height, width); });
}

std::tuple<Tensor, Tensor> polygons_to_rle(const Tensor& polygons, int64_t height, int64_t width, bool coco) {
  constexpr auto op = "polygons_to_rle";
  return with_polygons(op, polygons,
                       [&](const auto& shapes) { return to_rle(op, shapes, polygons, height, width, coco); });
}

Tensor polygons_to_labels(const Tensor& polygons, int64_t height, int64_t width, const std::optional<Tensor>& order) {
  constexpr auto op = "polygons_to_labels";
  return with_polygons(op, polygons,
                       [&](const auto& shapes) { return to_labels(op, shapes, polygons, height, width, order); });
}

Tensor rays_to_masks(const Tensor& centers, const Tensor& rays, const std::optional<Tensor>& scale, int64_t height,
                     int64_t width) {
  constexpr auto op = "rays_to_masks";
  return with_rays(op, centers, rays, scale,
                   [&](const auto& shapes) { return to_masks(op, shapes, rays, height, width); });
}

std::tuple<Tensor, Tensor> rays_to_rle(const Tensor& centers, const Tensor& rays, const std::optional<Tensor>& scale,
                                       int64_t height, int64_t width, bool coco) {
  constexpr auto op = "rays_to_rle";
  return with_rays(op, centers, rays, scale,
                   [&](const auto& shapes) { return to_rle(op, shapes, rays, height, width, coco); });
}

Tensor rays_to_labels(const Tensor& centers, const Tensor& rays, const std::optional<Tensor>& scale, int64_t height,
                      int64_t width, const std::optional<Tensor>& order) {
  constexpr auto op = "rays_to_labels";
  return with_rays(op, centers, rays, scale,
                   [&](const auto& shapes) { return to_labels(op, shapes, rays, height, width, order); });
}

Tensor outlines_to_masks(const Tensor& segments, const Tensor& offsets, int64_t height, int64_t width) {
  constexpr auto op = "outlines_to_masks";
  return with_outlines(op, segments, offsets,
                       [&](const auto& shapes) { return to_masks(op, shapes, segments, height, width); });
}

std::tuple<Tensor, Tensor> outlines_to_rle(const Tensor& segments, const Tensor& offsets, int64_t height,
                                           int64_t width) {
  constexpr auto op = "outlines_to_rle";
  return with_outlines(op, segments, offsets,
                       [&](const auto& shapes) { return to_rle(op, shapes, segments, height, width, false); });
}

Tensor outlines_to_labels(const Tensor& segments, const Tensor& offsets, int64_t height, int64_t width,
                          const std::optional<Tensor>& order) {
  constexpr auto op = "outlines_to_labels";
  return with_outlines(op, segments, offsets,
                       [&](const auto& shapes) { return to_labels(op, shapes, segments, height, width, order); });
}

template <class Library>
void implement(Library& m) {
  m.impl("rays_to_polygons", TORCH_BOX(&rays_to_polygons));
  m.impl("polygons_to_masks", TORCH_BOX(&polygons_to_masks));
  m.impl("polygons_to_rle", TORCH_BOX(&polygons_to_rle));
  m.impl("polygons_to_labels", TORCH_BOX(&polygons_to_labels));
  m.impl("rays_to_masks", TORCH_BOX(&rays_to_masks));
  m.impl("rays_to_rle", TORCH_BOX(&rays_to_rle));
  m.impl("rays_to_labels", TORCH_BOX(&rays_to_labels));
  m.impl("outlines_to_masks", TORCH_BOX(&outlines_to_masks));
  m.impl("outlines_to_rle", TORCH_BOX(&outlines_to_rle));
  m.impl("outlines_to_labels", TORCH_BOX(&outlines_to_labels));
}

}  // namespace
}  // namespace polarmask::rasterize

STABLE_TORCH_LIBRARY_FRAGMENT(polarmask, m) {
  m.set_python_module("polarmask_ops.rasterize");
  m.def("rays_to_polygons(Tensor centers, Tensor rays) -> Tensor");
  m.def("polygons_to_masks(Tensor polygons, SymInt height, SymInt width) -> Tensor");
  m.def("polygons_to_rle(Tensor polygons, SymInt height, SymInt width, bool coco) -> (Tensor, Tensor)");
  m.def("polygons_to_labels(Tensor polygons, SymInt height, SymInt width, Tensor? order) -> Tensor");
  m.def("rays_to_masks(Tensor centers, Tensor rays, Tensor? scale, SymInt height, SymInt width) -> Tensor");
  m.def(
      "rays_to_rle(Tensor centers, Tensor rays, Tensor? scale, SymInt height, SymInt width, bool coco) -> "
      "(Tensor, Tensor)");
  m.def(
      "rays_to_labels(Tensor centers, Tensor rays, Tensor? scale, SymInt height, SymInt width, Tensor? order) -> "
      "Tensor");
  m.def("outlines_to_masks(Tensor segments, Tensor offsets, SymInt height, SymInt width) -> Tensor");
  m.def("outlines_to_rle(Tensor segments, Tensor offsets, SymInt height, SymInt width) -> (Tensor, Tensor)");
  m.def("outlines_to_labels(Tensor segments, Tensor offsets, SymInt height, SymInt width, Tensor? order) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(polarmask, CPU, m) { polarmask::rasterize::implement(m); }
STABLE_TORCH_LIBRARY_IMPL(polarmask, CUDA, m) { polarmask::rasterize::implement(m); }
