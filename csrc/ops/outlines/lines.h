// Shapes of pixels, line by line: what the CPU's loops and the kernels share. Rows of a bitmap and columns of an RLE
// are both lines of runs: x and y change places, and with them the way round.
#pragma once

#include "common/geometry.h"

namespace polarmask::outlines {

struct Run {
  int32_t begin, end;  // pixels along the line
};

PM_HD PixelBox whole_image(int64_t height, int64_t width) { return {{0, height}, {0, width}}; }

// The pixels of an image [height, width] that a box [4], x0, y0, x1, y1 in pixels, touches or has a side in common
// with. A box with NaN touches none.
PM_HD PixelBox pixels_touching(const float* box, int64_t height, int64_t width) {
  const auto first = [](double from, int64_t count) {
    if (!(from > 1)) return int64_t{0};
    const int64_t before = from < static_cast<double>(count) ? static_cast<int64_t>(from) : count;
    return static_cast<double>(before) < from ? before : before - 1;
  };
  const auto end = [](double to, int64_t count) {
    if (!(to >= 0)) return int64_t{0};
    return to < static_cast<double>(count) ? static_cast<int64_t>(to) + 1 : count;
  };
  if (!(box[0] <= box[2] && box[1] <= box[3])) return {{0, 0}, {0, 0}};
  return {{first(box[1], height), end(box[3], height)}, {first(box[0], width), end(box[2], width)}};
}

// The runs of a line, in order, at least a pixel apart. Gap k of it lies before run k, the last gap behind all runs.
// In the shape gaps have numbers too: 0 is what reaches around it, before the first run of a line and after the last;
// r is the gap before run r.
struct Line {
  const Run* runs = nullptr;
  int64_t first = 0;  // the number of its first run in the shape
  int64_t count = 0;

  PM_HD const Run& operator[](int64_t k) const { return runs[k]; }
  PM_HD int64_t gap(int64_t k) const { return k == 0 || k == count ? 0 : first + k; }

  // Side k: the begin of run k / 2 when k is even, its end when k is odd.
  PM_HD int64_t num_sides() const { return 2 * count; }
  PM_HD int64_t side(int64_t k) const { return k % 2 == 0 ? runs[k / 2].begin : runs[k / 2].end; }
};

// Calls touch(a, h), their numbers, for the runs of two neighbouring lines that have a side or a corner in common.
template <class Touch>
PM_HD void touching_runs(const Line& above, const Line& here, Touch&& touch) {
  for (int64_t a = 0, h = 0; a < above.count && h < here.count;) {
    if (above[a].begin <= here[h].end && here[h].begin <= above[a].end) touch(above.first + a, here.first + h);
    above[a].end < here[h].end ? ++a : ++h;
  }
}

// The same for gaps that have a side in common.
template <class Touch>
PM_HD void touching_gaps(const Line& above, const Line& here, Touch&& touch) {
  const auto begin = [](const Line& line, int64_t k) { return k == 0 ? -1 : int64_t{line[k - 1].end}; };
  const auto end = [](const Line& line, int64_t k) { return k == line.count ? INT64_MAX : int64_t{line[k].begin}; };
  for (int64_t a = 0, h = 0; a <= above.count && h <= here.count;) {
    const int64_t above_end = end(above, a), here_end = end(here, h);
    if (begin(above, a) < here_end && begin(here, h) < above_end) touch(above.gap(a), here.gap(h));
    above_end < here_end ? ++a : ++h;
  }
}

// Calls visit(begin, end) for what a component has of a line when its holes are filled: its runs, together with the
// gaps that are not outside of it.
template <class IsKept, class IsOutside, class Visit>
PM_HD void fill_line(const Line& line, IsKept&& is_kept, IsOutside&& is_outside, Visit&& visit) {
  int32_t begin = -1;  // of the run that is open
  for (int64_t k = 0; k < line.count; ++k) {
    if (!is_kept(line.first + k)) continue;
    if (begin < 0) begin = line[k].begin;
    if (!is_outside(line.gap(k + 1))) continue;
    visit(begin, line[k].end);
    begin = -1;
  }
}

// The sides of the pixels between two neighbouring lines, in order. Calls along(x0, x1) for a side along the lines,
// with matter on the right of it, y down; ends(a) where side a of the line above ends; meets(h, a) where side h of this
// line goes on with side a of the line above, or begins: a is −1.
template <class Along, class Ends, class Meets>
PM_HD void sweep_sides(const Line& above, const Line& here, Along&& along, Ends&& ends, Meets&& meets) {
  int64_t last = 0;
  for (int64_t a = 0, h = 0; a < above.num_sides() || h < here.num_sides();) {
    const int64_t x_above = a < above.num_sides() ? above.side(a) : INT64_MAX;
    const int64_t x_here = h < here.num_sides() ? here.side(h) : INT64_MAX;
    const int64_t x = min_of(x_above, x_here);
    // Since the last side one of both lines is inside, or none, or both.
    if (h % 2 == 1 && a % 2 == 0) along(last, x);
    if (h % 2 == 0 && a % 2 == 1) along(x, last);
    last = x;
    if (x_above == x_here && a % 2 == h % 2) {
      meets(h++, a++);
      continue;
    }
    if (x_above == x) ends(a++);
    if (x_here == x) meets(h++, -1);
  }
}

// Calls pixel(x) for the pixels of a line of which a side touches the outside.
template <class Pixel>
PM_HD void border_pixels(const Line& above, const Line& line, const Line& below, Pixel&& pixel) {
  int64_t a = 0, b = 0;
  for (int64_t n = 0; n < line.count; ++n) {
    const Run run = line[n];
    int32_t x = run.begin;
    while (a < above.count && above[a].end <= run.begin) ++a;
    while (b < below.count && below[b].end <= run.begin) ++b;
    for (int64_t i = a, k = b; i < above.count && k < below.count;) {
      const int32_t begin = max_of(run.begin + 1, max_of(above[i].begin, below[k].begin));
      const int32_t end = min_of(run.end - 1, min_of(above[i].end, below[k].end));
      if (begin >= run.end) break;
      if (begin < end) {  // inside, all around
        for (; x < begin; ++x) pixel(x);
        x = end;
      }
      above[i].end < below[k].end ? ++i : ++k;
    }
    for (; x < run.end; ++x) pixel(x);
  }
}

}  // namespace polarmask::outlines
