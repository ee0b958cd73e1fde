// Outlines of pixel shapes, straight from runs. Rows of a bitmap and columns of an RLE are both lines of runs: x and y
// change places, and with them the way round.
#pragma once

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "../../common/host_device.h"

namespace polarmask {

struct Run {
  int32_t begin, end;  // pixels along the line
};

// Anywhere in memory. A copy would go through the stack.
using Words = uint64_t __attribute__((vector_size(32), aligned(1), may_alias));

// The runs of one shape, line by line, at least a pixel apart. Kept between shapes, for its memory.
class Runs {
 public:
  void clear() {
    runs_.clear();
    begins_.clear();
  }

  // In order of lines, and along them; runs that touch are joined.
  void add(int64_t line, int32_t begin, int32_t end) {
    if (runs_.empty()) first_line_ = line;
    if (line < end_line() && runs_.back().end == begin) {
      runs_.back().end = end;
      return;
    }
    begins_.resize(line - first_line_ + 1, size());
    runs_.push_back({begin, end});
  }

  // A bitmap [height, width], where bytes other than 0 are inside.
  void add_bitmap(const uint8_t* pixels, int64_t height, int64_t width) {
    const int64_t area = height * width;
    for (int64_t at = skip_zeros(pixels, 0, area); at < area;) {
      const int64_t line = at / width;
      add_row(line, pixels + line * width, width);
      at = skip_zeros(pixels, (line + 1) * width, area);
    }
  }

  int64_t size() const { return static_cast<int64_t>(runs_.size()); }
  const Run& operator[](int64_t run) const { return runs_[run]; }

  int64_t first_line() const { return first_line_; }
  int64_t end_line() const { return first_line_ + static_cast<int64_t>(begins_.size()); }

  // The first run of a line, or where it would be; for lines from first_line() on.
  int64_t begin_of(int64_t line) const { return line < end_line() ? begins_[line - first_line_] : size(); }

  // Any line at all; none where there is nothing.
  std::span<const Run> line(int64_t line) const {
    if (line < first_line_ || line >= end_line()) return {};
    return std::span(runs_).subspan(begin_of(line), begin_of(line + 1) - begin_of(line));
  }

 private:
  // The first byte from `at` on that is not 0, or one up to 255 before it: most of a bitmap is empty, and this passes
  // over it at the speed of memory.
  static int64_t skip_zeros(const uint8_t* bytes, int64_t at, int64_t count) {
    constexpr int64_t kBlock = 8 * sizeof(Words);
    for (; at + kBlock <= count; at += kBlock) {
      const auto* const w = reinterpret_cast<const Words*>(bytes + at);
      const Words any = ((w[0] | w[1]) | (w[2] | w[3])) | ((w[4] | w[5]) | (w[6] | w[7]));
      if ((any[0] | any[1]) | (any[2] | any[3])) return at;
    }
    while (at < count && bytes[at] == 0) ++at;
    return at;
  }

  void add_row(int64_t line, const uint8_t* pixels, int64_t width) {
    int64_t begin = -1;  // of the run that is open
    for (int64_t x = 0; x < width; x += 64) {
      const uint64_t inside = nonzero_bytes(pixels + x, std::min<int64_t>(width - x, 64));
      uint64_t changes = inside ^ (inside << 1 | (begin >= 0));
      for (; changes != 0; changes &= changes - 1) {
        const int64_t at = x + std::countr_zero(changes);
        if (begin >= 0) add(line, static_cast<int32_t>(begin), static_cast<int32_t>(at));
        begin = begin >= 0 ? -1 : at;
      }
    }
    if (begin >= 0) add(line, static_cast<int32_t>(begin), static_cast<int32_t>(width));
  }

  // Bit k says whether byte k is other than 0.
  static uint64_t nonzero_bytes(const uint8_t* bytes, int64_t count) {
    constexpr uint64_t kLow = 0x7f7f7f7f7f7f7f7f;
    uint64_t words[8] = {};
    count == 64 ? std::memcpy(words, bytes, 64) : std::memcpy(words, bytes, count);  // 64 is a few loads
    uint64_t any = 0, bits = 0;
    for (const uint64_t word : words) any |= word;
    if (any == 0) return 0;  // often
    for (int k = 0; k < 8; ++k) {
      const uint64_t ones = ((((words[k] & kLow) + kLow) | words[k]) & ~kLow) >> 7;
      bits |= (ones * 0x0102040810204080 >> 56) << (8 * k);  // the product brings byte k's 1 to bit 56 + k
    }
    return bits;
  }

