// How far the rays of a pixel stay inside its label. The pixels that a ray visits, seen from where it starts, are the
// same for every pixel of the image: a table of steps a ray, and then a walk until the label changes.
#pragma once

#include "../../common/polar.h"

namespace polarmask {

template <class T>
struct StarDistancesParams {
  const T* labels;        // [H, W] 0: background
  int64_t height, width;  // pixels
  int64_t num_rays;       // R
  bool exact;             // the rule
  float* distances;       // [R, H, W] pixels
};

// A pixel on the way of a ray, and the length of the ray if it ends there.
struct Step {
  int64_t dx, dy;   // pixels from the start
  double distance;  // pixels
};

// Step n ≥ 1 of StarDist: the pixel nearest to n units along the ray; half a pixel past the one before is the border.
// Halves go to the even pixel of the image, hence `start`. Rays at multiples of 30° meet them all the time.
PM_HD Step stardist_step(int64_t n, Vec2<double> direction, Vec2<int64_t> start) {
  const double ax = direction.x < 0 ? -direction.x : direction.x, ay = direction.y < 0 ? -direction.y : direction.y;
  const auto nearest = [&](double along, int64_t from) {
    constexpr double kSlack = 1e-6;  // what float32 makes of a half
    const double position = static_cast<double>(n) * along + 0.5;
    const auto truncated = static_cast<int64_t>(position);
    const int64_t below = truncated - (static_cast<double>(truncated) > position);
    const double above = position - static_cast<double>(below);
    if (above < kSlack) return below - ((from + below) & 1);
    return above > 1 - kSlack ? below + ((from + below) & 1) : below;
  };
  return {nearest(direction.x, start.x), nearest(direction.y, start.y),
          static_cast<double>(n - 1) + 0.5 / max_of(ax, ay)};
}

// How far along the ray its n-th side of a pixel square is (n from 0), by one of its axes, from the middle of a pixel.
PM_HD double side_distance(int64_t n, double along) {
  constexpr double kNever = 1e300;
  return along == 0 ? kNever : (static_cast<double>(n) + 0.5) / absolute(along);
}

// The step after `step` (at first {0, 0, 0}) from pixel square to pixel square, starting in the middle of one, and the
// next sides by x and by y. The distance is that of the side it crosses; a diagonal goes through corners, and meets the
// squares beside them nowhere.
PM_HD Step exact_step(const Step& step, Vec2<double> direction, double to_x, double to_y) {
  const auto sign = [](double value) { return value < 0 ? -1 : 1; };
  return {step.dx + (to_x <= to_y ? sign(direction.x) : 0), step.dy + (to_y <= to_x ? sign(direction.y) : 0),
          min_of(to_x, to_y)};
}

PM_HD Step exact_step(const Step& step, Vec2<double> direction) {
  return exact_step(step, direction, side_distance(absolute(step.dx), direction.x),
                    side_distance(absolute(step.dy), direction.y));
}

}  // namespace polarmask
