// Sums over the directed segments of an outline. No order is asked of the segments, but the sums are taken in one fixed
// order, so that the CPU and every GPU find the same area and the same centroid, to the bit.
#pragma once

#include <cmath>

#include "../../common/polar.h"

namespace polarmask {

template <class T>
struct OutlinesMomentsParams {
  const T* segments;       // [S, 4] pixels: x0, y0, x1, y1, contiguous
  const int64_t* offsets;  // [M + 1] segment m of offsets[m] … offsets[m + 1] − 1
  T* areas;                // [M] square pixels
  T* centroids;            // [M, 2] pixels: x, y; NaN without segments
  int64_t count;           // M
};

template <class T>
struct OutlinesBoxesParams {
  const T* segments;       // [S, 4] pixels: x0, y0, x1, y1, contiguous
  const int64_t* offsets;  // [M + 1]
  T* boxes;                // [M, 4] pixels: x0, y0, x1, y1; zeros without segments
  int64_t count;           // M
};

// Green's sums over segments a → b: the area, and its first moments.
struct AreaSums {
  // Rounding leaves some 2⁻⁵³ of the products where an area should vanish: points in a line, a path there and back.
  // What is left below 2⁻⁴⁰ of them is no area, and dividing by it would throw the centroid anywhere.
  static constexpr double kNegligible = 0x1p-40;

  double cross = 0;      // Σ a × b: twice the area
  double magnitude = 0;  // Σ |ax·by| + |ay·bx|
  double x = 0, y = 0;   // Σ (a + b) (a × b): six times the moments

  PM_HD void add(Vec2<double> a, Vec2<double> b) {
    const double left = a.x * b.y, right = a.y * b.x, c = left - right;
    cross += c;
    magnitude += absolute(left) + absolute(right);
    x += (a.x + b.x) * c;
    y += (a.y + b.y) * c;
  }
  PM_HD void operator+=(const AreaSums& other) {
    cross += other.cross, magnitude += other.magnitude;
    x += other.x, y += other.y;
  }
  PM_HD bool vanishes() const { return is_finite(magnitude) && absolute(cross) <= kNegligible * magnitude; }
  PM_HD double area() const { return vanishes() ? 0.0 : 0.5 * cross; }
};

// The midpoints, for outlines without area.
struct MidpointSums {
  double length = 0, x = 0, y = 0;             // Σ length, Σ length (a + b)
  double count = 0, plain_x = 0, plain_y = 0;  // Σ 1, Σ (a + b)

  PM_HD void add(Vec2<double> a, Vec2<double> b) {
    const Vec2<double> d = b - a;
    const double l = sqrt(d.x * d.x + d.y * d.y);
    length += l, x += l * (a.x + b.x), y += l * (a.y + b.y);
    count += 1, plain_x += a.x + b.x, plain_y += a.y + b.y;
  }
  PM_HD void operator+=(const MidpointSums& other) {
    length += other.length, x += other.x, y += other.y;
    count += other.count, plain_x += other.plain_x, plain_y += other.plain_y;
  }
};

// The fixed order: lane l of a warp takes the segments l, l + 32, …, then the lanes are added as a tree.
constexpr int kSumLanes = 32;

template <class Sums, class T>
PM_HD Sums lane_sums(const T* segments, int64_t count, int lane) {
  Sums sums;
  const Vec2<double> first{segments[0], segments[1]};  // relative to it, far from the origin nothing is lost
  for (int64_t s = lane; s < count; s += kSumLanes) {
    const T* v = segments + 4 * s;
    sums.add(Vec2<double>{v[0], v[1]} - first, Vec2<double>{v[2], v[3]} - first);
  }
  return sums;
}

template <class Sums, class T>
PM_HD Sums all_sums(const T* segments, int64_t count) {
  Sums lanes[kSumLanes];
  for (int lane = 0; lane < kSumLanes; ++lane) lanes[lane] = lane_sums<Sums>(segments, count, lane);
  for (int step = kSumLanes / 2; step > 0; step /= 2)
    for (int lane = 0; lane < step; ++lane) lanes[lane] += lanes[lane + step];
  return lanes[0];
}

// Relative to the first vertex. There is at least one segment.
PM_HD Vec2<double> centroid(const AreaSums& sums) { return {sums.x / (3 * sums.cross), sums.y / (3 * sums.cross)}; }
PM_HD Vec2<double> centroid(const MidpointSums& sums) {
  if (sums.length > 0) return {sums.x / (2 * sums.length), sums.y / (2 * sums.length)};
  return {sums.plain_x / (2 * sums.count), sums.plain_y / (2 * sums.count)};
}

// Rings of vertices, several to an instance.
template <class T>
struct PolygonRings {
  const T* vertices;               // [V, 2] pixels: x, y, contiguous
  const int64_t* ring_offsets;     // [K + 1] ring k has the vertices ring_offsets[k] … ring_offsets[k + 1] − 1
  const int64_t* polygon_offsets;  // [M + 1] instance m has the rings polygon_offsets[m] … polygon_offsets[m + 1] − 1
  int64_t count;                   // M

  PM_HD int64_t num_vertices(int64_t ring) const { return ring_offsets[ring + 1] - ring_offsets[ring]; }

  // Signed; 0 for fewer than three vertices, for NaN and for infinity.
  PM_HD double ring_area(int64_t ring) const {
    if (num_vertices(ring) < 3) return 0;
    const T* const first = vertices + 2 * ring_offsets[ring];
    const T* const last = first + 2 * (num_vertices(ring) - 1);
    AreaSums sums;
    for (const T* v = first + 2; v < last; v += 2) sums.add(edge(first, v), edge(first, v + 2));
    return is_finite(sums.cross) ? sums.area() : 0;
  }

  // body(start, end) for each side of a ring, from vertex to vertex; where a vertex is repeated there is none.
  template <class Body>
  PM_HD void for_each_side(int64_t ring, Body&& body) const {
    const T* const first = vertices + 2 * ring_offsets[ring];
    const T* a = first + 2 * (num_vertices(ring) - 1);
    for (const T* b = first; b < first + 2 * num_vertices(ring); a = b, b += 2)
      if (a[0] != b[0] || a[1] != b[1]) body(a, b);
  }

 private:
  PM_HD static Vec2<double> edge(const T* a, const T* b) { return Vec2<double>{b[0], b[1]} - Vec2<double>{a[0], a[1]}; }
};

}  // namespace polarmask