  int64_t first_line_ = 0;
  std::vector<int64_t> begins_;  // the first run of each line
  std::vector<Run> runs_;
};

// The 8-connected component of the largest area, its holes filled. Holes are 4-connected pieces of the outside that do
// not reach the image's border. Kept between shapes, for its memory.
class LargestComponent {
 public:
  // `columns`: lines are columns. Of equal areas the one wins whose first pixel in row-major order comes first.
  void find(const Runs& shape, bool columns, Runs& filled) {
    connect(shape);
    const int64_t best = largest(shape, columns);
    filled.clear();
    for (int64_t line = shape.first_line(); line < shape.end_line(); ++line) {
      int32_t begin = -1;  // of the run that is open
      for (int64_t run = shape.begin_of(line); run < shape.begin_of(line + 1); ++run) {
        if (root(pieces_, run) != best) continue;
        if (begin < 0) begin = shape[run].begin;
        if (!outside(best, gap_after_[run])) continue;
        filled.add(line, begin, shape[run].end);
        begin = -1;
      }
    }
  }

 private:
  // The gaps between runs, and with them the background, have numbers too: 0 is what reaches around the shape, before
  // the first run of a line and after the last; r + 1 is the gap between run r and the next.
  void connect(const Runs& shape) {
    pieces_.resize(shape.size());
    gaps_.resize(shape.size() + 1);
    gap_after_.resize(shape.size());
    std::iota(pieces_.begin(), pieces_.end(), 0);
    std::iota(gaps_.begin(), gaps_.end(), 0);
    for (int64_t line = shape.first_line(); line <= shape.end_line(); ++line) {
      const int64_t begin = shape.begin_of(line), end = shape.begin_of(line + 1);
      for (int64_t run = begin; run < end; ++run) gap_after_[run] = run + 1 < end ? run + 1 : 0;
      join_runs(shape, line);
      join_gaps(shape, line);
    }
  }

  // With those of the line before: a corner is enough.
  void join_runs(const Runs& shape, int64_t line) {
    if (line == shape.first_line()) return;
    int64_t above = shape.begin_of(line - 1), here = shape.begin_of(line);
    const int64_t above_end = here, here_end = shape.begin_of(line + 1);
    while (above < above_end && here < here_end) {
      if (shape[above].begin <= shape[here].end && shape[here].begin <= shape[above].end) join(pieces_, above, here);
      shape[above].end < shape[here].end ? ++above : ++here;
    }
  }

  // With those of the line before: a side is needed. Gap k of a line lies before its run k.
  void join_gaps(const Runs& shape, int64_t line) {
    constexpr int64_t kFar = INT64_MAX;
    const int64_t above_begin = line > shape.first_line() ? shape.begin_of(line - 1) : 0;
    const int64_t here_begin = shape.begin_of(line);
    const auto above_line = shape.line(line - 1), here_line = shape.line(line);
    const auto count = [](auto runs) { return static_cast<int64_t>(runs.size()); };
    const auto id = [&](int64_t first, auto runs, int64_t k) { return k == 0 || k == count(runs) ? 0 : first + k; };
    const auto begin = [](auto runs, int64_t k) { return k == 0 ? -1 : int64_t{runs[k - 1].end}; };
    const auto end = [&](auto runs, int64_t k) { return k == count(runs) ? kFar : int64_t{runs[k].begin}; };
    for (int64_t a = 0, h = 0; a <= count(above_line) && h <= count(here_line);) {
      const int64_t a_end = end(above_line, a), h_end = end(here_line, h);
      if (begin(above_line, a) < h_end && begin(here_line, h) < a_end)
        join(gaps_, id(above_begin, above_line, a), id(here_begin, here_line, h));
      a_end < h_end ? ++a : ++h;
    }
  }

  // The sides that face the outside enclose the area with the holes filled: Green again.
  int64_t largest(const Runs& shape, bool columns) {
    areas_.assign(shape.size(), 0);
    first_pixels_.assign(shape.size(), {INT64_MAX, INT64_MAX});
    for (int64_t line = shape.first_line(); line < shape.end_line(); ++line)
      for (int64_t run = shape.begin_of(line); run < shape.begin_of(line + 1); ++run) {
        const int64_t piece = root(pieces_, run);
        if (outside(piece, gap_after_[run])) areas_[piece] += shape[run].end;
        if (outside(piece, gap_before(run))) areas_[piece] -= shape[run].begin;
        const int64_t along = shape[run].begin;
        first_pixels_[piece] =
            std::min(first_pixels_[piece], columns ? std::pair(along, line) : std::pair(line, along));
      }
    int64_t best = 0;
    for (int64_t piece = 1; piece < shape.size(); ++piece)
      if (areas_[piece] > areas_[best] || (areas_[piece] == areas_[best] && first_pixels_[piece] < first_pixels_[best]))
        best = piece;
    return best;
  }

