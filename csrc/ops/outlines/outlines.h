// Sums over the directed segments of an outline. No order is asked of the segments, but the sums are taken in one fixed
// order, so that the CPU and every GPU find the same area and the same centroid, to the bit.
#pragma once

#include <cmath>

#include "common/polar.h"
#include "common/rows.h"

namespace polarmask::outlines {

template <class T>
struct OutlineRows {
  const T* segments;       // [S, 4] pixels: x0, y0, x1, y1, contiguous
  const int64_t* offsets;  // [M + 1] outline m has the segments offsets[m] … offsets[m + 1] − 1
  int64_t num_segments;    // S
  int64_t count;           // M

  PM_HD Interval range(int64_t m) const { return row_range(offsets, m, num_segments); }
  PM_HD const T* row(int64_t m) const { return segments + 4 * range(m).begin; }
  PM_HD int64_t length(int64_t m) const { return range(m).size(); }
};

template <class T>
struct Moments {
  T area;  // square pixels
  T x, y;  // the centroid; NaN without segments
};

template <class T>
struct OutlinesMomentsParams {
  OutlineRows<T> outlines;
  T* areas;      // [M] square pixels
  T* centroids;  // [M, 2] pixels: x, y

  PM_HD void write(int64_t m, const Moments<T>& moments) const {
    areas[m] = moments.area;
    centroids[2 * m] = moments.x, centroids[2 * m + 1] = moments.y;
  }
};

// The box with the ends of a segment [4] added; NaN is ignored.
template <class T>
PM_HD Box<T> join_segment(const Box<T>& box, const T* s) {
  return join(join(box, Vec2<T>{s[0], s[1]}), Vec2<T>{s[2], s[3]});
}

template <class T>
struct OutlinesBoxesParams {
  OutlineRows<T> outlines;
  T* boxes;  // [M, 4] pixels: x0, y0, x1, y1; zeros without segments

  // Adding 0 turns −0 into 0: the two are equal, so the order of the segments would choose between them.
  PM_HD void write(int64_t m, const Box<T>& box) const {
    const bool any = box.x0 <= box.x1 && box.y0 <= box.y1;
    T* const to = boxes + 4 * m;
    to[0] = any ? box.x0 + T(0) : T(0), to[1] = any ? box.y0 + T(0) : T(0);
    to[2] = any ? box.x1 + T(0) : T(0), to[3] = any ? box.y1 + T(0) : T(0);
  }
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

// sum_up.operator()<Sums>(segments, count) makes the sums of all_sums.
template <class T, class SumUp>
PM_HD Moments<T> moments_of(const T* segments, int64_t count, SumUp&& sum_up) {
  if (count == 0) return {T(0), static_cast<T>(NAN), static_cast<T>(NAN)};
  const AreaSums sums = sum_up.template operator()<AreaSums>(segments, count);
  const Vec2<double> c =
      sums.vanishes() ? centroid(sum_up.template operator()<MidpointSums>(segments, count)) : centroid(sums);
  return {static_cast<T>(sums.area()), static_cast<T>(segments[0] + c.x), static_cast<T>(segments[1] + c.y)};
}

template <class T>
struct Ring {
  const T* vertices;  // [size, 2] pixels: x, y
  int64_t size;

  // Signed; 0 for fewer than three vertices, for NaN and for infinity.
  PM_HD double area() const {
    AreaSums sums;
    for (int64_t k = 1; k + 1 < size; ++k) sums.add(from_first(k), from_first(k + 1));
    return is_finite(sums.cross) ? sums.area() : 0;
  }

  // Side k ends at vertex k. Where a vertex is repeated there is none.
  PM_HD bool has_side(int64_t k) const {
    const T *const a = start(k), *const b = vertices + 2 * k;
    return a[0] != b[0] || a[1] != b[1];
  }

  // With matter on the right of it, by the sign of the ring's area.
  PM_HD AlignedSegment<T> side(int64_t k, double signed_area) const {
    const T *const a = start(k), *const b = vertices + 2 * k;
    const Vec2<T> from{a[0], a[1]}, to{b[0], b[1]};
    return signed_area < 0 ? AlignedSegment<T>{to, from} : AlignedSegment<T>{from, to};
  }

 private:
  PM_HD const T* start(int64_t k) const { return vertices + 2 * (k > 0 ? k - 1 : size - 1); }
  PM_HD Vec2<double> from_first(int64_t k) const {
    return Vec2<double>{vertices[2 * k], vertices[2 * k + 1]} - Vec2<double>{vertices[0], vertices[1]};
  }
};

// Rings of vertices, several to an instance.
template <class T>
struct PolygonRings {
  const T* vertices;               // [V, 2] pixels: x, y, contiguous
  const int64_t* ring_offsets;     // [K + 1] ring k has the vertices ring_offsets[k] … ring_offsets[k + 1] − 1
  const int64_t* polygon_offsets;  // [M + 1] instance m has the rings polygon_offsets[m] … polygon_offsets[m + 1] − 1
  int64_t num_vertices, num_rings, count;  // V, K, M

  PM_HD Interval rings(int64_t m) const { return row_range(polygon_offsets, m, num_rings); }
  PM_HD Ring<T> operator[](int64_t ring) const {
    const Interval range = row_range(ring_offsets, ring, num_vertices);
    return {vertices + 2 * range.begin, range.size()};
  }
};

// Calls keep(ring, area(ring)) for the rings of instance m that count: all that have an area, or the largest; ties: the
// first.
template <class T, class Area, class Keep>
PM_HD void choose_rings(const PolygonRings<T>& p, int64_t m, bool largest, Area&& area, Keep&& keep) {
  const Interval rings = p.rings(m);
  int64_t best = 0;
  double best_area = 0;
  for (int64_t ring = rings.begin; ring < rings.end; ++ring) {
    const double signed_area = area(ring);
    if (!largest && signed_area != 0) keep(ring, signed_area);
    if (absolute(signed_area) > absolute(best_area)) best = ring, best_area = signed_area;
  }
  if (largest && best_area != 0) keep(best, best_area);
}

template <class T>
struct OutlinesFromPolygonsParams {
  PolygonRings<T> rings;
  bool largest;
  double* areas;       // [K] scratch: signed, of the rings
  int64_t* num_sides;  // [K] scratch
  int64_t* offsets;    // [M + 1] of the outlines
};

}  // namespace polarmask::outlines
