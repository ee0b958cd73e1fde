// What a detector learns from: rays from a point to an outline, and which points learn which instance. All of it in
// double for the rays, in float for the assignment; no libm.
//
// Rays and segments are closed. Seen from the origin, a vertex v is on one side of the ray along d, or on it: the sign
// of s = cross(d, v). The ray meets a segment where the s of its ends differ in sign, and in an end whose s is 0.
// Points lie on integers, so the axis rays run exactly along pixel edges: this rule is the one that flips do not
// change. A vertex has the same s in every segment that has it, so no ray slips through between two of them.
#pragma once

#include "../../common/polar.h"

namespace polarmask {

// In turns, 0 to 1, along the convention of the rays, within 2e-6 (the polynomial is Abramowitz and Stegun 4.4.49).
// Good for choosing candidates, never for a decision.
PM_HD double approximate_turn(Vec2<double> v) {
  const double ax = v.x < 0 ? -v.x : v.x, ay = v.y < 0 ? -v.y : v.y;
  const double long_side = max_of(ax, ay);
  const double t = long_side > 0 ? min_of(ax, ay) / long_side : 0.0;
  const double q = t * t;
  constexpr double kPerRadian = 0.15915494309189534;
  double turn = kPerRadian * t * (0.9998660 + q * (-0.3302995 + q * (0.1801410 + q * (-0.0851330 + q * 0.0208351))));
  turn = ay > ax ? 0.25 - turn : turn;
  turn = v.x < 0 ? 0.5 - turn : turn;
  return v.y < 0 ? 1.0 - turn : turn;
}

constexpr double kTurnSlack = 1e-5;  // five times the error of approximate_turn

// An end of a segment as seen from the origin.
struct End {
  Vec2<double> at;  // pixels
  double turn;      // approximate
};

PM_HD End end_at(Vec2<double> at) { return {at, approximate_turn(at)}; }

// Rays first … last, modulo num_rays.
struct RaySpan {
  int64_t first, last;
};

// The rays that may meet the segment: those between its ends, the short way round. All of them where the origin is so
// close to the segment that there is no short way.
PM_HD RaySpan rays_between(double turn_a, double turn_b, int64_t num_rays) {
  double begin = min_of(turn_a, turn_b), end = max_of(turn_a, turn_b);
  const double apart = end - begin - 0.5;
  if (-kTurnSlack < apart && apart < kTurnSlack) return {0, num_rays - 1};
  if (apart > 0) {
    const double swapped = begin;
    begin = end - 1.0, end = swapped;
  }
  const double rays = static_cast<double>(num_rays);
  const int64_t below = static_cast<int64_t>((begin - kTurnSlack + 1.0) * rays);  // a turn up: truncation rounds down
  return {below + 1 - num_rays, static_cast<int64_t>((end + kTurnSlack + 1.0) * rays) - num_rays};
}

// Calls hit(ray, distance) wherever a ray meets the segment from a to b. The same bits for the segment from b to a, and
// for mirror images.
template <class Hit>
PM_HD void for_hits(const End& a, const End& b, const Vec2<double>* directions, int64_t num_rays, Hit&& hit) {
  const auto hit_ahead = [&](int64_t ray, double distance) {
    if (distance >= 0 && is_finite(distance)) hit(ray, distance);
  };
  const RaySpan span = rays_between(a.turn, b.turn, num_rays);
  for (int64_t k = span.first; k <= span.last; ++k) {
    const int64_t ray = k < 0 ? k + num_rays : k < num_rays ? k : k - num_rays;
    const Vec2<double> d = directions[ray];
    const double sa = cross(d, a.at), sb = cross(d, b.at);
    if (sa == 0) hit_ahead(ray, dot(d, a.at));
    if (sb == 0) hit_ahead(ray, dot(d, b.at));
    if ((sa < 0 && sb > 0) || (sa > 0 && sb < 0)) hit_ahead(ray, (sa * dot(d, b.at) - sb * dot(d, a.at)) / (sa - sb));
  }
}

// Whether the origin is a point of the segment: every ray meets it there, at distance 0.
PM_HD bool holds_origin(const End& a, const End& b) { return cross(a.at, b.at) == 0 && dot(a.at, b.at) <= 0; }

// The released rule, for parity: it looks at vertices alone, in bins of one degree, counted from +y towards +x.
constexpr int64_t kBins = 360;
constexpr int64_t kMaxBinnedRays = 40;  // 9 degrees apart: bins looked at in turn, 3 to each side, stay apart

// The nearest degree is certain, a cross product says on which side of it the vertex lies. Exact for differences of
// integers (below 2²⁶): of all degrees they can only hit multiples of 45, whose directions are exact.
PM_HD int64_t bin_of(Vec2<double> v, const Vec2<double>* degrees) {
  const Vec2<double> turned{v.y, v.x};
  const auto nearest = static_cast<int64_t>(approximate_turn(turned) * kBins + 0.5) % kBins;
  if (cross(degrees[nearest], turned) >= 0) return nearest;
  return nearest > 0 ? nearest - 1 : kBins - 1;
}

// The bin that a ray reads, in steps of 360 / R degrees.
PM_HD int64_t bin_of_ray(int64_t ray, int64_t num_rays) {
  return kBins / num_rays * ((num_rays / 4 + num_rays - ray) % num_rays);
}

// The squared distance found at a bin or near it, without wrapping at 0; negative where there is none.
PM_HD double squared_distance_at(int64_t bin, const double* farthest) {
  if (farthest[bin] >= 0) return farthest[bin];
  for (int64_t aside = 1; aside <= 3; ++aside) {
    if (farthest[bin + aside] >= 0) return farthest[bin + aside];
    if (bin >= aside && farthest[bin - aside] >= 0) return farthest[bin - aside];
  }
  return -1;
}

// What `instance` and `labels` hold where there is no instance.
constexpr int64_t kBackground = -1;
constexpr int64_t kIgnored = -2;

struct Level {
  int64_t height, width;  // points
  int64_t stride;         // pixels
  int64_t first_point;    // of the L points of an image
  float low, high;        // pixels: the largest box distance that it learns, both ends included
};

struct Point {
  float x, y;  // pixels
};

PM_HD Point point_of(const Level& level, int64_t row, int64_t column) {
  const auto at = [&](int64_t k) { return (static_cast<float>(k) + 0.5f) * static_cast<float>(level.stride); };
  return {at(column), at(row)};
}

struct Box {
  float x0, y0, x1, y1;  // pixels
};

PM_HD bool is_finite(const Point& p) { return is_finite(p.x) && is_finite(p.y); }
PM_HD bool is_finite(const Box& b) { return is_finite(b.x0) && is_finite(b.y0) && is_finite(b.x1) && is_finite(b.y1); }

struct BoxDistances {
  float left, top, right, bottom;  // pixels
};

PM_HD BoxDistances box_distances(const Box& box, const Point& p) {
  return {p.x - box.x0, p.y - box.y0, box.x1 - p.x, box.y1 - p.y};
}

// The box that positive points lie in: the sides, and no farther from the centre than reach.
PM_HD Box inner_box(const Box& box, const Point& center, float reach) {
  return {max_of(center.x - reach, box.x0), max_of(center.y - reach, box.y0),  //
          min_of(center.x + reach, box.x1), min_of(center.y + reach, box.y1)};
}

PM_HD bool is_inside(const Box& box, const Point& p) {
  return box.x0 < p.x && p.x < box.x1 && box.y0 < p.y && p.y < box.y1;
}

PM_HD bool is_learned_on(const Level& level, const BoxDistances& d) {
  const float largest = max_of(max_of(d.left, d.right), max_of(d.top, d.bottom));
  return level.low <= largest && largest <= level.high;
}

// The value rounded towards zero and clamped to 0 … count; NaN is 0.
PM_HD int64_t clamp_index(double value, int64_t count) {
  if (!(value > 0)) return 0;
  return value < static_cast<double>(count) ? static_cast<int64_t>(value) : count;
}

struct IndexRange {
  int64_t begin, end;
};

// The rows or columns of points between two sides of a box, at most one too many.
PM_HD IndexRange points_between(float low, float high, int64_t stride, int64_t count) {
  return {clamp_index(low / static_cast<double>(stride) - 0.5, count),
          clamp_index(high / static_cast<double>(stride) + 0.5, count)};
}

}  // namespace polarmask
