// What both intersection algorithms share: the summary of a shape, and what is decided from two summaries alone.
//
// A shape without area overlaps nothing: fewer than three vertices, no area, or anything that is not finite, be it a
// vertex or a size beyond kLargestExtent. What is not finite is no shape at all: NMS never keeps it.
//
// Sums over the edges of a ring are made of kParts parts, each a run of edges, in one order: a GPU has a lane for each
// part, and the CPU loops make the same bits.
#pragma once

#include "common/polar.h"

namespace polarmask::polygon_iou {

// Wider or taller shapes count as not finite, so that products of coordinates of two shapes never overflow.
constexpr double kLargestExtent = 1e150;

struct Shape {
  Box<double> box;
  double area;  // square pixels
  bool finite;  // else box and area are 0
};

// Sizes of two shapes and of what they share, in one unit of area.
struct Overlap {
  double inter, area_a, area_b;
};

// What inter is measured against.
enum class Metric { kIou, kIomin };

constexpr int kParts = 8;

// The edges (or vertices) of a part of a ring.
PM_HD Interval edges_of_part(int64_t count, int part) {
  const int64_t length = ceil_div(count, kParts);
  return {min_of(part * length, count), min_of((part + 1) * length, count)};
}

PM_HD int64_t next_of(int64_t j, int64_t count) { return j + 1 < count ? j + 1 : 0; }

// The order of a GPU's butterfly over its lanes.
PM_HD double sum_of_parts(const double (&part)[kParts]) {
  return ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
}

struct PartOfShape {
  Box<double> box;
  double doubled;  // twice the signed area
};

// A part of the polygon vertex(0), vertex(1), …, vertex(count - 1), count > 0. The area is summed relative to `anchor`,
// a point nearby: far from the origin the products would swallow it. In the order of star_sweep, to the same bits.
template <class Vertex>
PM_HD PartOfShape part_of_shape(int64_t count, const Vertex& vertex, Vec2<double> anchor, int part) {
  const Interval edges = edges_of_part(count, part);
  Vec2<double> p = vertex(edges.begin < count ? edges.begin : 0);
  PartOfShape result{{p.x, p.y, p.x, p.y}, 0};
  for (int64_t j = edges.begin; j < edges.end; ++j) {
    const Vec2<double> q = vertex(next_of(j, count));
    result.box = join(result.box, q);
    result.doubled += cross(p - anchor, q - anchor);
    p = q;
  }
  return result;
}

// From the box and twice the signed area of all parts, and where the box is relative to.
PM_HD Shape finish_shape(int64_t count, const Box<double>& box, double doubled, Vec2<double> origin) {
  if (count < 3) doubled *= 0;  // and NaN stays NaN
  const Box<double> moved{box.x0 + origin.x, box.y0 + origin.y, box.x1 + origin.x, box.y1 + origin.y};
  const bool fits = moved.x1 - moved.x0 <= kLargestExtent && moved.y1 - moved.y0 <= kLargestExtent;  // no NaN does
  if (!is_finite(doubled) || !is_finite(moved.x0) || !is_finite(moved.y0) || !fits) return {};
  return {moved, doubled < 0 ? -0.5 * doubled : 0.5 * doubled, true};
}

template <class Vertex>
PM_HD Shape summarise(int64_t count, const Vertex& vertex, Vec2<double> anchor, Vec2<double> origin) {
  if (count == 0) return {{}, 0, true};
  double doubled[kParts];
  PartOfShape whole{};
  for (int part = 0; part < kParts; ++part) {
    const PartOfShape next = part_of_shape(count, vertex, anchor, part);
    whole.box = part == 0 ? next.box : join(whole.box, next.box);
    doubled[part] = next.doubled;
  }
  return finish_shape(count, whole.box, sum_of_parts(doubled), origin);
}

PM_HD double whole(const Overlap& o, Metric metric) {
  return metric == Metric::kIou ? o.area_a + o.area_b - o.inter : min_of(o.area_a, o.area_b);
}

// 0/0 is 0.
PM_HD double overlap_share(const Overlap& o, Metric metric) { return o.inter > 0 ? o.inter / whole(o, metric) : 0; }

// Without a division, so that a threshold that is hit exactly does not depend on its rounding.
PM_HD bool exceeds(const Overlap& o, Metric metric, double threshold) { return o.inter > threshold * whole(o, metric); }

// A float at or below the value, within 2⁻²² of all but tiny and huge ones; never falls when the value rises.
PM_HD float round_down(double value) {
  constexpr double kLargestFloat = 3.4028234663852886e38, kBelowRounding = 1.0 / (1 << 23), kTiny = 1e-44;
  return static_cast<float>(min_of(value - absolute(value) * kBelowRounding - kTiny, kLargestFloat));
}

// A box in half the memory that contains the given one: where outer boxes do not overlap, the boxes do not.
PM_HD Box<float> outer_box(const Box<double>& box) {
  return {round_down(box.x0), round_down(box.y0), -round_down(-box.x1), -round_down(-box.y1)};
}

// Whether the overlap of two shapes can exceed the threshold at all: it is no larger than either shape, nor than the
// overlap of their boxes. This spares the exact intersection for most pairs.
PM_HD bool may_exceed(const Shape& a, const Shape& b, Metric metric, double threshold) {
  if (!boxes_overlap(a.box, b.box)) return false;
  const double width = min_of(a.box.x1, b.box.x1) - max_of(a.box.x0, b.box.x0);
  const double height = min_of(a.box.y1, b.box.y1) - max_of(a.box.y0, b.box.y0);
  const double bound = min_of(min_of(a.area, b.area), width * height);
  return exceeds({bound, a.area, b.area}, metric, threshold);
}

// `inter` with its rounding errors cut off.
PM_HD Overlap make_overlap(double inter, double area_a, double area_b) {
  return {inter > 0 ? min_of(inter, min_of(area_a, area_b)) : 0.0, area_a, area_b};
}

}  // namespace polarmask::polygon_iou
