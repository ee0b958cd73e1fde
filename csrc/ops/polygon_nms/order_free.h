// Intersection of any two simple polygons as a sum over the edges of both, in any order:
//
//     area(A ∩ B) = ½ Σ over the edges (p, q) of A  p × q · f,  and the same over B's edges
//
// f is the share of the edge that lies in the other polygon: the winding number at its start, plus ±(1 - t) for every
// crossing at t. No vertex of the intersection is ever built or sorted.
//
// The vertices are snapped to a grid of 2^kSnapBits steps over the pair's joint box. On it they are integers, and the
// predicates are exact in double, at every scale. Ties are broken by shifting A by (ε, ε²): then no vertex lies on an
// edge, no edges overlap, and every decision is that of one configuration, however degenerate the input.
#pragma once

#include <cmath>

#include "shapes.h"

namespace polarmask {

// Differences of coordinates are then at most 2^24 and cross products of them at most 2^49: exact in double's 53 bits.
constexpr int kSnapBits = 24;

// Memory of the caller for a pair of polygons of N and M vertices.
struct OrderFreeScratch {
  Vec2<double>* a;  // [N + 1]
  Vec2<double>* b;  // [M + 1]
  double* share;    // [M]
  double* step;     // [M]
};

// From pixels to the grid.
struct SnapGrid {
  double x0, y0;  // corner of the joint box
  double scale;   // steps per pixel, a power of two: scaling both polygons by one changes nothing
};

PM_HD SnapGrid make_grid(const Bounds& a, const Bounds& b) {
  const double x0 = min_of(a.x0, b.x0), y0 = min_of(a.y0, b.y0);
  int exponent;
  frexp(max_of(max_of(a.x1, b.x1) - x0, max_of(a.y1, b.y1) - y0), &exponent);
  return {x0, y0, ldexp(1.0, kSnapBits - max_of(exponent, -900))};  // denormal extents: the scale stays finite
}

namespace detail {

// To the nearest integer, for 0 ≤ value < 2^51: unlike rint this vectorises everywhere.
PM_HD double round_to_integer(double value) {
  constexpr double kShift = 4503599627370496.0;  // 2^52, whose neighbours are integers
  return (value + kShift) - kShift;
}

// Fills snapped[count + 1], the first vertex again at the end, and returns twice the signed area.
template <class Vertex>
PM_HD double snap(const SnapGrid& grid, int64_t count, const Vertex& vertex, Vec2<double>* snapped) {
  for (int64_t j = 0; j < count; ++j) {
    const Vec2<double> v = vertex(j);
    snapped[j] = {round_to_integer((v.x - grid.x0) * grid.scale), round_to_integer((v.y - grid.y0) * grid.scale)};
  }
  snapped[count] = snapped[0];
  double doubled = 0;
  for (int64_t j = 0; j < count; ++j) doubled += cross(snapped[j], snapped[j + 1]);
  return doubled;
}

// Whether a point lies left of an edge, from cross(edge, point - start of the edge). kShift: 1 for A's points, which
// the tie rule moves by (ε, ε²) relative to B's edges; -1 for B's points and A's edges.
template <int kShift>
PM_HD bool is_left(double cross_product, Vec2<double> edge) {
  if (cross_product != 0) return cross_product > 0;
  return kShift * (edge.y != 0 ? -edge.y : edge.x) > 0;
}

// Winding number of a closed ring about p.
template <int kShift>
PM_HD double winding(Vec2<double> p, const Vec2<double>* ring, int64_t count) {
  double turns = 0;
  for (int64_t j = 0; j < count; ++j) {
    const Vec2<double> r = ring[j], s = ring[j + 1];
    const bool r_below = kShift > 0 ? r.y <= p.y : r.y < p.y;
    const bool s_below = kShift > 0 ? s.y <= p.y : s.y < p.y;
    if (r_below == s_below) continue;
    const bool left = is_left<kShift>(cross(s - r, p - r), s - r);
    if (r_below && left) turns += 1;
    if (!r_below && !left) turns -= 1;
  }
  return turns;
}

PM_HD Bounds box_of(Vec2<double> p, Vec2<double> q) {
  return {min_of(p.x, q.x), min_of(p.y, q.y), max_of(p.x, q.x), max_of(p.y, q.y)};
}

// Apart by a step of the grid or more: then the shift brings no crossing either.
PM_HD bool are_apart(const Bounds& a, const Bounds& b) {
  return a.x1 < b.x0 || b.x1 < a.x0 || a.y1 < b.y0 || b.y1 < a.y0;
}

// Twice the signed area of the intersection of two snapped rings; the sign is the product of their orientations.
PM_HD double order_free_sum(int64_t count_a, int64_t count_b, const OrderFreeScratch& scratch) {
  const Vec2<double>*a = scratch.a, *b = scratch.b;
  double sum = 0;
  double inside = winding<1>(a[0], b, count_b);
  for (int64_t j = 0; j < count_b; ++j) scratch.share[j] = scratch.step[j] = 0;
  for (int64_t i = 0; i < count_a; ++i) {
    const Vec2<double> p = a[i], q = a[i + 1], along = q - p;
    double share = inside;
    const Bounds box = box_of(p, q);
    for (int64_t j = 0; j < count_b; ++j) {
      const Vec2<double> r = b[j], s = b[j + 1];
      if (are_apart(box, box_of(r, s))) continue;
      const double at_r = cross(along, r - p), at_s = cross(along, s - p);
      if (is_left<-1>(at_r, along) == is_left<-1>(at_s, along)) continue;
      const Vec2<double> edge = s - r;
      const double at_p = cross(edge, p - r), at_q = cross(edge, q - r);
      const bool enters = is_left<1>(at_q, edge);
      if (is_left<1>(at_p, edge) == enters) continue;
      // Neither difference is 0: of two crossing edges at most one end lies on the other's line.
      const double sign = enters ? 1 : -1;
      share += sign * (at_q / (at_q - at_p));
      inside += sign;
      scratch.share[j] -= sign * (at_s / (at_s - at_r));
      scratch.step[j] -= sign;
    }
    sum += cross(p, q) * share;
  }
  inside = winding<-1>(b[0], a, count_a);
  for (int64_t j = 0; j < count_b; ++j) {
    sum += cross(b[j], b[j + 1]) * (inside + scratch.share[j]);
    inside += scratch.step[j];
  }
  return sum;
}

}  // namespace detail

// Overlap of two shapes with area, in steps of the grid. The areas are those of the snapped polygons: so the IoU of
// identical ones is exactly 1.
template <class VertexA, class VertexB>
PM_HD Overlap order_free_overlap(const Bounds& box_a, int64_t count_a, const VertexA& vertex_a, const Bounds& box_b,
                                 int64_t count_b, const VertexB& vertex_b, const OrderFreeScratch& scratch) {
  const SnapGrid grid = make_grid(box_a, box_b);
  const double area_a = detail::snap(grid, count_a, vertex_a, scratch.a);
  const double area_b = detail::snap(grid, count_b, vertex_b, scratch.b);
  const double sum = detail::order_free_sum(count_a, count_b, scratch);
  return make_overlap((area_a < 0) == (area_b < 0) ? sum : -sum, area_a < 0 ? -area_a : area_a,
                      area_b < 0 ? -area_b : area_b);
}

}  // namespace polarmask
