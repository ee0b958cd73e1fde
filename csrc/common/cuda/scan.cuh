// Sums over what comes before: within a block, and over any number of elements.
#pragma once

#include "common/cuda/launch.cuh"
#include "common/scan.h"

namespace polarmask {

// Offsets [n + 1] of rows of these lengths [n]: offsets[k] = Σ lengths[j], j < k; a negative one counts as 0. The
// lengths may lie in their place, at offsets + 1. scratch [kScanScratch]. One launch for up to 4,096 rows, two for
// more.
cudaError_t launch_offsets(const int64_t* lengths, int64_t n, int64_t* offsets, int64_t* scratch, cudaStream_t stream);
cudaError_t launch_offsets(const int32_t* lengths, int64_t n, int64_t* offsets, int64_t* scratch, cudaStream_t stream);

// Σ value over the lanes of the warp up to this one. Must be called by all lanes of the warp.
template <class T>
__device__ T warp_scan(T value) {
  const int lane = threadIdx.x % kWarpSize;
  for (int by = 1; by < kWarpSize; by *= 2) {
    const T before = __shfl_up_sync(~0u, value, by);
    if (lane >= by) value += before;
  }
  return value;
}

// Σ value over the threads of the block up to this one; `total` becomes that over all of them. Must be called by all
// threads of the block.
template <int kThreads, class T>
__device__ T block_scan(T value, T& total) {
  static_assert(kThreads % kWarpSize == 0);
  __shared__ T warps[kThreads / kWarpSize];
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  value = warp_scan(value);
  if (lane == kWarpSize - 1) warps[warp] = value;
  __syncthreads();
  total = 0;
  for (int w = 0; w < kThreads / kWarpSize; ++w) {
    if (w < warp) value += warps[w];
    total += warps[w];
  }
  __syncthreads();  // before the next call writes the sums of its warps
  return value;
}

}  // namespace polarmask
