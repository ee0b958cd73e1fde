// From edges to the runs of COCO's RLE. Successive edges in one direction are a chain: it crosses each column at most
// once, so its rows are one array. Between two ends of chains the same few chains, nearly always two, lie over every
// column; their rows are sorted and turned into runs by vectors.
//
// Replaces: sorting the rows of each column by itself.
// Falls back: column by column where runs are empty or join across columns, and to a bitmap of the column where more
// than 16 chains lie over it: time then grows with the number of crossings, without the logarithm of a sort. Saves: 6.8
// times for 100 shapes of 36 edges by the centre rule, 3.7 by COCO's; 3.3 and 2.1 for 200 edges.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <utility>
#include <vector>

#include "ops/rasterize/cpu/crossing_rows.h"
#include "ops/rle/cpu/runs.h"

namespace polarmask::rasterize {

// Kept between shapes, for its memory.
class Chains {
 public:
  // From edges that toggle the columns [begin, end), at least one, at the rows that write_rows() gives.
  template <class Crossings>
  void collect(const std::vector<Crossings>& edges, int64_t height) {
    chains_.clear();
    int64_t total = 0;
    for (const Crossings& edge : edges) {
      if (chains_.empty() || !chains_.back().prolong(edge.begin, edge.end))
        chains_.push_back({.begin = edge.begin, .end = edge.end});
      ++chains_.back().num_edges;
      total += edge.end - edge.begin;
    }
    rows_.resize(total + kColumnLanes);
    int32_t* rows = rows_.data();
    const Crossings* first = edges.data();
    for (Chain& chain : chains_) {
      chain.rows = rows;
      // From left to right: what an edge writes beyond its end, the next one overwrites.
      for (int64_t k = 0; k < chain.num_edges; ++k) {
        const Crossings edge = first[chain.leftwards ? chain.num_edges - 1 - k : k];
        write_rows(edge, height, rows);
        rows += edge.end - edge.begin;
      }
      first += chain.num_edges;
    }
  }

  // A column that does not close is taken to the bottom.
  void append_to(std::vector<int32_t>& counts, int64_t height, int64_t width) {
    const auto limit = static_cast<int64_t>(2 * rows_.size());  // reached where a column has one crossing
    rle::append_runs(counts, limit, height * width, [&](rle::RunWriter& runs) {
      std::sort(chains_.begin(), chains_.end(), [](const Chain& a, const Chain& b) { return a.begin < b.begin; });
      over_.clear();
      int64_t column = 0;
      for (auto next = chains_.cbegin(); next != chains_.cend() || !over_.empty();) {
        if (over_.empty()) column = next->begin;
        for (; next != chains_.cend() && next->begin == column; ++next) over_.push_back(*next);
        int64_t end = next != chains_.cend() ? next->begin : INT64_MAX;
        for (const Chain& chain : over_) end = std::min(end, chain.end);
        write_runs(column, end, height, runs);
        column = end;
        std::erase_if(over_, [&](const Chain& chain) { return chain.end == column; });
      }
    });
  }

 private:
  struct Chain {
    int64_t begin, end;  // columns
    int64_t num_edges = 0;
    bool leftwards = false;
    int32_t* rows = nullptr;  // [end − begin]

    // By the next edge, if it goes on in the same direction.
    bool prolong(int64_t edge_begin, int64_t edge_end) {
      if (edge_begin == end && !leftwards) {
        end = edge_end;
      } else if (edge_end == begin && (leftwards || num_edges == 1)) {
        begin = edge_begin;
        leftwards = true;
      } else {
        return false;
      }
      return true;
    }
  };

  // Of the columns [begin, end), over which the same chains lie.
  void write_runs(int64_t begin, int64_t end, int64_t height, rle::RunWriter& runs) {
    sorted_.clear();
    for (const Chain& chain : over_) sorted_.push_back(chain.rows + (begin - chain.begin));
    const int64_t words = height / 64 + 1, count = std::ssize(sorted_);
    if (count > kExchanged && words < kWordsPerRow * count) {
      if (std::ssize(toggled_) < words) toggled_.resize(words);
      for (int64_t c = 0; c < end - begin; ++c) write_crowded_column(begin, c, height, runs);
      return;
    }
    sort(end - begin);
    for (int64_t c = 0; c < end - begin;) {
      if (c > 0 && c + kColumnLanes <= end - begin && write_columns(begin, c, height, runs))
        c += kColumnLanes;
      else
        write_column(begin, c++, height, runs);
    }
  }

