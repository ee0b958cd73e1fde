// S segments read twice and at most a little more written: 48S bytes in float32, 100 outlines of 300 segments 1.4 MB,
// 0.4 µs at 3.35 TB/s; a crossing costs a division in double. Launches of 2–3 µs count, and the sort.
//
// Design: a block to an outline. The first kernel counts the parts inside, gathers the ends of the passages along the
// borders in any order and sorts them: bitonic, in place, in global memory, of which the block's share is in its L1.
// Most outlines touch no border; where one does, some ten to some hundred ends are left. One thread adds the passages
// up. The second kernel, when the offsets are known, writes the parts in the order of the segments: a scan over the
// block. Scratch: 160 bytes a segment, what the worst of them needs.
#include "common/cuda/launch.cuh"
#include "common/cuda/scan.cuh"
#include "ops/outlines/clip.h"

namespace polarmask::outlines {
namespace {

constexpr int kThreads = 128;
constexpr int kBlocks = 4;  // blocks per multiprocessor, at least: bounds registers; without it nvcc spills

// Where the ends of an outline lie. Outlines overlap where offsets are not valid, and then spoil each other's.
template <class T>
__device__ BorderEnd* ends_of(const OutlinesClipParams<T>& p, int64_t begin) {
  return p.ends + 2 * kMaxClippedParts * begin;
}

// Smallest first. Every comparison puts the smaller one first, so what lies beyond the end, larger than all, would
// stay.
__device__ void sort(BorderEnd* ends, int64_t count) {
  const auto compare = [&](int64_t a, int64_t b) {
    if (b >= count || !(ends[b] < ends[a])) return;
    const BorderEnd larger = ends[a];
    ends[a] = ends[b], ends[b] = larger;
  };
  for (int64_t size = 2; size < 2 * count; size *= 2) {
    for (int64_t k = threadIdx.x; 2 * k < size / 2 + count; k += kThreads) {
      const int64_t a = k / (size / 2) * size + k % (size / 2);
      compare(a, a ^ (size - 1));  // its mirror image
    }
    __syncthreads();
    for (int64_t apart = size / 4; apart > 0; apart /= 2) {
      for (int64_t k = threadIdx.x; 2 * k < apart + count; k += kThreads) {
        const int64_t a = k / apart * 2 * apart + k % apart;
        compare(a, a + apart);
      }
      __syncthreads();
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, kBlocks) clip_count_kernel(OutlinesClipParams<T> p, int64_t* lengths) {
  for (int64_t m = blockIdx.x; m < p.outlines.count; m += gridDim.x) {
    const Interval range = p.outlines.range(m);
    BorderEnd* const ends = ends_of(p, range.begin);
    int64_t count = 0, total;
    for (int64_t s = range.begin + threadIdx.x; s < range.end; s += kThreads)
      clip_segment(
          p.outlines.segments + 4 * s, p.limit, [&](ClipPoint, ClipPoint) { ++count; },
          [&](const BorderEnd& end) { ends[atomicAdd(p.num_ends + m, 1)] = end; });
    block_scan<kThreads>(count, total);  // and a barrier
    const auto num_ends = static_cast<int64_t>(p.num_ends[m]);
    sort(ends, num_ends);
    if (threadIdx.x != 0) continue;
    net_passages(ends, num_ends, p.limit, [&](ClipPoint, ClipPoint) { ++total; });
    lengths[m] = total;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, kBlocks)
    clip_write_kernel(OutlinesClipParams<T> p, const int64_t* offsets, AlignedSegment<T>* segments) {
  for (int64_t m = blockIdx.x; m < p.outlines.count; m += gridDim.x) {
    const Interval range = p.outlines.range(m);
    int64_t at = offsets[m];
    if (at == offsets[m + 1]) continue;
    for (int64_t first = range.begin; first < range.end; first += kThreads) {
      const int64_t s = first + threadIdx.x;
      const auto visit = [&](auto&& inside) {
        if (s < range.end) clip_segment(p.outlines.segments + 4 * s, p.limit, inside, [](const BorderEnd&) {});
      };
      int count = 0, total;
      visit([&](ClipPoint, ClipPoint) { ++count; });
      AlignedSegment<T>* to = segments + at + block_scan<kThreads>(count, total) - count;
      visit([&](ClipPoint a, ClipPoint b) { *to++ = segment_of<T>(a, b); });
      at += total;
    }
    if (threadIdx.x == 0)
      net_passages(ends_of(p, range.begin), static_cast<int64_t>(p.num_ends[m]), p.limit,
                   [&](ClipPoint a, ClipPoint b) {
                     if (at < offsets[m + 1])
                       segments[at++] = segment_of<T>(a, b);  // ends that were spoilt may be more
                   });
  }
}

}  // namespace

template <class T>
cudaError_t launch_count_clipped(const OutlinesClipParams<T>& p, int64_t* lengths, cudaStream_t stream) {
  const cudaError_t error = cudaMemsetAsync(p.num_ends, 0, p.outlines.count * sizeof *p.num_ends, stream);
  if (error != cudaSuccess) return error;
  return launch(clip_count_kernel<T>, p.outlines.count, kThreads, 0, stream, p, lengths);
}

template <class T>
cudaError_t launch_write_clipped(const OutlinesClipParams<T>& p, const int64_t* offsets, AlignedSegment<T>* segments,
                                 cudaStream_t stream) {
  return launch(clip_write_kernel<T>, p.outlines.count, kThreads, 0, stream, p, offsets, segments);
}

#define POLARMASK_INSTANTIATE(T)                                                                              \
  template cudaError_t launch_count_clipped(const OutlinesClipParams<T>&, int64_t*, cudaStream_t);            \
  template cudaError_t launch_write_clipped(const OutlinesClipParams<T>&, const int64_t*, AlignedSegment<T>*, \
                                            cudaStream_t);
POLARMASK_INSTANTIATE(float)
POLARMASK_INSTANTIATE(double)

}  // namespace polarmask::outlines
