// Drawing masks, label images and RLE by strips: a warp takes 32 neighbouring columns of an image, one lane to a
// column. The inside of a column is one bit a row, in words of 32 rows that only its lane reads and writes, so a column
// may have any number of crossings and lanes share nothing.
#pragma once

#include "common/cuda/launch.cuh"
#include "common/host_device.h"

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

}  // namespace polarmask
