// The even-odd predicate. Masks, RLE, label images and point tests all use it, so they agree to the bit.
#pragma once

#include "common/polar.h"

namespace polarmask {

// A piece of a boundary with its ends ordered by x, so that two shapes that share an edge compute the same crossings.
struct Edge {
  double x0, y0, x1, y1;  // pixels, x0 ≤ x1
};

template <class T>
PM_HD Edge make_edge(T x0, T y0, T x1, T y1) {
  const auto ordered = [](double ax, double ay, double bx, double by) { return Edge{ax, ay, bx, by}; };
  return x1 < x0 ? ordered(x1, y1, x0, y0) : ordered(x0, y0, x1, y1);
}

// Whether the vertical line at x meets the edge: half open, so that a vertex belongs to one of its two edges.
PM_HD bool owns(const Edge& edge, double x) { return edge.x0 <= x && x < edge.x1; }

// Where it does. Every point at or below this height (y down) is toggled.
PM_HD double crossing(const Edge& edge, double x) {
  return edge.y0 + (x - edge.x0) * ((edge.y1 - edge.y0) / (edge.x1 - edge.x0));
}

}  // namespace polarmask
