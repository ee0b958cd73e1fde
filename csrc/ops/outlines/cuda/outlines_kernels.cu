// S segments of 4 numbers, M outlines. Bound by memory, or by latency where there is little of it. At 3.35 TB/s, 1,000
// outlines of 300 segments in float32:
//
//     moments, boxes   read 16S once                      4.8 MB    1.4 µs
//     from polygons    reads 8V twice, writes 16S         9.6 MB    2.9 µs
//
// so launches of 2–3 µs are what counts.
//
// Design: a warp to an outline, a lane to every 32nd segment; the lanes' sums are added in the order of all_sums, so
// that the bits are the CPU's. Of polygons a thread takes a ring, for its area has the order of its vertices; then a
// thread an instance, which chooses among its rings; then a warp writes a ring's sides, 32 at a time.
#include "common/cuda/launch.cuh"
#include "ops/outlines/outlines.h"

namespace polarmask::outlines {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocks = 4;  // blocks per multiprocessor, at least: bounds registers; without it nvcc spills
constexpr int kWarps = kThreads / kWarpSize;
static_assert(kSumLanes == kWarpSize);

// body(n) for the items of this warp.
template <class Body>
__device__ void for_items_of_warp(int64_t count, Body&& body) {
  const int64_t stride = gridDim.x * int64_t{kWarps};
  for (int64_t n = blockIdx.x * int64_t{kWarps} + threadIdx.x / kWarpSize; n < count; n += stride) body(n);
}

template <class Body>
__device__ void for_items_of_thread(int64_t count, Body&& body) {
  const int64_t stride = gridDim.x * int64_t{kThreads};
  for (int64_t n = blockIdx.x * int64_t{kThreads} + threadIdx.x; n < count; n += stride) body(n);
}

__device__ AreaSums of_lane(const AreaSums& sums, int by) {
  AreaSums other;
  other.cross = __shfl_xor_sync(~0u, sums.cross, by), other.magnitude = __shfl_xor_sync(~0u, sums.magnitude, by);
  other.x = __shfl_xor_sync(~0u, sums.x, by), other.y = __shfl_xor_sync(~0u, sums.y, by);
  return other;
}

__device__ MidpointSums of_lane(const MidpointSums& sums, int by) {
  MidpointSums other;
  other.length = __shfl_xor_sync(~0u, sums.length, by), other.count = __shfl_xor_sync(~0u, sums.count, by);
  other.x = __shfl_xor_sync(~0u, sums.x, by), other.y = __shfl_xor_sync(~0u, sums.y, by);
  other.plain_x = __shfl_xor_sync(~0u, sums.plain_x, by), other.plain_y = __shfl_xor_sync(~0u, sums.plain_y, by);
  return other;
}

// all_sums; every lane gets it, for a + b is b + a.
template <class Sums, class T>
__device__ Sums warp_sums(const T* segments, int64_t count, int lane) {
  Sums sums = lane_sums<Sums>(segments, count, lane);
  for (int by = kWarpSize / 2; by > 0; by /= 2) sums += of_lane(sums, by);
  return sums;
}

template <class T>
__global__ void __launch_bounds__(kThreads) outlines_moments_kernel(OutlinesMomentsParams<T> p) {
  const int lane = threadIdx.x % kWarpSize;
  const auto sum_up = [&]<class Sums>(const T* segments, int64_t count) {
    return warp_sums<Sums>(segments, count, lane);
  };
  for_items_of_warp(p.outlines.count, [&](int64_t m) {
    const Moments<T> moments = moments_of(p.outlines.row(m), p.outlines.length(m), sum_up);
    if (lane == 0) p.write(m, moments);
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads) outlines_boxes_kernel(OutlinesBoxesParams<T> p) {
  const int lane = threadIdx.x % kWarpSize;
  for_items_of_warp(p.outlines.count, [&](int64_t m) {
    const T* const segments = p.outlines.row(m);
    const int64_t count = p.outlines.length(m);
    Box<T> box = empty_box<T>();
    for (int64_t s = lane; s < count; s += kWarpSize) box = join_segment(box, segments + 4 * s);
    for (int by = kWarpSize / 2; by > 0; by /= 2)
      box = join(box, {__shfl_xor_sync(~0u, box.x0, by), __shfl_xor_sync(~0u, box.y0, by),
                       __shfl_xor_sync(~0u, box.x1, by), __shfl_xor_sync(~0u, box.y1, by)});
    if (lane == 0) p.write(m, box);
  });
}

// Of each ring by itself; of none as long as no instance has chosen it.
template <class T>
__global__ void __launch_bounds__(kThreads) polygon_rings_kernel(OutlinesFromPolygonsParams<T> p, int64_t* lengths) {
  for_items_of_thread(p.rings.num_rings, [&](int64_t ring) {
    const Ring<T> vertices = p.rings[ring];
    int64_t sides = 0;
    for (int64_t k = 0; k < vertices.size; ++k) sides += vertices.has_side(k);
    p.areas[ring] = vertices.area();
    p.num_sides[ring] = sides;
    lengths[ring] = 0;
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads) choose_rings_kernel(OutlinesFromPolygonsParams<T> p, int64_t* lengths) {
  for_items_of_thread(p.rings.count, [&](int64_t m) {
    choose_rings(
        p.rings, m, p.largest, [&](int64_t ring) { return p.areas[ring]; },
        [&](int64_t ring, double) {  // where offsets lie, two instances may have chosen it
          atomicExch(reinterpret_cast<unsigned long long*>(lengths + ring), p.num_sides[ring]);
        });
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads, kBlocks)
    ring_sides_kernel(OutlinesFromPolygonsParams<T> p, const int64_t* ring_begins, AlignedSegment<T>* segments) {
  const int lane = threadIdx.x % kWarpSize;
  for_items_of_warp(p.rings.num_rings, [&](int64_t ring) {
    int64_t at = ring_begins[ring];
    if (at == ring_begins[ring + 1]) return;
    const Ring<T> vertices = p.rings[ring];
    for (int64_t first = 0; first < vertices.size; first += kWarpSize) {
      const int64_t k = first + lane;
      const bool has_side = k < vertices.size && vertices.has_side(k);
      const unsigned those = __ballot_sync(~0u, has_side);
      if (has_side) segments[at + __popc(those & ((1u << lane) - 1))] = vertices.side(k, p.areas[ring]);
      at += __popc(those);
    }
  });
  for_items_of_thread(p.rings.count + 1, [&](int64_t m) {
    const int64_t last = p.rings.count - 1;
    p.offsets[m] = ring_begins[m <= last ? p.rings.rings(m).begin : last < 0 ? 0 : p.rings.rings(last).end];
  });
}

}  // namespace

template <class T>
cudaError_t launch_outlines_moments(const OutlinesMomentsParams<T>& p, cudaStream_t stream) {
  return launch(outlines_moments_kernel<T>, ceil_div(p.outlines.count, kWarps), kThreads, 0, stream, p);
}

template <class T>
cudaError_t launch_outlines_boxes(const OutlinesBoxesParams<T>& p, cudaStream_t stream) {
  return launch(outlines_boxes_kernel<T>, ceil_div(p.outlines.count, kWarps), kThreads, 0, stream, p);
}

// lengths [K]: of the rings, in sides that are kept.
template <class T>
cudaError_t launch_choose_rings(const OutlinesFromPolygonsParams<T>& p, int64_t* lengths, cudaStream_t stream) {
  const cudaError_t error =
      launch(polygon_rings_kernel<T>, ceil_div(p.rings.num_rings, kThreads), kThreads, 0, stream, p, lengths);
  if (error != cudaSuccess) return error;
  return launch(choose_rings_kernel<T>, ceil_div(p.rings.count, kThreads), kThreads, 0, stream, p, lengths);
}

// ring_begins [K + 1]: where the sides of each ring begin in the segments.
template <class T>
cudaError_t launch_write_rings(const OutlinesFromPolygonsParams<T>& p, const int64_t* ring_begins,
                               AlignedSegment<T>* segments, cudaStream_t stream) {
  const int64_t blocks = std::max(ceil_div(p.rings.num_rings, kWarps), ceil_div(p.rings.count + 1, kThreads));
  return launch(ring_sides_kernel<T>, blocks, kThreads, 0, stream, p, ring_begins, segments);
}

#define POLARMASK_INSTANTIATE(T)                                                                                    \
  template cudaError_t launch_outlines_moments(const OutlinesMomentsParams<T>&, cudaStream_t);                      \
  template cudaError_t launch_outlines_boxes(const OutlinesBoxesParams<T>&, cudaStream_t);                          \
  template cudaError_t launch_choose_rings(const OutlinesFromPolygonsParams<T>&, int64_t*, cudaStream_t);           \
  template cudaError_t launch_write_rings(const OutlinesFromPolygonsParams<T>&, const int64_t*, AlignedSegment<T>*, \
                                          cudaStream_t);
POLARMASK_INSTANTIATE(float)
POLARMASK_INSTANTIATE(double)

}  // namespace polarmask::outlines
