// Registers polarmask::outlines_moments, outlines_boxes, outlines_clip and outlines_from_polygons: what is measured of
// outlines or made of polygons. Outlines of pixels are in pixels.cpp.
#include "ops/outlines/outlines.h"

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "ops/outlines/build.h"
#include "ops/outlines/clip.h"

namespace polarmask::outlines {

#ifdef POLARMASK_WITH_CUDA
template <class T>
cudaError_t launch_outlines_moments(const OutlinesMomentsParams<T>&, cudaStream_t);
template <class T>
cudaError_t launch_outlines_boxes(const OutlinesBoxesParams<T>&, cudaStream_t);
template <class T>
cudaError_t launch_choose_rings(const OutlinesFromPolygonsParams<T>&, int64_t* lengths, cudaStream_t);
template <class T>
cudaError_t launch_write_rings(const OutlinesFromPolygonsParams<T>&, const int64_t* ring_begins, AlignedSegment<T>*,
                               cudaStream_t);
template <class T>
cudaError_t launch_count_clipped(const OutlinesClipParams<T>&, int64_t* lengths, cudaStream_t);
template <class T>
cudaError_t launch_write_clipped(const OutlinesClipParams<T>&, const int64_t* offsets, AlignedSegment<T>*,
                                 cudaStream_t);
#endif

namespace {

template <class Body>
void for_each(int64_t count, Body&& body) {
  parallel_for(0, count, kOutlinesPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; ++m) body(m);
  });
}

template <class T>
void moments_cpu(const OutlinesMomentsParams<T>& p) {
  const auto sum_up = []<class Sums>(const T* segments, int64_t count) { return all_sums<Sums>(segments, count); };
  for_each(p.outlines.count,
           [&](int64_t m) { p.write(m, moments_of(p.outlines.row(m), p.outlines.length(m), sum_up)); });
}

template <class T>
void boxes_cpu(const OutlinesBoxesParams<T>& p) {
  for_each(p.outlines.count, [&](int64_t m) {
    Box<T> box = empty_box<T>();
    const Interval range = p.outlines.range(m);
    for (int64_t s = range.begin; s < range.end; ++s) box = join_segment(box, p.outlines.segments + 4 * s);
    p.write(m, box);
  });
}

// -> areas (M,), centroids (M, 2). `caller`: the function that messages name.
std::tuple<Tensor, Tensor> outlines_moments(const Tensor& segments_in, const Tensor& offsets_in,
                                            const std::string& caller) {
  const char* op = caller.c_str();
  const Tensor segments = as_contiguous(segments_in), offsets = as_contiguous(offsets_in);
  check_outlines(op, segments, offsets);
  const int64_t count = offsets.size(0) - 1;
  Tensor areas = allocate(segments, {count});
  Tensor centroids = allocate(segments, {count, 2});
  dispatch_float(segments.scalar_type(), [&]<class T>() {
    const OutlinesMomentsParams<T> params{
        .outlines = rows_of<T>(segments, offsets),
        .areas = areas.mutable_data_ptr<T>(),
        .centroids = centroids.mutable_data_ptr<T>(),
    };
    run_on(
        op, segments, [&] { moments_cpu(params); },
        [&](auto stream) { return launch_outlines_moments(params, stream); });
  });
  return {areas, centroids};
}

// -> boxes (M, 4)
Tensor outlines_boxes(const Tensor& segments_in, const Tensor& offsets_in) {
  const char* op = "Outlines.boxes";
  const Tensor segments = as_contiguous(segments_in), offsets = as_contiguous(offsets_in);
  check_outlines(op, segments, offsets);
  Tensor boxes = allocate(segments, {offsets.size(0) - 1, 4});
  dispatch_float(segments.scalar_type(), [&]<class T>() {
    const OutlinesBoxesParams<T> params{
        .outlines = rows_of<T>(segments, offsets),
        .boxes = boxes.mutable_data_ptr<T>(),
    };
    run_on(
        op, segments, [&] { boxes_cpu(params); }, [&](auto stream) { return launch_outlines_boxes(params, stream); });
  });
  return boxes;
}

