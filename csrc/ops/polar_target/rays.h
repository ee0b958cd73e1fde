// Rays from a point to an outline: all of it in double, no libm.
//
// Rays and segments are closed. Seen from the origin, a vertex v is on one side of the ray along d, or on it: the sign
// of s = cross(d, v). The ray meets a segment where the s of its ends differ in sign, and in an end whose s is 0.
// Points lie on integers, so the axis rays run exactly along pixel edges: this rule is the one that flips do not
// change. A vertex has the same s in every segment that has it, so no ray slips through between two of them.
//
// Two steps: which rays may meet a segment is found in float, with some slack; where they do, in double. Both are
// written for a number or for a vector of them: lanes of the CPU and threads of a GPU do the same.
#pragma once

#include "common/polar.h"

namespace polarmask::polar_target {

// The ends of a segment as seen from a point.
template <class T>
PM_HD Vec2<double> start_from(const Segment<T>& s, Vec2<T> origin) {
  return Vec2<double>{s.from.x, s.from.y} - Vec2<double>{origin.x, origin.y};
}
template <class T>
PM_HD Vec2<double> end_from(const Segment<T>& s, Vec2<T> origin) {
  return Vec2<double>{s.to.x, s.to.y} - Vec2<double>{origin.x, origin.y};
}

enum class Method { kLast, kFirst, kBinned };

// In turns, 0 to 1, along the convention of the rays, within 2e-6 (the polynomial is Abramowitz and Stegun 4.4.49).
// Good for choosing candidates, never for a decision. (0, 0) has none: NaN.
template <class F>
PM_HD F approximate_turn(Vec2<F> v) {
  constexpr float kPerRadian = 0.15915494309189534f;
  const F ax = v.x < 0.0f ? -v.x : v.x, ay = v.y < 0.0f ? -v.y : v.y;
  const F t = (ay < ax ? ay : ax) / (ay < ax ? ax : ay), q = t * t;
  F turn = kPerRadian * t * (0.9998660f + q * (-0.3302995f + q * (0.1801410f + q * (-0.0851330f + q * 0.0208351f))));
  turn = ay > ax ? 0.25f - turn : turn;
  turn = v.x < 0.0f ? 0.5f - turn : turn;
  return v.y < 0.0f ? 1.0f - turn : turn;
}

constexpr float kTurnSlack = 1e-5f;  // four times the error of approximate_turn in float
constexpr float kTurnReach = 1e30f;  // pixels: float overflows beyond it, and underflows below its inverse

// Rays, one turn up and not yet rounded: those from ⌊below⌋ + 1 to ⌊last⌋, modulo the number of rays.
template <class F>
struct RoughSpan {
  F below, last;
};

// NaN where floats are of no use.
template <class F>
PM_HD F known_turn(Vec2<F> v) {
  const F ax = v.x < 0.0f ? -v.x : v.x, ay = v.y < 0.0f ? -v.y : v.y, size = ax < ay ? ay : ax;
  return (size > 1 / kTurnReach) & (size < kTurnReach) ? approximate_turn(v) : F{} + __builtin_nanf("");
}

// The rays that may meet a segment whose ends have these turns: those between them, the short way round. All of them
// where the origin is so close to the segment that there is no short way, and where a turn is not known.
template <class F>
PM_HD RoughSpan<F> rays_between(F turn_a, F turn_b, float num_rays) {
  const F low = turn_b < turn_a ? turn_b : turn_a, high = turn_b < turn_a ? turn_a : turn_b;
  const F apart = high - low - 0.5f;
  const F begin = apart > 0.0f ? high - 1.0f : low, end = apart > 0.0f ? low : high;
  const auto known = (apart >= kTurnSlack) | (apart <= -kTurnSlack);  // NaN is not
  return {known ? (begin - kTurnSlack + 1.0f) * num_rays : F{} + (num_rays - 1),
          known ? (end + kTurnSlack + 1.0f) * num_rays : F{} + (2 * num_rays - 1)};
}

// What `last` and `first` start from, and keep where nothing is met.
template <Method method>
constexpr double kNothing = method == Method::kLast ? 0.0 : __builtin_inf();

template <Method method, class F>
PM_HD F better_of(F a, F b) {
  if constexpr (method == Method::kLast) return a < b ? b : a;
  return b < a ? b : a;
}

template <class F>
PM_HD auto all_finite(Vec2<F> a, Vec2<F> b) {
  const F sum = a.x + a.y + b.x + b.y;
  return sum - sum == 0.0;
}

// The distance at which the ray along d meets the segment from a to b, the farthest or the nearest if there are two;
// kNothing if there is none or the segment is not finite. The same bits for the segment from b to a, and for mirror
// images.
template <Method method, class F>
PM_HD F distance_to(Vec2<F> a, Vec2<F> b, Vec2<F> d) {
  const auto usable = all_finite(a, b);
  const auto where = [&](auto holds, F at) {  // + 0.0: no negative zero
    return usable & holds & (at >= 0.0) & (at - at == 0.0) ? at + 0.0 : F{} + kNothing<method>;
  };
  const F sa = cross(d, a), sb = cross(d, b), along_a = dot(d, a), along_b = dot(d, b);
  const F crossing = (sa * along_b - sb * along_a) / (sa - sb);
  const F ends = better_of<method>(where(sa == 0.0, along_a), where(sb == 0.0, along_b));
  return better_of<method>(where(((sa < 0.0) & (sb > 0.0)) | ((sa > 0.0) & (sb < 0.0)), crossing), ends);
}

// Whether the origin is a point of the segment: every ray meets it there, at distance 0.
PM_HD bool holds_origin(Vec2<double> a, Vec2<double> b) { return cross(a, b) == 0 && dot(a, b) <= 0; }

// The length of a ray, from the best distance to a segment.
template <Method method, class T>
PM_HD T ray_length(T best, T min_distance) {
  if (method == Method::kFirst && best == static_cast<T>(kNothing<method>)) return min_distance;
  return max_of(best, min_distance);
}

// The released rule, for parity: it looks at vertices alone, in bins of one degree, counted from +y towards +x.
constexpr int64_t kBins = 360;
constexpr int64_t kMaxBinnedRays = 40;  // 9 degrees apart: bins looked at in turn, 3 to each side, stay apart

// The nearest degree is certain, a cross product says on which side of it the vertex lies. Exact for differences of
// integers (below 2²⁶): of all degrees they can only hit multiples of 45, whose directions are exact.
PM_HD int64_t bin_of(Vec2<double> v, const Vec2<double>* degrees) {
  const Vec2<double> turned{v.y, v.x};
  if (v.x == 0 && v.y == 0) return 0;
  const auto nearest = static_cast<int64_t>(approximate_turn(turned) * kBins + 0.5) % kBins;
  if (cross(degrees[nearest], turned) >= 0) return nearest;
  return nearest > 0 ? nearest - 1 : kBins - 1;
}

// The bin that a ray reads, in steps of 360 / R degrees.
PM_HD int64_t bin_of_ray(int64_t ray, int64_t num_rays) {
  return kBins / num_rays * ((num_rays / 4 + num_rays - ray) % num_rays);
}

// The squared distance found at a bin or near it, without wrapping at 0; negative where there is none.
template <class V>
PM_HD V squared_distance_at(int64_t bin, const V* farthest) {
  if (farthest[bin] >= 0) return farthest[bin];
  for (int64_t aside = 1; aside <= 3; ++aside) {
    if (farthest[bin + aside] >= 0) return farthest[bin + aside];
    if (bin >= aside && farthest[bin - aside] >= 0) return farthest[bin - aside];
  }
  return -1;
}

}  // namespace polarmask::polar_target
