// What both intersection algorithms share: the summary of a shape, and what is decided from two summaries alone.
//
// A shape without area overlaps nothing: fewer than three vertices, no area, or anything that is not finite, be it a
// vertex or a size that overflows. What is not finite is no shape at all: NMS never keeps it.
#pragma once

#include "../../common/polar.h"

namespace polarmask {

struct Bounds {
  double x0, y0, x1, y1;  // pixels
};

struct Shape {
  Bounds box;
  double area;  // square pixels
  bool finite;  // else box and area are 0
};

// Sizes of two shapes and of what they share, in one unit of area.
struct Overlap {
  double inter, area_a, area_b;
};

// What inter is measured against.
enum class Metric { kIou, kIomin };

// Bounds and area of the polygon vertex(0), vertex(1), …, vertex(count - 1). The area is summed relative to `anchor`, a
// point nearby: far from the origin the products would swallow it. In the order of star_sweep, to the same bits.
template <class Vertex>
PM_HD Shape summarise(int64_t count, const Vertex& vertex, Vec2<double> anchor) {
  if (count == 0) return {{}, 0, true};
  Vec2<double> p = vertex(0);
  Bounds box{p.x, p.y, p.x, p.y};
  double doubled = 0;
  for (int64_t j = 0; j < count; ++j) {
    const Vec2<double> q = vertex(j + 1 < count ? j + 1 : 0);
    box = {min_of(box.x0, q.x), min_of(box.y0, q.y), max_of(box.x1, q.x), max_of(box.y1, q.y)};
    doubled += cross(p - anchor, q - anchor);
    p = q;
  }
  if (count < 3) doubled *= 0;  // and NaN stays NaN
  if (!is_finite(doubled) || !is_finite(box.x1 - box.x0) || !is_finite(box.y1 - box.y0)) return {};
  return {box, doubled < 0 ? -0.5 * doubled : 0.5 * doubled, true};
}

PM_HD double whole(const Overlap& o, Metric metric) {
  return metric == Metric::kIou ? o.area_a + o.area_b - o.inter : min_of(o.area_a, o.area_b);
}

// 0/0 is 0.
PM_HD double overlap_share(const Overlap& o, Metric metric) { return o.inter > 0 ? o.inter / whole(o, metric) : 0; }

// Without a division, so that a threshold that is hit exactly does not depend on its rounding.
PM_HD bool exceeds(const Overlap& o, Metric metric, double threshold) { return o.inter > threshold * whole(o, metric); }

PM_HD bool boxes_overlap(const Bounds& a, const Bounds& b) {
  return a.x0 < b.x1 && b.x0 < a.x1 && a.y0 < b.y1 && b.y0 < a.y1;
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

// `inter` with its rounding errors cut off. NaN, from products beyond double's range, becomes 0.
PM_HD Overlap make_overlap(double inter, double area_a, double area_b) {
  return {inter > 0 ? min_of(inter, min_of(area_a, area_b)) : 0.0, area_a, area_b};
}

}  // namespace polarmask
