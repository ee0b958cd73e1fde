// Clipping by the image's rectangle: what lies outside is moved to the nearest point of the border. A closed boundary
// stays closed and its winding inside the same, whatever the order of its segments. What goes to and fro along the
// border then cancels, so that no ray ends where there is no matter.
#pragma once

#include "common/polygon.h"
#include "ops/outlines/outlines.h"

namespace polarmask::outlines {

// A straight line crosses each border once at most, so that five parts of it are the most.
constexpr int64_t kMaxClippedParts = 5;

struct ClipPoint {
  double at[2];  // x, y in pixels
};

// Calls visit(a, b) for the parts of a → b before, within and beyond [0, limit] along the axis, in their order, each
// moved into it. NaN and infinity are for the caller to keep out.
template <int kAxis, class Visit>
PM_HD void clamp_along(double limit, ClipPoint a, ClipPoint b, Visit&& visit) {
  constexpr int kOther = 1 - kAxis;
  const Edge edge = make_edge(a.at[kAxis], a.at[kOther], b.at[kAxis], b.at[kOther]);
  const auto clamped = [](double value, double low, double high) { return min_of(max_of(low, value), high); };
  const auto moved = [&](ClipPoint p) {
    p.at[kAxis] = clamped(p.at[kAxis], 0.0, limit);
    return p;
  };
  const auto on = [&](double border) {
    ClipPoint p;
    p.at[kAxis] = border;
    p.at[kOther] = clamped(crossing(edge, border), min_of(edge.y0, edge.y1), max_of(edge.y0, edge.y1));
    return p;
  };
  const bool crosses_zero = (a.at[kAxis] < 0) != (b.at[kAxis] < 0);
  const bool crosses_limit = (a.at[kAxis] > limit) != (b.at[kAxis] > limit);
  const bool forward = a.at[kAxis] < b.at[kAxis];
  // The ends of the parts; the cuts come in the order in which they are passed.
  const bool crosses_first = forward ? crosses_zero : crosses_limit;
  const bool crosses_second = forward ? crosses_limit : crosses_zero;
  ClipPoint last = moved(a);
  for (int part = 0; part < 3; ++part) {  // a loop: visit is large, and one copy of it enough
    if (part == 0 ? !crosses_first : part == 1 && !crosses_second) continue;
    const ClipPoint next = part == 2 ? moved(b) : on((part == 0) == forward ? 0.0 : limit);
    visit(last, next);
    last = next;
  }
}

// Where a passage along a border begins or ends. Borders: x = 0, x = width, y = 0, y = height.
struct BorderEnd {
  double at;  // along the border, pixels
  int32_t border;
  int32_t step;  // of the number of passages forth, less those back: 1 or −1
};

PM_HD bool operator<(const BorderEnd& a, const BorderEnd& b) {
  if (a.border != b.border) return a.border < b.border;
  return a.at < b.at || (a.at == b.at && a.step < b.step);
}

// Calls inside(a, b) for the parts of a segment [4] within the rectangle, in their order, and end(BorderEnd) twice for
// each on its border.
template <class T, class Inside, class End>
PM_HD void clip_segment(const T* s, ClipPoint limit, Inside&& inside, End&& end) {
  const ClipPoint a{{s[0], s[1]}}, b{{s[2], s[3]}};
  if (!(is_finite(s[0]) && is_finite(s[1]) && is_finite(s[2]) && is_finite(s[3]))) return inside(a, b);
  if (s[0] == s[2] && s[1] == s[3]) {  // a point: in or out
    if (0 <= s[0] && s[0] <= limit.at[0] && 0 <= s[1] && s[1] <= limit.at[1]) inside(a, b);
    return;
  }
  const auto place = [&](ClipPoint c, ClipPoint d) {
    const auto& p = c.at;
    const auto& q = d.at;
    if (p[0] == q[0] && p[1] == q[1]) return;
    const bool along_x = p[0] == q[0] && (p[0] == 0 || p[0] == limit.at[0]);
    const bool along_y = p[1] == q[1] && (p[1] == 0 || p[1] == limit.at[1]);
    if (!along_x && !along_y) return inside(c, d);
    const int32_t border = along_x ? p[0] != 0 : 2 + (p[1] != 0);
    end(BorderEnd{along_x ? p[1] : p[0], border, 1});
    end(BorderEnd{along_x ? q[1] : q[0], border, -1});
  };
  clamp_along<0>(limit.at[0], a, b, [&](ClipPoint c, ClipPoint d) { clamp_along<1>(limit.at[1], c, d, place); });
}

// Calls visit(a, b) for what is left of the passages along the borders, when their ends are sorted: longest stretches
// first joined, forth where it is passed forth.
template <class Visit>
PM_HD void net_passages(const BorderEnd* ends, int64_t num_ends, ClipPoint limit, Visit&& visit) {
  int32_t level = 0;  // 0 again where a border ends
  double begin = 0;
  for (int64_t k = 0; k < num_ends;) {
    const BorderEnd end = ends[k];
    int32_t next = level;
    for (; k < num_ends && ends[k].border == end.border && ends[k].at == end.at; ++k) next += ends[k].step;
    if (next == level) continue;
    const bool along_x = end.border < 2;
    const double across = end.border % 2 == 0 ? 0.0 : (along_x ? limit.at[0] : limit.at[1]);
    const auto on = [&](double along) { return along_x ? ClipPoint{{across, along}} : ClipPoint{{along, across}}; };
    for (; level > 0; --level) visit(on(begin), on(end.at));
    for (; level < 0; ++level) visit(on(end.at), on(begin));
    level = next, begin = end.at;
  }
}

template <class T>
PM_HD AlignedSegment<T> segment_of(const ClipPoint& a, const ClipPoint& b) {
  return {static_cast<T>(a.at[0]), static_cast<T>(a.at[1]), static_cast<T>(b.at[0]), static_cast<T>(b.at[1])};
}

template <class T>
struct OutlinesClipParams {
  OutlineRows<T> outlines;
  ClipPoint limit;               // the rectangle's far corner, pixels
  BorderEnd* ends;               // [S, 2 kMaxClippedParts] scratch of the kernels
  unsigned long long* num_ends;  // [M] scratch of the kernels
};

}  // namespace polarmask::outlines
