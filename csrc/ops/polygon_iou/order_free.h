// Intersection of any two simple polygons as a sum over the edges of both, in any order:
//
//     area(A ∩ B) = ½ Σ over the edges (p, q) of A  p × q · f,  and the same over B's edges
//
// f is the share of the edge that lies in the other polygon: the winding number at its start, plus ±(1 - t) for every
// crossing at t. No vertex of the intersection is ever built or sorted.
//
// The vertices are snapped to a grid of 2^kSnapBits steps over the pair's joint box. On it they are integers, and the
// predicates are exact in double, at every scale. Ties are broken by shifting A by (ε, ε²): then no vertex lies on an
// edge, no edges overlap, and every decision is that of one configuration, however degenerate the input. So winding
// numbers are the same whether they are counted or follow from the crossings on the way.
#pragma once

#include "ops/polygon_iou/shapes.h"

namespace polarmask::polygon_iou {

// Differences of coordinates are then at most 2^24, which is exact in float, and cross products of them at most 2^49:
// exact in double's 53 bits.
constexpr int kSnapBits = 24;

// e, where 2^(e-1) ≤ value < 2^e, for positive values; -1022 for denormal ones, which are below that.
PM_HD int exponent_of(double value) {
  return static_cast<int>(__builtin_bit_cast(int64_t, value) >> 52 & 0x7ff) - 1022;
}

// 2^exponent, from -1022 to 1023.
PM_HD double power_of_two(int exponent) { return __builtin_bit_cast(double, (int64_t{exponent} + 1023) << 52); }

// From pixels to the grid.
struct SnapGrid {
  double x0, y0;  // corner of the joint box
  double scale;   // steps per pixel, a power of two: scaling both polygons by one changes nothing
};

PM_HD SnapGrid make_grid(const Box<double>& a, const Box<double>& b) {
  const Box<double> box = join(a, b);
  const int exponent = exponent_of(max_of(box.x1 - box.x0, box.y1 - box.y0));
  return {box.x0, box.y0, power_of_two(kSnapBits - max_of(exponent, -900))};  // denormal extents: it stays finite
}

// To the nearest integer, for 0 ≤ value < 2^51: unlike rint this vectorises everywhere.
PM_HD double round_to_integer(double value) {
  constexpr double kShift = 4503599627370496.0;  // 2^52, whose neighbours are integers
  return (value + kShift) - kShift;
}

PM_HD Vec2<float> snap(const SnapGrid& grid, Vec2<double> v) {
  return {static_cast<float>(round_to_integer((v.x - grid.x0) * grid.scale)),
          static_cast<float>(round_to_integer((v.y - grid.y0) * grid.scale))};
}

// Whether a point lies left of an edge, from cross(edge, point - start of the edge). kShift: 1 for A's points, which
// the tie rule moves by (ε, ε²) relative to B's edges; -1 for B's points and A's edges.
template <int kShift>
PM_HD bool is_left(double cross_product, Vec2<double> edge) {
  if (cross_product != 0) return cross_product > 0;
  return kShift * (edge.y != 0 ? -edge.y : edge.x) > 0;
}

// What the edge (r, s) adds to the winding number of its ring about p.
template <int kShift>
PM_HD double winding_step(Vec2<double> p, Vec2<double> r, Vec2<double> s) {
  const bool r_below = kShift > 0 ? r.y <= p.y : r.y < p.y;
  const bool s_below = kShift > 0 ? s.y <= p.y : s.y < p.y;
  if (r_below == s_below) return 0;
  const bool left = is_left<kShift>(cross(s - r, p - r), s - r);
  if (r_below) return left ? 1 : 0;
  return left ? 0 : -1;
}

// Winding number about p of the ring vertex(0), …, vertex(count - 1).
template <int kShift, class Vertex>
PM_HD double winding(Vec2<double> p, int64_t count, const Vertex& vertex) {
  double turns = 0;
  Vec2<double> r = vertex(0);
  for (int64_t j = 0; j < count; ++j) {
    const Vec2<double> s = vertex(next_of(j, count));
    turns += winding_step<kShift>(p, r, s);
    r = s;
  }
  return turns;
}

// Apart by a step of the grid or more: then the shift brings no crossing either.
PM_HD bool are_apart(const Box<double>& a, const Box<double>& b) {
  return a.x1 < b.x0 || b.x1 < a.x0 || a.y1 < b.y0 || b.y1 < a.y0;
}

// Where A's edge (p, q) and B's edge (r, s) cross.
struct Crossing {
  double sign;        // 1: A's edge enters B, and B's leaves A; -1: the other way round; 0: they do not cross
  double at_p, at_q;  // r to s × r to p or q
  double at_r, at_s;  // p to q × p to r or s

  // What it adds to the share of A's edge in B and of B's edge in A. No difference is 0: of two crossing edges at most
  // one end lies on the other's line.
  PM_HD double share_of_a() const { return sign * (at_q / (at_q - at_p)); }
  PM_HD double share_of_b() const { return -sign * (at_s / (at_s - at_r)); }
};

PM_HD Crossing cross_edges(Vec2<double> p, Vec2<double> q, Vec2<double> r, Vec2<double> s) {
  const Vec2<double> a = q - p, b = s - r;
  const Crossing found{0, cross(b, p - r), cross(b, q - r), cross(a, r - p), cross(a, s - p)};
  if (is_left<-1>(found.at_r, a) == is_left<-1>(found.at_s, a)) return found;
  const bool enters = is_left<1>(found.at_q, b);
  if (is_left<1>(found.at_p, b) == enters) return found;
  return {enters ? 1.0 : -1.0, found.at_p, found.at_q, found.at_r, found.at_s};
}

// Overlap of two snapped polygons, from the sum over all edges and twice their signed areas, in steps of the grid: so
// the IoU of identical ones is exactly 1.
PM_HD Overlap finish_order_free(double sum, double area_a, double area_b) {
  return make_overlap((area_a < 0) == (area_b < 0) ? sum : -sum, absolute(area_a), absolute(area_b));
}

}  // namespace polarmask::polygon_iou
