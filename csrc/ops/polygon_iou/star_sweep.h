// Intersection of a star polygon A with any simple polygon B, in O(R + W):
//
//     area(A ∩ B) = Σ over B's edges (p, q) of  ± area(A ∩ triangle(o, p, q)),   o: A's centre, ±: the sign of p × q
//
// A's spokes cut the triangle. Between two neighbouring spokes both outlines are straight, so that a piece needs no
// more than how far the edge is at its two ends, measured in A's own extent in that direction.
//
//            spoke k+1
//           /   ·q          depth < 1: the edge runs inside A, the piece counts in full
//          /  ·  \          depth > 1: it runs outside, A's outline cuts the piece
//         / ·     \ A
//        /·________\___ spoke k
//       o     p
//
// Everything is in pixels relative to o. Identical shapes give exactly their area: every depth is then exactly 1.
#pragma once

#include "ops/polygon_iou/shapes.h"

namespace polarmask::polygon_iou {

// Shorter rays count as 0: products with them would underflow, and the spokes would lose their order.
constexpr double kShortestRay = 1e-100;

// The length that a ray counts with: 0 if it is negative, NaN if it is NaN or −∞.
template <class T>
PM_HD double ray_length(T ray) {
  const double length = ray;
  return length < kShortestRay ? length - length : length;
}

// A star as the sweep sees it: spoke k ends at vertex k, k from 0 to R, the first one again at the end; it is a unit
// vector where the ray is 0. Sector k is spoke k × spoke k+1: twice the area of A between them, 0 where one of the rays
// is. This one computes them when they are asked for; Star has them in memory.
template <class T>
struct StarRays {
  const T* rays;                   // [R] pixels
  const Vec2<double>* directions;  // [R]
  int64_t num_rays;                // R

  PM_HD Vec2<double> spoke(int64_t k) const {
    if (k == num_rays) k = 0;
    const double length = ray_length(rays[k]), scale = length > 0 ? length : 1.0;
    return {scale * directions[k].x, scale * directions[k].y};
  }
  PM_HD double sector(int64_t k) const {
    const bool empty = ray_length(rays[k]) == 0 || ray_length(rays[next_of(k, num_rays)]) == 0;
    return empty ? 0.0 : cross(spoke(k), spoke(k + 1));
  }
};

struct Star {
  const Vec2<double>* spokes;  // [R + 1]
  const double* sectors;       // [R]
  int64_t num_rays;            // R

