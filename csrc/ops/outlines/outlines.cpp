#include "outlines.h"

#include <algorithm>
#include <array>
#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "../../common/check.h"
#include "../../common/isa.h"
#include "../../common/ragged.h"
#include "../../common/rle.h"
#include "../../common/torch.h"
#include "clip.h"
#include "pixels.h"

namespace polarmask {
namespace {

using OutlinesTensors = std::tuple<Tensor, Tensor>;  // segments (S, 4), offsets (M + 1,)

constexpr int64_t kOutlinesPerTask = 16;  // of some 100 segments, a few ns each: above the cost of handing out a task

template <class T>
using Segment = std::array<T, 4>;  // x0, y0, x1, y1

// make_worker() gives each thread its own append(m, segments), with its own scratch memory.
template <class T, class MakeWorker>
OutlinesTensors build_outlines(int64_t count, const Tensor& like, int64_t per_task, MakeWorker&& make_worker) {
  constexpr auto kDtype = std::is_same_v<T, double> ? ScalarType::Double : ScalarType::Float;
  return build_ragged<Segment<T>, T>(count, like, kDtype, make_worker, per_task);
}

template <class Body>
void for_each(int64_t count, int64_t per_task, Body&& body) {
  parallel_for(0, count, per_task, [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; ++m) body(m);
  });
}

template <class T>
void moments_cpu(const OutlinesMomentsParams<T>& p) {
  for_each(p.count, kOutlinesPerTask, [&](int64_t m) {
    const T* segments = p.segments + 4 * p.offsets[m];
    const int64_t count = p.offsets[m + 1] - p.offsets[m];
    if (count == 0) {
      p.areas[m] = 0;
      p.centroids[2 * m] = p.centroids[2 * m + 1] = std::numeric_limits<T>::quiet_NaN();
      return;
    }
    const auto sums = all_sums<AreaSums>(segments, count);
    const auto c = sums.vanishes() ? centroid(all_sums<MidpointSums>(segments, count)) : centroid(sums);
    p.areas[m] = static_cast<T>(sums.area());
    p.centroids[2 * m] = static_cast<T>(segments[0] + c.x);
    p.centroids[2 * m + 1] = static_cast<T>(segments[1] + c.y);
  });
}

template <class T>
void boxes_cpu(const OutlinesBoxesParams<T>& p) {
  for_each(p.count, kOutlinesPerTask, [&](int64_t m) {
    constexpr T kFar = std::numeric_limits<T>::infinity();
    T x0 = kFar, y0 = kFar, x1 = -kFar, y1 = -kFar;
    for (int64_t s = p.offsets[m]; s < p.offsets[m + 1]; ++s)
      for (const T* v = p.segments + 4 * s; v < p.segments + 4 * s + 4; v += 2) {
        x0 = min_of(x0, v[0]), x1 = max_of(x1, v[0]);
        y0 = min_of(y0, v[1]), y1 = max_of(y1, v[1]);
      }
    const bool empty = !(x0 <= x1 && y0 <= y1);
    T* const box = p.boxes + 4 * m;
    box[0] = empty ? 0 : x0, box[1] = empty ? 0 : y0, box[2] = empty ? 0 : x1, box[3] = empty ? 0 : y1;
  });
}

// -> areas (M,), centroids (M, 2)
std::tuple<Tensor, Tensor> outlines_moments(const Tensor& segments_in, const Tensor& offsets_in) {
  const char* op = "outlines_moments";
  const Tensor segments = torch::stable::contiguous(segments_in), offsets = torch::stable::contiguous(offsets_in);
  check_outlines(op, segments, offsets);
  if (segments.is_cuda()) no_cuda_kernel(op);
  const int64_t count = offsets.size(0) - 1;
  Tensor areas = torch::stable::new_empty(segments, {count});
  Tensor centroids = torch::stable::new_empty(segments, {count, 2});
  dispatch_float(segments.scalar_type(), [&]<class T>() {
    moments_cpu(OutlinesMomentsParams<T>{
        .segments = segments.const_data_ptr<T>(),
        .offsets = offsets.const_data_ptr<int64_t>(),
        .areas = areas.mutable_data_ptr<T>(),
        .centroids = centroids.mutable_data_ptr<T>(),
        .count = count,
    });
  });
  return {areas, centroids};
}

// -> boxes (M, 4)
Tensor outlines_boxes(const Tensor& segments_in, const Tensor& offsets_in) {
  const char* op = "outlines_boxes";
  const Tensor segments = torch::stable::contiguous(segments_in), offsets = torch::stable::contiguous(offsets_in);
  check_outlines(op, segments, offsets);
  if (segments.is_cuda()) no_cuda_kernel(op);
  const int64_t count = offsets.size(0) - 1;
  Tensor boxes = torch::stable::new_empty(segments, {count, 4});
  dispatch_float(segments.scalar_type(), [&]<class T>() {
    boxes_cpu(OutlinesBoxesParams<T>{
        .segments = segments.const_data_ptr<T>(),
        .offsets = offsets.const_data_ptr<int64_t>(),
        .boxes = boxes.mutable_data_ptr<T>(),
        .count = count,
    });
  });
  return boxes;
}

template <class T>
OutlinesTensors from_polygons_cpu(const PolygonRings<T>& p, const Tensor& vertices, bool largest) {
  return build_outlines<T>(p.count, vertices, kOutlinesPerTask, [&] {
    return [&](int64_t m, std::vector<Segment<T>>& segments) {
      const auto add = [&](int64_t ring, double area) {
        p.for_each_side(ring, [&](const T* a, const T* b) {
          if (area < 0) std::swap(a, b);
          segments.push_back({a[0], a[1], b[0], b[1]});
        });
      };
      int64_t best = 0;
      double best_area = 0;
      for (int64_t ring = p.polygon_offsets[m]; ring < p.polygon_offsets[m + 1]; ++ring) {
        const double area = p.ring_area(ring);
        if (!largest && area != 0) add(ring, area);
        if (absolute(area) > absolute(best_area)) best = ring, best_area = area;
      }
      if (largest && best_area != 0) add(best, best_area);
    };
  });
}

// What is made of the pixels of an instance.
struct PixelOptions {
  bool largest;  // only the largest component, its holes filled
  bool border;   // the border pixels' centres in place of the sides
};

// The lines of `shape` are columns or rows.
class PixelTracer {
 public:
  PixelTracer(bool columns, PixelOptions options) : columns_(columns), options_(options) {}

