// Crossings sorted into columns, and the runs of COCO's RLE made from them.
#pragma once

#include <algorithm>
#include <cstdint>
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
    for (const Crossings& edge : edges)
      for (int64_t column = edge.begin; column < edge.end; ++column) put(column, edge.row(column, height));
    for (int64_t c = 0; c < num_columns(); ++c) sort(rows_.data() + begin(c), rows_.data() + end(c));
  }

  // From a bitmap: toggled wherever a pixel differs from the one above.
  void collect(const bool* mask, int64_t height, int64_t width) {
    clear(0, width);
    const auto each_change = [&](auto&& visit) {
      for (int64_t row = 0; row < height; ++row) {
        const bool* pixels = mask + row * width;
        if (row > 0 && std::equal(pixels, pixels + width, pixels - width)) continue;  // most rows
        for (int64_t c = 0; c < width; ++c)
          if (pixels[c] != (row > 0 && pixels[c - width])) visit(row, c);
      }
    };
    each_change([&](int64_t, int64_t c) { ++ends_[c]; });
    allot();
    each_change([&](int64_t row, int64_t c) { put(c, row); });
  }

  // Appends the lengths of the runs, column by column, zeros first. A shape that does not close is taken to the bottom.
  void append_runs(int64_t height, int64_t width, std::vector<int32_t>& counts) const {
    const size_t first_count = counts.size();
    int64_t last = 0;
    const auto toggle = [&](int64_t pixel) {
      if (pixel == last && counts.size() > first_count) {  // twice is not at all: the run goes on
        last -= counts.back();
        counts.pop_back();
      } else {
        counts.push_back(static_cast<int32_t>(pixel - last));
        last = pixel;
      }
    };
    for (int64_t c = 0; c < num_columns(); ++c) {
      const int64_t top = (first_ + c) * height;
      for (int64_t k = begin(c); k < end(c); ++k) toggle(top + rows_[k]);
      if ((end(c) - begin(c)) % 2 != 0) toggle(top + height);
    }
    if (last < height * width || counts.size() == first_count)
      counts.push_back(static_cast<int32_t>(height * width - last));
  }

 private:
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

  int64_t first_ = 0;          // column
  std::vector<int64_t> ends_;  // [columns + 1] into rows_
  std::vector<int32_t> rows_;
};

}  // namespace polarmask