  // A component's number is its first run. The gap before that one cannot be a hole of the component.
  bool outside(int64_t piece, int64_t gap) { return root(gaps_, gap) == root(gaps_, gap_before(piece)); }

  int64_t gap_before(int64_t run) const { return run > 0 ? gap_after_[run - 1] : 0; }

  static int64_t root(std::vector<int64_t>& parents, int64_t k) {
    for (; parents[k] != k; k = parents[k]) parents[k] = parents[parents[k]];
    return k;
  }

  // The smaller number stays: the first run, and gap 0.
  static void join(std::vector<int64_t>& parents, int64_t a, int64_t b) {
    a = root(parents, a), b = root(parents, b);
    parents[std::max(a, b)] = std::min(a, b);
  }

  std::vector<int64_t> pieces_, gaps_;                     // union-find: runs, gaps
  std::vector<int64_t> gap_after_;                         // each run's
  std::vector<int64_t> areas_;                             // each component's, pixels
  std::vector<std::pair<int64_t, int64_t>> first_pixels_;  // each component's, row and column
};

// The sides of the pixels where inside meets outside, joined as long as they go straight on.
class EdgeTracer {
 public:
  // Calls side(x0, y0, x1, y1) with matter on the right of it, y down: x runs along the lines.
  template <class Side>
  void trace(const Runs& shape, Side&& side) {
    begun_above_.clear();
    for (int64_t line = shape.first_line(); line <= shape.end_line(); ++line) {
      const auto above = shape.line(line - 1), here = shape.line(line);
      begun_.resize(2 * here.size());
      trace_between(line, above, here, side);
      std::swap(begun_above_, begun_);
    }
  }

 private:
  // Sides k of a line of runs: the begin of run k / 2 when k is even, its end when k is odd.
  static int64_t at(std::span<const Run> runs, size_t k) { return k % 2 == 0 ? runs[k / 2].begin : runs[k / 2].end; }

  template <class Side>
  void trace_between(int64_t line, std::span<const Run> above, std::span<const Run> here, Side&& side) {
    int64_t last = 0;
    for (size_t a = 0, h = 0; a < 2 * above.size() || h < 2 * here.size();) {
      const int64_t x_above = a < 2 * above.size() ? at(above, a) : INT64_MAX;
      const int64_t x_here = h < 2 * here.size() ? at(here, h) : INT64_MAX;
      const int64_t x = std::min(x_above, x_here);
      // Along the line, since the last side, one of both is inside.
      if (h % 2 == 1 && a % 2 == 0) side(last, line, x, line);
      if (h % 2 == 0 && a % 2 == 1) side(x, line, last, line);
      last = x;
      // Across: a side goes straight on, or one ends and another begins.
      if (x_above == x_here && a % 2 == h % 2) {
        begun_[h++] = begun_above_[a++];
        continue;
      }
      if (x_above == x) {
        a % 2 == 0 ? side(x, line, x, begun_above_[a]) : side(x, begun_above_[a], x, line);
        ++a;
      }
      if (x_here == x) begun_[h++] = line;
    }
  }

  std::vector<int64_t> begun_above_, begun_;  // the line where each side across began
};

// Calls pixel(x, line) for the pixels of the shape of which a side touches the outside.
template <class Pixel>
void border_pixels(const Runs& shape, Pixel&& pixel) {
  for (int64_t line = shape.first_line(); line < shape.end_line(); ++line) {
    const auto above = shape.line(line - 1), below = shape.line(line + 1);
    size_t a = 0, b = 0;
    for (const Run& run : shape.line(line)) {
      int64_t x = run.begin;
      while (a < above.size() && above[a].end <= run.begin) ++a;
      while (b < below.size() && below[b].end <= run.begin) ++b;
      for (size_t i = a, k = b; i < above.size() && k < below.size();) {
        const int64_t begin = std::max({run.begin + 1, above[i].begin, below[k].begin});
        const int64_t end = std::min({run.end - 1, above[i].end, below[k].end});
        if (begin >= run.end) break;
        if (begin < end) {  // inside, all around
          for (; x < begin; ++x) pixel(x, line);
          x = end;
        }
        above[i].end < below[k].end ? ++i : ++k;
      }
      for (; x < run.end; ++x) pixel(x, line);
    }
  }
}

}  // namespace polarmask
