// Clipping by the image's rectangle: what lies outside is moved to the nearest point of the border. A closed boundary
// stays closed and its winding inside the same, whatever the order of its segments. What goes to and fro along the
// border then cancels, so that no ray ends where there is no matter.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "../../common/polygon.h"

namespace polarmask {

struct ClipPoint {
  double at[2];  // x, y in pixels
};

// Calls visit(a, b) for the parts of a → b before, within and beyond [0, limit] along the axis, in their order, each
// moved into it. NaN and infinity are for the caller to keep out.
template <class Visit>
PM_HD void clamp_along(int axis, double limit, ClipPoint a, ClipPoint b, Visit&& visit) {
  const int other = 1 - axis;
  const Edge edge = make_edge(a.at[axis], a.at[other], b.at[axis], b.at[other]);
  const auto clamped = [](double value, double low, double high) { return min_of(max_of(low, value), high); };
  const auto moved = [&](ClipPoint p) {
    p.at[axis] = clamped(p.at[axis], 0.0, limit);
    return p;
  };
  ClipPoint last = moved(a);
  const auto cut = [&](double border, bool crosses) {
    if (!crosses) return;
    ClipPoint p;
    p.at[axis] = border;
    p.at[other] = clamped(crossing(edge, border), min_of(edge.y0, edge.y1), max_of(edge.y0, edge.y1));
    visit(last, p);
    last = p;
  };
  const bool crosses_zero = (a.at[axis] < 0) != (b.at[axis] < 0);
  const bool crosses_limit = (a.at[axis] > limit) != (b.at[axis] > limit);
  const bool forward = a.at[axis] < b.at[axis];
  if (forward) cut(0, crosses_zero);
  cut(limit, crosses_limit);
  if (!forward) cut(0, crosses_zero);
  visit(last, moved(b));
}

// How often the stretches of a line are passed, forth less back.
class Passages {
 public:
  void clear() { ends_.clear(); }

  void add(double from, double to) {
    ends_.emplace_back(from, 1);
    ends_.emplace_back(to, -1);
  }

  // Calls visit(from, to) for what is left, longest stretches first joined; forth where it is passed forth.
  template <class Visit>
  void net(Visit&& visit) {
    std::sort(ends_.begin(), ends_.end());
    int level = 0;
    double begin = 0;
    for (size_t k = 0; k < ends_.size();) {
      const double at = ends_[k].first;
      int next = level;
      for (; k < ends_.size() && ends_[k].first == at; ++k) next += ends_[k].second;
      if (next == level) continue;
      for (int n = level; n > 0; --n) visit(begin, at);
      for (int n = level; n < 0; ++n) visit(at, begin);
      level = next, begin = at;
    }
  }

 private:
  std::vector<std::pair<double, int>> ends_;
};

// Clips one outline after another. Kept between them, for its memory.
class Clipper {
 public:
  Clipper(double width, double height) : limit_{{width, height}} {}

  // Calls visit(a, b) for the segments of the clipped outline [num_segments, 4].
  template <class T, class Visit>
  void clip(const T* segments, int64_t num_segments, Visit&& visit) {
    for (auto& axis : borders_)
      for (auto& border : axis) border.clear();
    for (const T* s = segments; s < segments + 4 * num_segments; s += 4) clip_segment(s, visit);
    for (int axis = 0; axis < 2; ++axis)
      for (int far = 0; far < 2; ++far)
        borders_[axis][far].net([&](double from, double to) {
          ClipPoint a, b;
          a.at[axis] = b.at[axis] = far ? limit_.at[axis] : 0;
          a.at[1 - axis] = from, b.at[1 - axis] = to;
          visit(a, b);
        });
  }

 private:
  template <class T, class Visit>
  void clip_segment(const T* s, Visit&& visit) {
    const ClipPoint a{{s[0], s[1]}}, b{{s[2], s[3]}};
    if (!(is_finite(s[0]) && is_finite(s[1]) && is_finite(s[2]) && is_finite(s[3]))) return visit(a, b);
    if (s[0] == s[2] && s[1] == s[3]) {  // a point: in or out
      if (0 <= s[0] && s[0] <= limit_.at[0] && 0 <= s[1] && s[1] <= limit_.at[1]) visit(a, b);
      return;
    }
    clamp_along(0, limit_.at[0], a, b, [&](ClipPoint c, ClipPoint d) {
      clamp_along(1, limit_.at[1], c, d, [&](ClipPoint e, ClipPoint f) { place(e, f, visit); });
    });
  }

  template <class Visit>
  void place(ClipPoint a, ClipPoint b, Visit&& visit) {
    if (a.at[0] == b.at[0] && a.at[1] == b.at[1]) return;
    for (int axis = 0; axis < 2; ++axis)
      if (a.at[axis] == b.at[axis] && (a.at[axis] == 0 || a.at[axis] == limit_.at[axis]))
        return borders_[axis][a.at[axis] != 0].add(a.at[1 - axis], b.at[1 - axis]);
    visit(a, b);
  }

  ClipPoint limit_;
  Passages borders_[2][2];  // of x, of y; near, far
};

}  // namespace polarmask
