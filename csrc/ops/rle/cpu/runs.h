// The runs of COCO's RLE on the CPU, from pixels at which a column changes, and those of bitmaps.
//
// Replaces (ColumnRows): a look at every pixel, column by column, which jumps from row to row in memory. Compares each
// row with the one above, 256 bytes at a time, and sorts the pixels that differ by column.
// Falls back: eight bytes at a time in a block that differs, and byte by byte in the first row and the last 255 bytes.
// Saves: 28 times for a mask of 800 × 1280 with one object of 120 pixels across (53 µs instead of 1,490 µs).
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <vector>

#include "common/simd.h"

namespace polarmask::rle {

// Lengths of runs, column by column, zeros first, from the pixels at which they end.
struct RunWriter {
  int32_t* first;
  int32_t* next;
  int64_t last = 0;  // pixel

  explicit RunWriter(int32_t* counts) : first(counts), next(counts) {}

  // Toggled twice is not at all: the run goes on.
  void toggle(int64_t pixel) {
    if (pixel == last && next > first) {
      last -= *--next;
    } else {
      *next++ = static_cast<int32_t>(pixel - last);
      last = pixel;
    }
  }

  void finish(int64_t area) {
    if (last < area || next == first) *next++ = static_cast<int32_t>(area - last);
  }
};

// Appends the counts, at most `limit`, that write(writer) writes and those of the rest of the image.
template <class Write>
void append_runs(std::vector<int32_t>& counts, int64_t limit, int64_t area, Write&& write) {
  const size_t before = counts.size();
  counts.resize(before + limit + 1);
  RunWriter writer(counts.data() + before);
  write(writer);
  writer.finish(area);
  counts.resize(writer.next - counts.data());
}

// The rows at which the columns of a bitmap are toggled: wherever a pixel differs from the one above. Kept between
// bitmaps, for its memory.
class ColumnRows {
 public:
  void collect(const uint8_t* mask, int64_t height, int64_t width) {
    ends_.assign(width + 1, 0);
    changes_.clear();
    visit_changes(mask, height * width, width, [&](int64_t pixel) { changes_.push_back(pixel); });
    for (const int64_t pixel : changes_) ++ends_[pixel % width];
    allot();
    for (const int64_t pixel : changes_) rows_[ends_[pixel % width]++] = static_cast<int32_t>(pixel / width);
  }

  // A column that does not close is taken to the bottom.
  void append_to(std::vector<int32_t>& counts, int64_t height, int64_t width) const {
    const auto limit = static_cast<int64_t>(rows_.size() + ends_.size());
    append_runs(counts, limit, height * width, [&](RunWriter& runs) {
      int64_t k = 0;
      for (size_t c = 0; c + 1 < ends_.size(); ++c) {
        const int64_t top = static_cast<int64_t>(c) * height, begin = k;
        for (; k < ends_[c]; ++k) runs.toggle(top + rows_[k]);
        if ((k - begin) % 2 != 0) runs.toggle(top + height);
      }
    });
  }

 private:
  // Calls visit(pixel) where it differs from the one above, row by row; pixels outside the bitmap are 0. Nearly all do
  // not, and this passes over them at the speed of memory.
  template <class Visit>
  static void visit_changes(const uint8_t* mask, int64_t area, int64_t width, Visit&& visit) {
    for (int64_t at = 0; at < std::min(area, width); ++at)
      if (mask[at] != 0) visit(at);
    int64_t at = width;
    while (at + kZeroBlock <= area) {
      const auto change = [&](int64_t k) {
        const uint8_t* const here = mask + at + k * sizeof(ZeroWords);
        return load<ZeroWords>(here) ^ load<ZeroWords>(here - width);
      };
      const int64_t stop = at + kZeroBlock;
      if (is_zero_block(change)) {
        at = stop;
        continue;
      }
      for (; at < stop; at += sizeof(uint64_t)) {
        uint64_t differ = inside_of(word_at(mask + at)) ^ inside_of(word_at(mask + at - width));
        for (; differ != 0; differ &= differ - 1) visit(at + std::countr_zero(differ) / 8);
      }
    }
    for (; at < area; ++at)
      if ((mask[at] != 0) != (mask[at - width] != 0)) visit(at);
  }

  // Sets the top bit of the bytes that are not 0, and nothing else. Bool tensors may hold any byte.
  static uint64_t inside_of(uint64_t bytes) {
    constexpr uint64_t kLow = 0x7f7f7f7f7f7f7f7f;
    return (((bytes & kLow) + kLow) | bytes) & ~kLow;
  }

  static uint64_t word_at(const uint8_t* bytes) {
    uint64_t word;
    std::memcpy(&word, bytes, sizeof word);
    return word;
  }

  // Turns the number of rows of every column into where it begins; writing then moves that to where it ends.
  void allot() {
    int64_t total = 0;
    for (int64_t& end : ends_) {
      const int64_t count = end;
      end = total;
      total += count;
    }
    rows_.resize(total);
  }

  std::vector<int64_t> changes_;  // pixels, row by row
  std::vector<int64_t> ends_;     // [columns + 1] into rows_
  std::vector<int32_t> rows_;
};

}  // namespace polarmask::rle
