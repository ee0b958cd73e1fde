// What the kernels of outlines_from_masks and outlines_from_rle are given.
#pragma once

#include "common/rows.h"
#include "ops/outlines/lines.h"
#include "ops/outlines/outlines.h"

namespace polarmask::outlines {

// The memory that a shape needs; see Shape in pixels_kernels.cu.
PM_HD int64_t shape_bytes(int64_t num_lines, int64_t num_numbers, int64_t num_runs, bool columns) {
  const int64_t per_run = sizeof(Run) + (columns ? sizeof(unsigned long long) : 0) + 4 * sizeof(int32_t);
  const int64_t ints = 2 * num_lines + num_numbers + num_numbers % 2 + 1;
  return num_runs * per_run + ints * static_cast<int64_t>(sizeof(int32_t));
}

constexpr int64_t kSlotAlignment = 16;
PM_HD int64_t aligned(int64_t bytes) { return ceil_div(bytes, kSlotAlignment) * kSlotAlignment; }

// Bitmaps. Any of them fits into a slot.
struct BitShapes {
  uint32_t* bits;  // [M, height, words()] the first pixel in the lowest bit, zeros beyond the width
  const float*
      boxes;  // [M, 4] pixels; of a shape, what does not touch its box counts as empty; null: everything counts
  int64_t height, width;  // pixels

  PM_HD int64_t words() const { return ceil_div(width, 32); }
  // Which pixels of a word count, row after row through all bitmaps, from column x on.
  PM_HD uint32_t counting(int64_t row, int64_t x) const {
    if (!boxes) return ~0u;
    const PixelBox window = pixels_touching(boxes + row / height * 4, height, width);
    const int64_t line = row % height, begin = max_of(window.columns.begin, x),
                  end = min_of(window.columns.end, x + 32);
    if (line < window.rows.begin || line >= window.rows.end || begin >= end) return 0;
    return ~0u >> (32 - (end - begin)) << (begin - x);
  }
  PM_HD int64_t slot_bytes() const { return aligned(shape_bytes(height, 0, height * ceil_div(width, 2), false)); }
};

// Run lengths. Each shape has a slot of its own, for every count may make a run, and every column may cut one.
struct RleShapes {
  Ragged<int32_t> runs;
  int64_t height, width;  // pixels

  PM_HD int64_t bytes(int64_t num_counts) const {
    return shape_bytes(width, num_counts + 1, num_counts / 2 + width, true);
  }
  // For rising `counts_before`, slots do not overlap.
  PM_HD int64_t slot_begin(int64_t m, int64_t counts_before) const {
    constexpr int64_t kPerCount = 20;  // bytes(n) is at most 20 n more than bytes(0), and rounding adds 19
    return aligned(kPerCount * counts_before) + m * aligned(bytes(0) + 32);
  }
};

struct PixelOutlinesParams {
  int64_t count;         // M
  bool largest;          // only the largest component, its holes filled
  bool border;           // the border pixels' centres in place of the sides
  int32_t* needs_slot;   // [M] scratch: whether shared memory is too small for the shape
  unsigned char* slots;  // scratch
  int64_t num_slots;
};

}  // namespace polarmask::outlines
