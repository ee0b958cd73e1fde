// The angle convention of the whole project, and the only place that computes ray directions.
//
//              3R/4                      x to the right, y down, in pixels
//                │                       pixel (row i, column j) covers [j, j+1) × [i, i+1), its centre is (j+½, i+½)
//         R/2 ───o─── 0  → x             ray k of R points along (cos 2πk/R, sin 2πk/R):
//                │                       k = 0 to the right, turning towards +y (clockwise on the screen)
//               R/4
//                ↓ y
#pragma once

#include "common/geometry.h"

namespace polarmask {

constexpr int64_t kMinRays = 3;     // fewer span no area
constexpr int64_t kMaxRays = 1024;  // a third of a degree: finer than any outline in pixels asks for

namespace detail {

// Taylor series on [0, π/4], where the first term left out is below 1e-19. Plain double arithmetic in one order,
// without libm, so that the CPU and every GPU make the same bits.
PM_HD double small_sine(double a) {
  const double q = a * a;
  double s = 1.0 / 355687428096000.0;  // 1/17!
  s = s * q - 1.0 / 1307674368000.0;
  s = s * q + 1.0 / 6227020800.0;
  s = s * q - 1.0 / 39916800.0;
  s = s * q + 1.0 / 362880.0;
  s = s * q - 1.0 / 5040.0;
  s = s * q + 1.0 / 120.0;
  s = s * q - 1.0 / 6.0;
  return a + a * (s * q);
}

PM_HD double small_cosine(double a) {
  const double q = a * a;
  double c = -1.0 / 6402373705728000.0;  // 1/18!
  c = c * q + 1.0 / 20922789888000.0;
  c = c * q - 1.0 / 87178291200.0;
  c = c * q + 1.0 / 479001600.0;
  c = c * q - 1.0 / 3628800.0;
  c = c * q + 1.0 / 40320.0;
  c = c * q - 1.0 / 720.0;
  c = c * q + 1.0 / 24.0;
  return 1.0 - 0.5 * q + c * (q * q);
}

}  // namespace detail

// Unit vector of ray k of num_rays, 0 ≤ k < num_rays. Folded to the first octant: axes and diagonals are exact, mirror
// images are equal to the bit.
PM_HD Vec2<double> ray_direction(int64_t k, int64_t num_rays) {
  constexpr double kHalfPi = 1.57079632679489661923;
  constexpr double kSqrtHalf = 0.70710678118654752440;
  const int64_t quadrant = 4 * k / num_rays;
  const int64_t part = 4 * k - quadrant * num_rays;  // of num_rays: the share of the quadrant
  double along, aside;                               // cos and sin within the quadrant
  if (part == 0) {
    along = 1.0, aside = 0.0;
  } else if (2 * part == num_rays) {
    along = aside = kSqrtHalf;
  } else if (2 * part < num_rays) {
    const double angle = static_cast<double>(part) * kHalfPi / static_cast<double>(num_rays);
    along = detail::small_cosine(angle), aside = detail::small_sine(angle);
  } else {
    const double angle = static_cast<double>(num_rays - part) * kHalfPi / static_cast<double>(num_rays);
    along = detail::small_sine(angle), aside = detail::small_cosine(angle);
  }
  switch (quadrant) {
    case 0: return {along, aside};
    case 1: return {-aside, along};
    case 2: return {-along, -aside};
    default: return {aside, -along};
  }
}

// Where a ray ends: computed in double, rounded once. A negative length counts as 0; −inf stays, to be seen as not
// finite.
template <class T>
PM_HD Vec2<T> ray_end(Vec2<T> centre, T length, Vec2<double> direction) {
  const double reach = length < 0 && is_finite(length) ? 0.0 : static_cast<double>(length);
  return {static_cast<T>(centre.x + reach * direction.x), static_cast<T>(centre.y + reach * direction.y)};
}

}  // namespace polarmask
