// Writing RLE counts from kernels, in any order. The counts start at 0. A change from one pixel to the next down the
// columns ends one run and begins the next: it adds its position to the first count and subtracts it from the second,
// and the sums do not depend on the order of the changes.
#pragma once

#include "common/cuda/strips.cuh"
#include "ops/rle/rle.h"

namespace polarmask::rle {

__device__ inline bool is_last(const RunsOut& out, int64_t column) { return column == out.columns - 1; }

__device__ inline bool has_changes(const RunsOut& out, int64_t n, int64_t column) {
  const int64_t at = n * out.columns + column;
  return out.begins[at + 1] - out.begins[at] > is_last(out, column);
}

__device__ inline void add_to_count(const RunsOut& out, int64_t at, int64_t pixels) {
  atomicAdd(reinterpret_cast<unsigned*>(out.counts) + at, static_cast<unsigned>(pixels));
}

__device__ inline void write_change(const RunsOut& out, int64_t at, int64_t pixel) {
  add_to_count(out, at, pixel);
  add_to_count(out, at + 1, -pixel);
}

// For each column once: the end of the last run.
__device__ inline void finish_column(const RunsOut& out, int64_t n, int64_t column) {
  if (is_last(out, column)) add_to_count(out, out.begins[(n + 1) * out.columns] - 1, out.height * out.width);
}

// By all threads of the grid.
__device__ inline void write_offsets(const RunsOut& out) {
  for (int64_t n = blockIdx.x * int64_t{kStripThreads} + threadIdx.x; n <= out.size; n += gridDim.x * kStripThreads)
    out.offsets[n] = out.begins[n * out.columns];
}

template <class Kernel, class... Params>
cudaError_t launch_emit(Kernel kernel, int64_t strips, const RunsOut& out, cudaStream_t stream,
                        const Params&... params) {
  const cudaError_t error = cudaMemsetAsync(out.counts, 0, out.total * sizeof(int32_t), stream);
  if (error != cudaSuccess) return error;
  const int64_t blocks = max_of<int64_t>(1, blocks_for_strips(out.size, strips));
  return launch(kernel, blocks, kStripThreads, 0, stream, params..., out);
}

}  // namespace polarmask::rle