  void append(const Runs& shape, std::vector<Segment<float>>& segments) {
    if (options_.largest) components_.find(shape, columns_, kept_);
    const Runs& kept = options_.largest ? kept_ : shape;
    const auto add = [&](auto along0, auto line0, auto along1, auto line1) {
      const auto x0 = static_cast<float>(along0), y0 = static_cast<float>(line0);
      const auto x1 = static_cast<float>(along1), y1 = static_cast<float>(line1);
      segments.push_back(columns_ ? Segment<float>{y1, x1, y0, x0} : Segment<float>{x0, y0, x1, y1});
    };
    if (options_.border)
      border_pixels(kept, [&](int64_t x, int64_t line) {
        const double along = static_cast<double>(x) + 0.5, across = static_cast<double>(line) + 0.5;
        add(along, across, along, across);
      });
    else
      edges_.trace(kept, add);
  }

 private:
  bool columns_;
  PixelOptions options_;
  LargestComponent components_;
  Runs kept_;
  EdgeTracer edges_;
};

// -> segments (S, 4), offsets (M + 1,)
OutlinesTensors outlines_from_masks(const Tensor& masks_in, bool largest, bool border) {
  const char* op = "outlines_from_masks";
  check_dim(op, "masks", masks_in, 3, "(M, H, W)");
  const auto dtype = masks_in.scalar_type();
  check(dtype == ScalarType::Bool || dtype == ScalarType::Byte, op, ": expected masks of dtype bool or uint8");
  const auto [height, width] = checked_size(op, masks_in.size(1), masks_in.size(2));
  if (masks_in.is_cuda()) no_cuda_kernel(op);
  const Tensor masks = torch::stable::contiguous(masks_in);
  const auto* pixels = static_cast<const uint8_t*>(masks.const_data_ptr());
  return build_outlines<float>(masks.size(0), masks, 1, [&, height = height, width = width] {
    return [=, tracer = PixelTracer(false, {largest, border}), shape = Runs()](
               int64_t m, std::vector<Segment<float>>& segments) mutable {
      shape.clear();
      with_isa([&] { shape.add_bitmap(pixels + m * height * width, height, width); });
      tracer.append(shape, segments);
    };
  });
}

// -> segments (S, 4), offsets (M + 1,)
OutlinesTensors outlines_from_rle(const Tensor& counts_in, const Tensor& offsets_in, int64_t height_in,
                                  int64_t width_in, bool largest) {
  const char* op = "outlines_from_rle";
  const ImageSize size = checked_size(op, height_in, width_in);
  const Tensor counts = torch::stable::contiguous(counts_in), offsets = torch::stable::contiguous(offsets_in);
  const auto rle = checked_runs(op, counts, offsets, size);
  if (counts.is_cuda()) no_cuda_kernel(op);
  return build_outlines<float>(rle.size, counts, kOutlinesPerTask, [&] {
    return [=, tracer = PixelTracer(true, {largest, false}), shape = Runs()](
               int64_t m, std::vector<Segment<float>>& segments) mutable {
      shape.clear();
      visit_runs(rle.row(m), rle.length(m), [&](int64_t begin, int64_t end) {
        for (int64_t column = begin / size.height; begin < end; ++column) {
          const int64_t top = column * size.height, stop = std::min(end, top + size.height);
          shape.add(column, static_cast<int32_t>(begin - top), static_cast<int32_t>(stop - top));
          begin = stop;
        }
      });
      tracer.append(shape, segments);
    };
  });
}

// -> segments (S, 4), offsets (M + 1,)
OutlinesTensors outlines_clip(const Tensor& segments_in, const Tensor& offsets_in, int64_t height_in,
                              int64_t width_in) {
  const char* op = "outlines_clip";
  const auto [height, width] = checked_size(op, height_in, width_in);
  const Tensor segments = torch::stable::contiguous(segments_in), offsets = torch::stable::contiguous(offsets_in);
  check_outlines(op, segments, offsets);
  if (segments.is_cuda()) no_cuda_kernel(op);
  const int64_t* at = offsets.const_data_ptr<int64_t>();
  return dispatch_float(segments.scalar_type(), [&, height = height, width = width]<class T>() {
    const T* data = segments.const_data_ptr<T>();
    return build_outlines<T>(offsets.size(0) - 1, segments, kOutlinesPerTask, [&] {
      return [=, clipper = Clipper(static_cast<double>(width), static_cast<double>(height))](
                 int64_t m, std::vector<Segment<T>>& clipped) mutable {
        clipper.clip(data + 4 * at[m], at[m + 1] - at[m], [&](ClipPoint a, ClipPoint b) {
          clipped.push_back(
              {static_cast<T>(a.at[0]), static_cast<T>(a.at[1]), static_cast<T>(b.at[0]), static_cast<T>(b.at[1])});
        });
      };
    });
  });
}

// -> segments (S, 4), offsets (M + 1,)
OutlinesTensors outlines_from_polygons(const Tensor& vertices_in, const Tensor& ring_offsets_in,
                                       const Tensor& polygon_offsets_in, bool largest) {
  const char* op = "outlines_from_polygons";
  const Tensor vertices = torch::stable::contiguous(vertices_in);
  const Tensor ring_offsets = torch::stable::contiguous(ring_offsets_in);
  const Tensor polygon_offsets = torch::stable::contiguous(polygon_offsets_in);
  check_dim(op, "vertices", vertices, 2, "(V, 2)");
  check_size(op, "vertices", vertices, 1, 2, "(V, 2)");
  check_geometry(op, "vertices", vertices);
  check_same_device(op, "ring_offsets", ring_offsets, "vertices", vertices);
  check_same_device(op, "polygon_offsets", polygon_offsets, "vertices", vertices);
  check_offsets(op, "ring_offsets", ring_offsets, vertices.size(0));
  check_offsets(op, "polygon_offsets", polygon_offsets, ring_offsets.size(0) - 1);
  if (vertices.is_cuda()) no_cuda_kernel(op);
  return dispatch_float(vertices.scalar_type(), [&]<class T>() {
    const PolygonRings<T> params{
        .vertices = vertices.const_data_ptr<T>(),
        .ring_offsets = ring_offsets.const_data_ptr<int64_t>(),
        .polygon_offsets = polygon_offsets.const_data_ptr<int64_t>(),
        .count = polygon_offsets.size(0) - 1,
    };
    return from_polygons_cpu(params, vertices, largest);
  });
}

}  // namespace
}  // namespace polarmask