template <class T>
OutlinesTensors from_polygons_cpu(const PolygonRings<T>& p, const Tensor& vertices, bool largest) {
  return build_outlines<T>(p.count, vertices, kOutlinesPerTask, [&] {
    return [&](int64_t m, std::vector<AlignedSegment<T>>& segments) {
      choose_rings(
          p, m, largest, [&](int64_t ring) { return p[ring].area(); },
          [&](int64_t chosen, double area) {
            const Ring<T> ring = p[chosen];
            for (int64_t k = 0; k < ring.size; ++k)
              if (ring.has_side(k)) segments.push_back(ring.side(k, area));
          });
    };
  });
}

template <class T>
OutlinesTensors from_polygons_by_kernels(const char* op, const PolygonRings<T>& rings, const Tensor& vertices,
                                         bool largest) {
  const Tensor areas = allocate(vertices, {rings.num_rings}, ScalarType::Double);
  const Tensor num_sides = allocate(vertices, {rings.num_rings}, ScalarType::Long);
  const Tensor offsets = allocate(vertices, {rings.count + 1}, ScalarType::Long);
  const OutlinesFromPolygonsParams<T> params{
      .rings = rings,
      .largest = largest,
      .areas = areas.mutable_data_ptr<double>(),
      .num_sides = num_sides.mutable_data_ptr<int64_t>(),
      .offsets = offsets.mutable_data_ptr<int64_t>(),
  };
  const auto [segments, ring_begins] = build_outlines_by_kernels<T>(
      op, rings.num_rings, vertices,
      [&](int64_t* lengths, auto stream) { return launch_choose_rings(params, lengths, stream); },
      [&](const int64_t* begins, AlignedSegment<T>* to, auto stream) {
        return launch_write_rings(params, begins, to, stream);
      });
  return {segments, offsets};
}

// -> segments (S, 4), offsets (M + 1,)
OutlinesTensors outlines_from_polygons(const Tensor& vertices_in, const Tensor& ring_offsets_in,
                                       const Tensor& polygon_offsets_in, bool largest) {
  const char* op = "outlines_from_polygons";
  const Tensor vertices = as_contiguous(vertices_in);
  const Tensor ring_offsets = as_contiguous(ring_offsets_in);
  const Tensor polygon_offsets = as_contiguous(polygon_offsets_in);
  check_dim(op, "vertices", vertices, 2, "(V, 2)");
  check_size(op, "vertices", vertices, 1, 2, "(V, 2)");
  check_dtype(op, "vertices", vertices, kGeometry);
  check_same_device(op, "ring_offsets", ring_offsets, "vertices", vertices);
  check_same_device(op, "polygon_offsets", polygon_offsets, "vertices", vertices);
  check_offsets(op, "ring_offsets", ring_offsets, vertices.size(0));
  check_offsets(op, "polygon_offsets", polygon_offsets, ring_offsets.size(0) - 1);
  return dispatch_float(vertices.scalar_type(), [&]<class T>() {
    const PolygonRings<T> rings{
        .vertices = vertices.const_data_ptr<T>(),
        .ring_offsets = ring_offsets.const_data_ptr<int64_t>(),
        .polygon_offsets = polygon_offsets.const_data_ptr<int64_t>(),
        .num_vertices = vertices.size(0),
        .num_rings = ring_offsets.size(0) - 1,
        .count = polygon_offsets.size(0) - 1,
    };
    return by_kernels(vertices) ? from_polygons_by_kernels(op, rings, vertices, largest)
                                : from_polygons_cpu(rings, vertices, largest);
  });
}

