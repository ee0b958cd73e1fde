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

#include "shapes.h"

namespace polarmask {

struct Star {
  const Vec2<double>* spokes;  // [R + 1] the vertices, the first one again at the end; unit vectors where the ray is 0
  const double* sectors;       // [R] spoke k × spoke k+1: twice the area of A between them, 0 where one of the rays is
  int64_t num_rays;            // R
};

// Shorter rays count as 0: products with them would leave double's range, and with it the order of the spokes.
constexpr double kShortestRay = 1e-100;

// Length of a ray as it counts: negative ones are 0, NaN stays, −∞ becomes it.
template <class T>
PM_HD double ray_length(T ray) {
  return static_cast<double>(ray < T(kShortestRay) ? ray - ray : ray);
}

// The caller owns the memory of the spokes and sectors, R + 1 and R elements.
template <class T>
PM_HD Star make_star(const T* rays, const Vec2<double>* directions, int64_t num_rays, Vec2<double>* spokes,
                     double* sectors) {
  for (int64_t k = 0; k < num_rays; ++k) {
    const double length = ray_length(rays[k]);
    const double scale = length > 0 ? length : 1.0;
    spokes[k] = {scale * directions[k].x, scale * directions[k].y};
  }
  spokes[num_rays] = spokes[0];
  for (int64_t k = 0; k < num_rays; ++k) {
    const bool empty = ray_length(rays[k]) == 0 || ray_length(rays[k + 1 < num_rays ? k + 1 : 0]) == 0;
    sectors[k] = empty ? 0.0 : cross(spokes[k], spokes[k + 1]);
  }
  return {spokes, sectors, num_rays};
}

namespace detail {

// The sector that holds the direction of p: at or after its first spoke, before its second. `near` is where the search
// starts; every step turns towards p, since no sector spans half a turn.
PM_HD int64_t sector_of(const Star& star, Vec2<double> p, int64_t near) {
  for (int64_t steps = 0; steps < star.num_rays; ++steps) {
    if (cross(star.spokes[near], p) < 0)
      near = (near > 0 ? near : star.num_rays) - 1;
    else if (cross(star.spokes[near + 1], p) >= 0)
      near = near + 1 < star.num_rays ? near + 1 : 0;
    else
      break;
  }
  return near;
}

// How far p is, measured in A's extent in its direction; p lies in the sector.
PM_HD double depth(const Star& star, int64_t sector, Vec2<double> p) {
  return (cross(p, star.spokes[sector + 1]) - cross(p, star.spokes[sector])) / star.sectors[sector];
}

// The share of a piece that lies in A, from the depths of the edge's two ends.
PM_HD double inside_share(double depth_0, double depth_1) {
  const double near = min_of(depth_0, depth_1), far = max_of(depth_0, depth_1);
  if (far <= 1) return 1;
  if (near >= 1) return 1 / (near * far);
  const double t = (1 - near) / (far - near);  // where the outlines cross
  return t + (1 - t) / far;
}

// Twice the area of A ∩ triangle(o, p, q), for a left turn from p to q: `turn` = p × q > 0.
PM_HD double wedge(const Star& star, Vec2<double> p, int64_t first, Vec2<double> q, int64_t last, double turn) {
  double sum = 0;
  Vec2<double> begin = p;
  double begin_depth = star.sectors[first] > 0 ? depth(star, first, p) : 0;
  for (int64_t k = first;; k = k + 1 < star.num_rays ? k + 1 : 0) {
    Vec2<double> end = q;
    double end_depth = 0;
    if (k != last) {
      const Vec2<double> spoke = star.spokes[k + 1];
      const double across = cross(spoke, q) - cross(spoke, p);
      end_depth = across > 0 ? turn / across : 0;
      end = {end_depth * spoke.x, end_depth * spoke.y};
    } else if (star.sectors[k] > 0) {
      end_depth = depth(star, k, q);
    }
    // An edge that runs through o within rounding has no area, but its cuts can be anywhere: hence the bounds.
    if (star.sectors[k] > 0) sum += min_of(turn, max_of(0.0, cross(begin, end))) * inside_share(begin_depth, end_depth);
    if (k == last) return sum;
    begin = end;
    begin_depth = end_depth;
  }
}

}  // namespace detail

// Share of the added and subtracted pieces below which their difference is rounding: shapes that are apart share
// nothing.
constexpr double kSweepRounding = 1.0 / (int64_t{1} << 46);

// Area of A ∩ B, where B has the vertices vertex(0), …, vertex(count - 1) relative to A's centre. Right for o outside
// B, on its edge or vertex. Rounding can leave it a little above the smaller area.
template <class Vertex>
PM_HD double star_sweep(const Star& star, int64_t count, const Vertex& vertex) {
  double left_turns = 0, right_turns = 0;
  Vec2<double> p = vertex(0);
  int64_t sector_p = detail::sector_of(star, p, 0);
  for (int64_t j = 0; j < count; ++j) {
    const Vec2<double> q = vertex(j + 1 < count ? j + 1 : 0);
    const int64_t sector_q = detail::sector_of(star, q, sector_p);
    const double turn = cross(p, q);
    if (turn > 0) left_turns += detail::wedge(star, p, sector_p, q, sector_q, turn);
    if (turn < 0) right_turns += detail::wedge(star, q, sector_q, p, sector_p, -turn);
    p = q;
    sector_p = sector_q;
  }
  const double doubled = max_of(left_turns - right_turns, right_turns - left_turns);
  return doubled > kSweepRounding * (left_turns + right_turns) ? 0.5 * doubled : 0;
}

}  // namespace polarmask