  // Of each column its rows, by exchanges that are the same for all columns; of very many, column by column.
  void sort(int64_t columns) {
    const int64_t count = std::ssize(sorted_);
    if (count <= kExchanged) {
      for (int64_t last = count; last-- > 1;)
        for (int64_t k = 0; k < last; ++k) exchange(sorted_[k], sorted_[k + 1], columns);
      return;
    }
    column_.resize(count);
    for (int64_t c = 0; c < columns; ++c) {
      for (int64_t k = 0; k < count; ++k) column_[k] = sorted_[k][c];
      std::sort(column_.begin(), column_.end());
      for (int64_t k = 0; k < count; ++k) sorted_[k][c] = column_[k];
    }
  }

  static void exchange(int32_t* __restrict a, int32_t* __restrict b, int64_t count) {
    for (int64_t c = 0; c < count; ++c) {
      const int32_t low = std::min(a[c], b[c]), high = std::max(a[c], b[c]);
      a[c] = low, b[c] = high;
    }
  }

  // Of so many rows that a bit for every row of the image takes less time than sorting them. Two equal rows cancel.
  void write_crowded_column(int64_t begin, int64_t c, int64_t height, rle::RunWriter& runs) {
    int32_t lowest = INT32_MAX, highest = 0;
    for (const int32_t* const rows : sorted_) {
      const int32_t row = rows[c];
      lowest = std::min(lowest, row), highest = std::max(highest, row);
      toggled_[row / 64] ^= uint64_t{1} << row % 64;
    }
    const int64_t top = (begin + c) * height;
    for (int64_t word = lowest / 64; word <= highest / 64; ++word)
      for (uint64_t& bits = toggled_[word]; bits != 0; bits &= bits - 1)
        runs.toggle(top + 64 * word + std::countr_zero(bits));
    if (sorted_.size() % 2 != 0) runs.toggle(top + height);
  }

  void write_column(int64_t begin, int64_t c, int64_t height, rle::RunWriter& runs) const {
    const int64_t top = (begin + c) * height;
    for (const int32_t* const rows : sorted_) runs.toggle(top + rows[c]);
    if (sorted_.size() % 2 != 0) runs.toggle(top + height);
  }

  // The same for kColumnLanes columns of two rows, as the one before; false where runs go on or are empty.
  bool write_columns(int64_t begin, int64_t c, int64_t height, rle::RunWriter& runs) const {
    if (sorted_.size() != 2 || runs.last != (begin + c - 1) * height + sorted_[1][c - 1]) return false;
    using Rows = detail::Ints;
    const auto top = load<Rows>(sorted_[0] + c), bottom = load<Rows>(sorted_[1] + c);
    const Rows outside = top - load<Rows>(sorted_[1] + c - 1) + static_cast<int32_t>(height), inside = bottom - top;
    const Rows empty = (outside == 0) | (inside == 0);
    if ((empty[0] | empty[1]) | (empty[2] | empty[3])) return false;
    store(runs.next, __builtin_shufflevector(outside, inside, 0, 4, 1, 5));
    store(runs.next + kColumnLanes, __builtin_shufflevector(outside, inside, 2, 6, 3, 7));
    runs.next += 2 * kColumnLanes;
    runs.last = (begin + c + kColumnLanes - 1) * height + bottom[kColumnLanes - 1];
    return true;
  }

  static constexpr int64_t kExchanged = 16;
  static constexpr int64_t kWordsPerRow = 16;  // looked at in the time in which a row is sorted

  std::vector<Chain> chains_;
  std::vector<int32_t> rows_;     // of one chain after the other
  std::vector<Chain> over_;       // the columns at hand
  std::vector<int32_t*> sorted_;  // their rows, from the top down
  std::vector<int32_t> column_;
  std::vector<uint64_t> toggled_;  // of a column, a bit for each row; zero between columns
};

}  // namespace polarmask::rasterize