template <class T>
OutlinesTensors clip_cpu(const OutlineRows<T>& outlines, const Tensor& like, ClipPoint limit) {
  return build_outlines<T>(outlines.count, like, kOutlinesPerTask, [&] {
    return [=, ends = std::vector<BorderEnd>()](int64_t m, std::vector<AlignedSegment<T>>& clipped) mutable {
      const auto add = [&](const ClipPoint& a, const ClipPoint& b) { clipped.push_back(segment_of<T>(a, b)); };
      const Interval range = outlines.range(m);
      ends.clear();
      for (int64_t s = range.begin; s < range.end; ++s)
        clip_segment(outlines.segments + 4 * s, limit, add, [&](const BorderEnd& end) { ends.push_back(end); });
      std::sort(ends.begin(), ends.end());
      net_passages(ends.data(), static_cast<int64_t>(ends.size()), limit, add);
    };
  });
}

template <class T>
OutlinesTensors clip_by_kernels(const char* op, const OutlineRows<T>& outlines, const Tensor& like, ClipPoint limit) {
  const int64_t bytes = outlines.num_segments * 2 * kMaxClippedParts * static_cast<int64_t>(sizeof(BorderEnd));
  const Tensor ends = allocate(like, {bytes}, ScalarType::Byte);
  const Tensor num_ends = allocate(like, {outlines.count}, ScalarType::Long);
  const OutlinesClipParams<T> params{
      .outlines = outlines,
      .limit = limit,
      .ends = reinterpret_cast<BorderEnd*>(ends.mutable_data_ptr<uint8_t>()),
      .num_ends = reinterpret_cast<unsigned long long*>(num_ends.mutable_data_ptr<int64_t>()),
  };
  return build_outlines_by_kernels<T>(
      op, outlines.count, like,
      [&](int64_t* lengths, auto stream) { return launch_count_clipped(params, lengths, stream); },
      [&](const int64_t* offsets, AlignedSegment<T>* to, auto stream) {
        return launch_write_clipped(params, offsets, to, stream);
      });
}

// -> segments (S, 4), offsets (M + 1,)
OutlinesTensors outlines_clip(const Tensor& segments_in, const Tensor& offsets_in, int64_t height_in,
                              int64_t width_in) {
  const char* op = "Outlines.clip";
  const auto [height, width] = checked_size(op, height_in, width_in);
  const Tensor segments = as_contiguous(segments_in), offsets = as_contiguous(offsets_in);
  check_outlines(op, segments, offsets);
  const ClipPoint limit{{static_cast<double>(width), static_cast<double>(height)}};
  return dispatch_float(segments.scalar_type(), [&]<class T>() {
    const auto outlines = rows_of<T>(segments, offsets);
    return by_kernels(segments) ? clip_by_kernels(op, outlines, segments, limit) : clip_cpu(outlines, segments, limit);
  });
}

}  // namespace
}  // namespace polarmask::outlines

STABLE_TORCH_LIBRARY_FRAGMENT(polarmask, m) {
  m.set_python_module("polarmask_ops.outlines");
  m.def("outlines_moments(Tensor segments, Tensor offsets, str caller) -> (Tensor, Tensor)");
  m.def("outlines_boxes(Tensor segments, Tensor offsets) -> Tensor");
  m.def("outlines_clip(Tensor segments, Tensor offsets, SymInt height, SymInt width) -> (Tensor, Tensor)");
  m.def(
      "outlines_from_polygons(Tensor vertices, Tensor ring_offsets, Tensor polygon_offsets, bool largest) "
      "-> (Tensor, Tensor)");
}

#define POLARMASK_IMPLEMENT(device)                                                            \
  STABLE_TORCH_LIBRARY_IMPL(polarmask, device, m) {                                            \
    m.impl("outlines_moments", TORCH_BOX(&polarmask::outlines::outlines_moments));             \
    m.impl("outlines_boxes", TORCH_BOX(&polarmask::outlines::outlines_boxes));                 \
    m.impl("outlines_clip", TORCH_BOX(&polarmask::outlines::outlines_clip));                   \
    m.impl("outlines_from_polygons", TORCH_BOX(&polarmask::outlines::outlines_from_polygons)); \
  }
POLARMASK_IMPLEMENT(CPU)
POLARMASK_IMPLEMENT(CUDA)
