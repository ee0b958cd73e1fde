// What the kernels of masks, labels and RLE have in common. A warp takes a strip of an image, 32 columns, a lane each.
// The inside of a column is a bit a row: words of 32 rows, which a lane makes of its own crossings or runs. So nothing
// is shared between lanes, and nothing limits the number of crossings.
#pragma once

#include "common/cuda/launch.cuh"
#include "ops/rle/rle.h"

namespace polarmask {

constexpr int kStripThreads = 128, kStripWarps = kStripThreads / kWarpSize;
constexpr int kStripColumns = kWarpSize;
constexpr int kWordRows = 32;

__device__ inline int lane_id() { return threadIdx.x % kWarpSize; }

// body(n, strip) for each of count × strips, a warp to each.
template <class Body>
__device__ void for_strips(int64_t count, int64_t strips, Body&& body) {
  const int64_t first = blockIdx.x * int64_t{kStripWarps} + threadIdx.x / kWarpSize;
  for (int64_t item = first; item < count * strips; item += gridDim.x * int64_t{kStripWarps})
    body(item / strips, item % strips);
}

inline int64_t blocks_for_strips(int64_t count, int64_t strips) { return ceil_div(count * strips, kStripWarps); }

// Bit i is the sum of the bits up to it, modulo 2.
__device__ inline uint32_t sum_bits(uint32_t bits) {
  for (int by = 1; by < kWordRows; by *= 2) bits ^= bits << by;
  return bits;
}

// What is inside among the rows of a word, from where the column is toggled there. `above`: all ones where the row
// before is inside, all zeros where it is not; becomes that of the next word.
__device__ inline uint32_t inside_of(uint32_t toggles, uint32_t& above) {
  const uint32_t inside = sum_bits(toggles) ^ above;
  above = 0u - (inside >> (kWordRows - 1));
  return inside;
}

// Four bits as four bytes.
__device__ inline uint32_t spread(uint32_t bits) { return (bits & 15) * 0x00204081u & 0x01010101u; }

// Writes 32 rows of the strip, from `row` on, into a mask that is 0; the lane's column is first + lane.
__device__ inline void paint_mask(uint8_t* mask, int64_t height, int64_t width, int64_t row, int64_t first,
                                  uint32_t inside) {
  const int64_t rows = min_of<int64_t>(kWordRows, height - row);
  if (width % 16 != 0) {  // a row of the strip by bytes, next to each other
    for (int r = 0; r < rows; ++r)
      if (inside >> r & 1) mask[(row + r) * width + first + lane_id()] = 1;
    return;
  }
  uint32_t of_row = 0;  // the 32 columns of row `lane`
  for (int r = 0; r < kWordRows; ++r) {
    const uint32_t bits = __ballot_sync(~0u, inside >> r & 1);
    if (r == lane_id()) of_row = bits;
  }
  for (int half = 0; half < 2; ++half) {  // two lanes to a row, 16 bytes each
    const int r = 16 * half + lane_id() / 2, column = lane_id() % 2 * 16;
    const uint32_t bits = __shfl_sync(~0u, of_row, r) >> column & 0xffffu;
    if (r < rows && bits != 0)
      *reinterpret_cast<uint4*>(mask + (row + r) * width + first + column) =
          make_uint4(spread(bits), spread(bits >> 4), spread(bits >> 8), spread(bits >> 12));
  }
}

// Writing an RLE. The counts are zero before: a change, from one pixel to the next down the columns, ends one run and
// begins the next, and so in any order the differences add up.

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

}  // namespace polarmask
