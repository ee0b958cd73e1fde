// Which points of a detector's feature maps learn which instance. All of it in float.
#pragma once

#include "../../common/polar.h"

namespace polarmask {

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