STABLE_TORCH_LIBRARY_FRAGMENT(polarmask, m) {
  m.set_python_module("polarmask_ops.outlines");
  m.def("outlines_moments(Tensor segments, Tensor offsets) -> (Tensor, Tensor)");
  m.def("outlines_boxes(Tensor segments, Tensor offsets) -> Tensor");
  m.def("outlines_clip(Tensor segments, Tensor offsets, SymInt height, SymInt width) -> (Tensor, Tensor)");
  m.def("outlines_from_masks(Tensor masks, bool largest, bool border) -> (Tensor, Tensor)");
  m.def(
      "outlines_from_rle(Tensor counts, Tensor offsets, SymInt height, SymInt width, bool largest) "
      "-> (Tensor, Tensor)");
  m.def(
      "outlines_from_polygons(Tensor vertices, Tensor ring_offsets, Tensor polygon_offsets, bool largest) "
      "-> (Tensor, Tensor)");
}

#define POLARMASK_IMPLEMENT(device)                                                  \
  STABLE_TORCH_LIBRARY_IMPL(polarmask, device, m) {                                  \
    m.impl("outlines_moments", TORCH_BOX(&polarmask::outlines_moments));             \
    m.impl("outlines_boxes", TORCH_BOX(&polarmask::outlines_boxes));                 \
    m.impl("outlines_clip", TORCH_BOX(&polarmask::outlines_clip));                   \
    m.impl("outlines_from_masks", TORCH_BOX(&polarmask::outlines_from_masks));       \
    m.impl("outlines_from_rle", TORCH_BOX(&polarmask::outlines_from_rle));           \
    m.impl("outlines_from_polygons", TORCH_BOX(&polarmask::outlines_from_polygons)); \
  }
POLARMASK_IMPLEMENT(CPU)
POLARMASK_IMPLEMENT(CUDA)
