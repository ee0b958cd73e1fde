// Assigns the points of a detector's feature maps to instances. All coordinates are float32.
#pragma once

#include "common/rows.h"
#include "ops/polar_target/rays.h"

namespace polarmask::polar_target {

template <class T>
struct CastRaysParams {
  const T* origins;             // [P, 2] pixels
  Ragged<Segment<T>> outlines;  // [M] pixels
  const int64_t* instance;      // [P] the outline that each point looks at
  int64_t rows;                 // P
  int32_t num_rays;             // R
  Method method;
  T min_distance;  // pixels
  T* distances;    // [P, R] pixels
};

// What `instance` and `labels` hold where there is no instance.
constexpr int64_t kBackground = -1;
constexpr int64_t kIgnored = -2;

struct Level {
  int64_t height, width;  // points
  int64_t stride;         // pixels
  int64_t first_point;    // of the L points of an image
  float low, high;        // pixels: an instance is assigned here if its largest box distance is in [low, high]
};

constexpr int kMaxLevels = 32;  // levels are passed by value in the kernels' parameters

struct Levels {
  Level level[kMaxLevels];
  int count;

  PM_HD const Level* begin() const { return level; }
  PM_HD const Level* end() const { return level + count; }
};

PM_HD Vec2<float> point_of(const Level& level, int64_t row, int64_t column) {
  const auto at = [&](int64_t k) { return (static_cast<float>(k) + 0.5f) * static_cast<float>(level.stride); };
  return {at(column), at(row)};
}

struct alignas(16) BoxDistances {
  float left, top, right, bottom;  // pixels
};

PM_HD BoxDistances box_distances(const Box<float>& box, const Vec2<float>& p) {
  return {p.x - box.x0, p.y - box.y0, box.x1 - p.x, box.y1 - p.y};
}

// The box that positive points of a level lie in: the sides, and no farther from the centre than the radius, in
// strides.
PM_HD Box<float> inner_box(const Box<float>& box, const Vec2<float>& center, double radius, const Level& level) {
  constexpr double kFarthest = 3.4028234663852886e38;  // float's largest
  const auto reach = static_cast<float>(min_of(radius * static_cast<double>(level.stride), kFarthest));
  return {max_of(center.x - reach, box.x0), max_of(center.y - reach, box.y0),  //
          min_of(center.x + reach, box.x1), min_of(center.y + reach, box.y1)};
}

PM_HD bool is_inside(const Box<float>& box, const Vec2<float>& p) {
  return box.x0 < p.x && p.x < box.x1 && box.y0 < p.y && p.y < box.y1;
}

PM_HD bool is_assigned_on(const Level& level, const BoxDistances& d) {
  const float largest = max_of(max_of(d.left, d.right), max_of(d.top, d.bottom));
  return level.low <= largest && largest <= level.high;
}

// The value rounded towards zero and clamped to 0 … count; NaN is 0.
PM_HD int64_t clamp_index(double value, int64_t count) {
  if (!(value > 0)) return 0;
  return value < static_cast<double>(count) ? static_cast<int64_t>(value) : count;
}

// The rows or columns of points between two sides of a box, at most one too many.
PM_HD Interval points_between(float low, float high, int64_t stride, int64_t count) {
  return {clamp_index(low / static_cast<double>(stride) - 0.5, count),
          clamp_index(high / static_cast<double>(stride) + 0.5, count)};
}

// The points of a level between the sides of a box, and some outside; row after row.
struct PointRange {
  Interval rows, columns;

  PM_HD PointRange(const Level& level, const Box<float>& box)
      : rows(points_between(box.y0, box.y1, level.stride, level.height)),
        columns(points_between(box.x0, box.x1, level.stride, level.width)) {}

  PM_HD int64_t size() const { return max_of<int64_t>(0, rows.size()) * max_of<int64_t>(0, columns.size()); }
  PM_HD int64_t row(int64_t k) const { return rows.begin + k / columns.size(); }
  PM_HD int64_t column(int64_t k) const { return columns.begin + k % columns.size(); }
};

// The instances of a batch.
struct Instances {
  const Box<float>* boxes;          // [M] pixels
  const int64_t* labels;            // [M]
  const Vec2<float>* centers;       // [M] pixels
  const float* areas;               // [M] any unit; null: of the boxes
  const uint8_t* ignore;            // [M] any byte but 0 is true; null: none
  Ragged<Segment<float>> outlines;  // [M] pixels

  PM_HD float area(int64_t m) const {
    return areas ? areas[m] : (boxes[m].x1 - boxes[m].x0) * (boxes[m].y1 - boxes[m].y0);
  }

  PM_HD bool is_ignored(int64_t m) const { return ignore && ignore[m] != 0; }

  PM_HD bool may_be_positive(int64_t m) const {
    return !is_ignored(m) && outlines.length(m) > 0 && is_finite(area(m)) && area(m) >= 0 && is_finite(centers[m]) &&
           is_finite(boxes[m]);
  }
};

struct Targets {
  int64_t* instance;    // [B, L] of the batch, or kBackground, kIgnored
  int64_t* labels;      // [B, L] likewise
  BoxDistances* boxes;  // [B, L] pixels
  float* rays;          // [B, L, R] pixels
  float* centerness;    // [B, L]
};

struct EncodeTargetsParams {
  Instances instances;
  const int64_t* image_offsets;  // [B + 1] image b has the instances image_offsets[b] … image_offsets[b + 1] − 1
  int64_t images;                // B
  int64_t points;                // L, of an image
  Levels levels;
  double center_radius;  // strides
  int32_t num_rays;      // R
  Method method;
  float min_distance;  // pixels
  Targets targets;
};

}  // namespace polarmask::polar_target
