#include "outlines.h"

#include <limits>
#include <tuple>
#include <utility>
#include <vector>

#include "../../common/check.h"
#include "../../common/torch.h"

namespace polarmask {
namespace {

using OutlinesTensors = std::tuple<Tensor, Tensor>;  // segments (S, 4), offsets (M + 1,)

constexpr int64_t kOutlinesPerTask = 16;  // of some 100 segments, a few ns each: above the cost of handing out a task

template <class Body>
void for_each(int64_t count, int64_t per_task, Body&& body) {
  parallel_for(0, count, per_task, [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; ++m) body(m);
  });
}

// Lengths, written at offsets[1 …], become offsets.
void scan(int64_t* offsets, int64_t count) {
  offsets[0] = 0;
  for (int64_t m = 0; m < count; ++m) offsets[m + 1] += offsets[m];
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
OutlinesTensors from_polygons_cpu(const Polygons<T>& p, const Tensor& vertices, const Tensor& polygon_offsets,
                                  bool largest) {
  // The signed area of each ring that goes into the outline, 0 for the rest; then the number of segments.
  std::vector<double> areas(p.num_rings);
  Tensor offsets = torch::stable::new_empty(polygon_offsets, {p.count + 1});
  int64_t* const at = offsets.template mutable_data_ptr<int64_t>();
  for_each(p.count, kOutlinesPerTask, [&](int64_t m) {
    const int64_t begin = p.polygon_offsets[m], end = p.polygon_offsets[m + 1];
    int64_t best = begin;
    for (int64_t k = begin; k < end; ++k) {
      areas[k] = p.ring_area(k);
      if (absolute(areas[k]) > absolute(areas[best])) best = k;
    }
    at[m + 1] = 0;
    for (int64_t k = begin; k < end; ++k) {
      if (largest && k != best) areas[k] = 0;
      if (areas[k] != 0) p.for_each_side(k, [&](const T*, const T*) { ++at[m + 1]; });
    }
  });
  scan(at, p.count);

  Tensor segments = torch::stable::new_empty(vertices, {at[p.count], 4});
  T* const data = segments.template mutable_data_ptr<T>();
  for_each(p.count, kOutlinesPerTask, [&](int64_t m) {
    T* out = data + 4 * at[m];
    for (int64_t k = p.polygon_offsets[m]; k < p.polygon_offsets[m + 1]; ++k) {
      if (areas[k] == 0) continue;
      p.for_each_side(k, [&](const T* a, const T* b) {
        if (areas[k] < 0) std::swap(a, b);
        out[0] = a[0], out[1] = a[1], out[2] = b[0], out[3] = b[1];
        out += 4;
      });
    }
  });
  return {segments, offsets};
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
    const Polygons<T> params{
        .vertices = vertices.const_data_ptr<T>(),
        .ring_offsets = ring_offsets.const_data_ptr<int64_t>(),
        .polygon_offsets = polygon_offsets.const_data_ptr<int64_t>(),
        .num_rings = ring_offsets.size(0) - 1,
        .count = polygon_offsets.size(0) - 1,
    };
    return from_polygons_cpu(params, vertices, polygon_offsets, largest);
  });
}

}  // namespace
}  // namespace polarmask

STABLE_TORCH_LIBRARY_FRAGMENT(polarmask, m) {
  m.set_python_module("polarmask_ops.outlines");
  m.def("outlines_moments(Tensor segments, Tensor offsets) -> (Tensor, Tensor)");
  m.def("outlines_boxes(Tensor segments, Tensor offsets) -> Tensor");
  m.def(
      "outlines_from_polygons(Tensor vertices, Tensor ring_offsets, Tensor polygon_offsets, bool largest) "
      "-> (Tensor, Tensor)");
}

#define POLARMASK_IMPLEMENT(device)                                                  \
  STABLE_TORCH_LIBRARY_IMPL(polarmask, device, m) {                                  \
    m.impl("outlines_moments", TORCH_BOX(&polarmask::outlines_moments));             \
    m.impl("outlines_boxes", TORCH_BOX(&polarmask::outlines_boxes));                 \
    m.impl("outlines_from_polygons", TORCH_BOX(&polarmask::outlines_from_polygons)); \
  }
POLARMASK_IMPLEMENT(CPU)
POLARMASK_IMPLEMENT(CUDA)
