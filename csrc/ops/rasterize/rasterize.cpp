// Registers polarmask::rays_to_polygons, and {polygons,rays,outlines}_to_{masks,rle,labels}: pixels of shapes.
// The crossings of edges and columns are in rasterize.h, the CPU loops in cpu/loops.h.
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
#include "ops/rasterize/cpu/loops.h"
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
