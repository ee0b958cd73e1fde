// Crossings sorted into columns, and the runs of COCO's RLE made from them.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <vector>

namespace polarmask {

// The rows at which the columns of one shape are toggled. Kept between shapes, for its memory.
class ColumnRows {
 public:
  // From edges that toggle the columns [begin, end) at row(column, height). In two passes, so that nothing limits the
  // number of crossings in a column.
  template <class Crossings>
  void collect(const std::vector<Crossings>& edges, int64_t height) {
    if (edges.empty()) return clear(0, 0);
    int64_t first = edges[0].begin, last = edges[0].end;
    for (const Crossings& edge : edges) first = std::min(first, edge.begin), last = std::max(last, edge.end);
    clear(first, last - first);
    for (const Crossings& edge : edges) {
      ++ends_[edge.begin - first];
      --ends_[edge.end - first];
    }
    int64_t open = 0;  // edges over this column
    for (int64_t& end : ends_) {
      open += end;
      end = open;
    }
    allot();
    for (const Crossings edge : edges)  // a copy: what is written cannot change it
      for (int64_t column = edge.begin; column < edge.end; ++column) put(column, edge.row(column, height));
    for (int64_t c = 0; c < num_columns(); ++c) sort(rows_.data() + begin(c), rows_.data() + end(c));
  }

  // From a bitmap: toggled wherever a pixel differs from the one above.
  void collect(const uint8_t* mask, int64_t height, int64_t width) {
    clear(0, width);
    changes_.clear();
    visit_changes(mask, height * width, width, [&](int64_t pixel) { changes_.push_back(pixel); });
    for (const int64_t pixel : changes_) ++ends_[pixel % width];
    allot();
    for (const int64_t pixel : changes_) put(pixel % width, pixel / width);
  }

  // Appends the lengths of the runs, column by column, zeros first. A shape that does not close is taken to the bottom.
  void append_runs(int64_t height, int64_t width, std::vector<int32_t>& counts) const {
    const size_t before = counts.size();
    counts.resize(before + rows_.size() + ends_.size() + 1);  // at most
    int32_t* const first = counts.data() + before;
    int32_t* next = first;
    int64_t last = 0;
    const auto toggle = [&](int64_t pixel) {
      if (pixel == last && next > first) {  // twice is not at all: the run goes on
        last -= *--next;
      } else {
        *next++ = static_cast<int32_t>(pixel - last);
        last = pixel;
      }
    };
    for (int64_t c = 0; c < num_columns(); ++c) {
      const int64_t top = (first_ + c) * height;
      for (int64_t k = begin(c); k < end(c); ++k) toggle(top + rows_[k]);
      if ((end(c) - begin(c)) % 2 != 0) toggle(top + height);
    }
    if (last < height * width || next == first) *next++ = static_cast<int32_t>(height * width - last);
    counts.resize(next - counts.data());
  }

 private:
  // Anywhere in memory.
  using Block = uint64_t __attribute__((vector_size(32), aligned(1), may_alias));

  // Calls visit(pixel) where it differs from the one above, row by row; pixels outside the bitmap are 0. Nearly all do
  // not, and this passes over them at the speed of memory.
  template <class Visit>
  static void visit_changes(const uint8_t* mask, int64_t area, int64_t width, Visit&& visit) {
    for (int64_t at = 0; at < std::min(area, width); ++at)
      if (mask[at]) visit(at);
    constexpr int64_t kBlocks = 8, kBytes = kBlocks * sizeof(Block);
    int64_t at = width;
    while (at + kBytes <= area) {
      const auto* const here = reinterpret_cast<const Block*>(mask + at);
      const auto* const above = reinterpret_cast<const Block*>(mask + at - width);
      Block any{};
      for (int64_t k = 0; k < kBlocks; ++k) any |= here[k] ^ above[k];
      const int64_t stop = at + kBytes;
      if (((any[0] | any[1]) | (any[2] | any[3])) == 0) {
        at = stop;
        continue;
      }
      for (; at < stop; at += sizeof(uint64_t)) {
        uint64_t differ = word_at(mask + at) ^ word_at(mask + at - width);
        for (; differ != 0; differ &= differ - 1) visit(at + std::countr_zero(differ) / 8);  // bytes of 0 or 1
      }
    }
    for (; at < area; ++at)
      if (mask[at] != mask[at - width]) visit(at);
  }

  static uint64_t word_at(const uint8_t* bytes) {
    uint64_t word;
    std::memcpy(&word, bytes, sizeof word);
    return word;
  }

  int64_t num_columns() const { return static_cast<int64_t>(ends_.size()) - 1; }
  int64_t begin(int64_t c) const { return c > 0 ? ends_[c - 1] : 0; }
  int64_t end(int64_t c) const { return ends_[c]; }

  void clear(int64_t first, int64_t columns) {
    first_ = first;
    ends_.assign(columns + 1, 0);
  }

  // Turns the number of rows of every column into where it begins; put() then moves that to where it ends.
  void allot() {
    int64_t total = 0;
    for (int64_t& end : ends_) {
      const int64_t count = end;
      end = total;
      total += count;
    }
    rows_.resize(total);
  }

  void put(int64_t column, int64_t row) { rows_[ends_[column - first_]++] = static_cast<int32_t>(row); }

  static void sort(int32_t* begin, int32_t* end) {
    if (end - begin != 2) return std::sort(begin, end);
    if (begin[1] < begin[0]) std::swap(begin[0], begin[1]);  // nearly always
  }

  std::vector<int64_t> changes_;  // of a bitmap, pixels row by row
  int64_t first_ = 0;             // column
  std::vector<int64_t> ends_;     // [columns + 1] into rows_
  std::vector<int32_t> rows_;
};

}  // namespace polarmask