  PM_HD Vec2<double> spoke(int64_t k) const { return spokes[k]; }
  PM_HD double sector(int64_t k) const { return sectors[k]; }
};

// The caller owns the memory of the spokes and sectors, R + 1 and R elements.
template <class T>
PM_HD Star make_star(const StarRays<T>& from, Vec2<double>* spokes, double* sectors) {
  for (int64_t k = 0; k <= from.num_rays; ++k) spokes[k] = from.spoke(k);
  for (int64_t k = 0; k < from.num_rays; ++k) sectors[k] = from.sector(k);
  return {spokes, sectors, from.num_rays};
}

namespace detail {

// The sector that holds the direction of p: at or after its first spoke, before its second. `near` is where the search
// starts, and nothing more; every step turns towards p, since no sector spans half a turn. Where p is so short that it
// has no direction, none is found, and it is sector 0.
template <class AnyStar>
PM_HD int64_t sector_of(const AnyStar& star, Vec2<double> p, int64_t near) {
  for (int64_t steps = 0; steps <= star.num_rays; ++steps) {
    if (cross(star.spoke(near), p) < 0)
      near = (near > 0 ? near : star.num_rays) - 1;
    else if (cross(star.spoke(near + 1), p) >= 0)
      near = next_of(near, star.num_rays);
    else
      return near;
  }
  return 0;
}

// A point, its sector, and how far it is, measured in A's extent in its direction; 0 where the sector is empty.
struct Placed {
  Vec2<double> at;
  int64_t sector;
  double depth;
};

template <class AnyStar>
PM_HD Placed place(const AnyStar& star, Vec2<double> p, int64_t near) {
  const int64_t k = sector_of(star, p, near);
  const double sector = star.sector(k);
  return {p, k, sector > 0 ? (cross(p, star.spoke(k + 1)) - cross(p, star.spoke(k))) / sector : 0};
}

// The share of a piece that lies in A, from the depths of the edge's two ends. Without branches, which would be
// guessed wrong every other time: all three cases are one division.
PM_HD double inside_share(double depth_0, double depth_1) {
  constexpr double kDeepest = 1e150;  // its square is finite
  const double near = min_of(depth_0, depth_1), far = min_of(max_of(depth_0, depth_1), kDeepest);
  // Where the outlines cross, at t = (1 - near) / (far - near), the share is t + (1 - t) / far.
  double part = (far - 1) + far * (1 - near), whole = (far - near) * far;
  part = near >= 1 ? 1 : part, whole = near >= 1 ? near * far : whole;
  part = far <= 1 ? 1 : part, whole = far <= 1 ? 1 : whole;
  return part / whole;
}

// Twice the area of A ∩ triangle(o, p, q), for a left turn from p to q: `turn` = p × q > 0.
template <class AnyStar>
PM_HD double wedge(const AnyStar& star, const Placed& p, const Placed& q, double turn) {
  double sum = 0;
  Vec2<double> begin = p.at;
  double begin_depth = p.depth;
  for (int64_t k = p.sector;; k = next_of(k, star.num_rays)) {
    Vec2<double> end = q.at;
    double end_depth = q.depth;
    if (k != q.sector) {
      const Vec2<double> spoke = star.spoke(k + 1);
      const double across = cross(spoke, q.at) - cross(spoke, p.at);
      end_depth = across > 0 ? turn / across : 0;
      end = {end_depth * spoke.x, end_depth * spoke.y};
    }
    // An edge that runs through o within rounding has no area, but its cuts can be anywhere: hence the bounds.
    if (star.sector(k) > 0) sum += min_of(turn, max_of(0.0, cross(begin, end))) * inside_share(begin_depth, end_depth);
    if (k == q.sector) return sum;
    begin = end;
    begin_depth = end_depth;
  }
}

}  // namespace detail

// Twice the area of A ∩ triangles, of edges that turn left and of those that turn right.
struct Turns {
  double left, right;
};

// Those of a part of B's edges. B has the vertices vertex(0), …, vertex(count - 1) relative to A's centre. `near` is a
// guess of the sector of the first one, and becomes the sector of the last.
template <class AnyStar, class Vertex>
PM_HD Turns sweep_part(const AnyStar& star, int64_t count, const Vertex& vertex, int part, int64_t& near) {
  Turns turns{0, 0};
  const Interval edges = edges_of_part(count, part);
  if (edges.begin == edges.end) return turns;
  detail::Placed p = detail::place(star, vertex(edges.begin), near);
  for (int64_t j = edges.begin; j < edges.end; ++j) {
    const detail::Placed q = detail::place(star, vertex(next_of(j, count)), p.sector);
    const double turn = cross(p.at, q.at);
    if (turn > 0) turns.left += detail::wedge(star, p, q, turn);
    if (turn < 0) turns.right += detail::wedge(star, q, p, -turn);
    p = q;
  }
  near = p.sector;
  return turns;
}

// Share of the added and subtracted pieces below which their difference is rounding: shapes that are apart share
// nothing.
constexpr double kSweepRounding = 1.0 / (int64_t{1} << 46);

// Area of A ∩ B from all turns. Right for o outside B, on its edge or vertex. Rounding can leave it a little above the
// smaller area.
PM_HD double finish_sweep(const Turns& turns) {
  const double doubled = max_of(turns.left - turns.right, turns.right - turns.left);
  return doubled > kSweepRounding * (turns.left + turns.right) ? 0.5 * doubled : 0;
}

template <class AnyStar, class Vertex>
PM_HD double star_sweep(const AnyStar& star, int64_t count, const Vertex& vertex) {
  double left[kParts], right[kParts];
  int64_t near = 0;
  for (int part = 0; part < kParts; ++part) {
    const Turns turns = sweep_part(star, count, vertex, part, near);
    left[part] = turns.left, right[part] = turns.right;
  }
  return finish_sweep({sum_of_parts(left), sum_of_parts(right)});
}

}  // namespace polarmask::polygon_iou
