// Shapes and the pixels they cover. Every output is made from the same crossings: an edge toggles a column from a row
// on, and a pixel is inside when it has been toggled an odd number of times. Rows and columns are clipped, never
// vertices, so a shape does not change where it leaves the image.
//
// No torch here: the CPU loops, the CUDA kernels and the C++ tests share this file.
#pragma once

#include "common/polar.h"
#include "common/polygon.h"
#include "common/rows.h"

namespace polarmask::rasterize {

// ---- Where the edges come from ----

template <class T>
struct PolygonShapes {
  const T* vertices;     // [N, V, 2] pixels
  int64_t num_shapes;    // N
  int64_t num_vertices;  // V

  PM_HD int64_t size() const { return num_shapes; }
  PM_HD Vec2<T> vertex(int64_t n, int64_t k) const {
    const T* v = vertices + (n * num_vertices + k) * 2;
    return {v[0], v[1]};
  }
};

template <class T>
struct RayShapes {
  const T* centers;                // [N, 2] pixels
  const T* rays;                   // [N, R] pixels
  const T* scale;                  // [N, 2] factors of x and y, or null
  const Vec2<double>* directions;  // [R] unit vectors, or null: computed each time
  int64_t num_shapes;              // N
  int64_t num_vertices;            // R

  PM_HD int64_t size() const { return num_shapes; }
  PM_HD Vec2<T> vertex(int64_t n, int64_t k) const {
    const Vec2<T> centre{centers[2 * n], centers[2 * n + 1]};
    const Vec2<double> direction = directions ? directions[k] : ray_direction(k, num_vertices);
    const Vec2<T> end = ray_end(centre, rays[n * num_vertices + k], direction);
    return scale ? Vec2<T>{end.x * scale[2 * n], end.y * scale[2 * n + 1]} : end;
  }
};

template <class T>
struct OutlineShapes {
  const T* segments;       // [S, 4] pixels: x0, y0, x1, y1
  const int64_t* offsets;  // [M + 1] into segments
  int64_t num_shapes;      // M
  int64_t num_segments;    // S

  PM_HD int64_t size() const { return num_shapes; }
  PM_HD Interval range(int64_t n) const { return row_range(offsets, n, num_segments); }
  PM_HD Segment<T> segment(int64_t k) const {
    const T* s = segments + 4 * k;
    return {{s[0], s[1]}, {s[2], s[3]}};
  }
};

// Calls visit(look(from), look(to)) for every edge of shape n: of a closed ring, whose vertices are looked at once …
template <class Shapes, class Look, class Visit>
PM_HD void visit_edges(const Shapes& shapes, int64_t n, Look&& look, Visit&& visit) {
  if (shapes.num_vertices == 0) return;
  auto from = look(shapes.vertex(n, shapes.num_vertices - 1));
  for (int64_t k = 0; k < shapes.num_vertices; ++k) {
    const auto to = look(shapes.vertex(n, k));
    visit(from, to);
    from = to;
  }
}

// … and of an outline.
template <class T, class Look, class Visit>
PM_HD void visit_edges(const OutlineShapes<T>& shapes, int64_t n, Look&& look, Visit&& visit) {
  const Interval range = shapes.range(n);
  for (int64_t k = range.begin; k < range.end; ++k) visit(look(shapes.segment(k).from), look(shapes.segment(k).to));
}

// The same edges by their numbers, for threads that share them.
template <class Shapes>
PM_HD int64_t num_edges(const Shapes& shapes, int64_t) {
  return shapes.num_vertices;
}
template <class T>
PM_HD int64_t num_edges(const OutlineShapes<T>& shapes, int64_t n) {
  return shapes.range(n).size();
}
template <class Shapes>
PM_HD auto edge_of(const Shapes& shapes, int64_t n, int64_t k) {
  const auto from = shapes.vertex(n, k > 0 ? k - 1 : shapes.num_vertices - 1), to = shapes.vertex(n, k);
  return Segment<decltype(from.x)>{from, to};
}
template <class T>
PM_HD Segment<T> edge_of(const OutlineShapes<T>& shapes, int64_t n, int64_t k) {
  return shapes.segment(shapes.range(n).begin + k);
}

// ---- What the kernels are handed ----

template <class T>
struct PolygonsParams {
  RayShapes<T> shapes;
  Vec2<T>* vertices;  // [N, R] pixels
};

template <class Shapes>
struct MasksParams {
  Shapes shapes;
  int64_t height, width;  // pixels, not 0
  uint8_t* masks;         // [N, H, W] 0 or 1
};

template <class Shapes>
struct LabelsParams {
  Shapes shapes;
  const int64_t* order;   // [count] shapes, first to last; null: 0 … count − 1
  int64_t count;          // K
  int64_t height, width;  // pixels, not 0
  int32_t* labels;        // [H, W]
};

template <class Shapes>
struct RunsParams {
  Shapes shapes;
  int64_t height, width;  // pixels
  bool coco;              // the rule
};

// ---- Which columns an edge toggles, and from which row on ----

// ⌈value⌉ within [low, high], 0 ≤ low, and low for NaN: a cast of what is out of range would be undefined.
PM_HD int64_t clamped_ceil(double value, int64_t low, int64_t high) {
  if (!(value > static_cast<double>(low))) return low;
  if (!(value < static_cast<double>(high))) return high;
  const auto whole = static_cast<int64_t>(value);
  return whole + (static_cast<double>(whole) < value);
}

// The predicate of polygon.h at pixel centres, among the columns [first, last): those between its ends' columns.
struct CenterCrossings {
  struct Vertex {
    double x, y;
    int64_t column;  // the first whose centre is not left of it

    template <class T>
    PM_HD Vertex(const Vec2<T>& v, int64_t first, int64_t last)
        : x(v.x), y(v.y), column(clamped_ceil(x - 0.5, first, last)) {}
  };

  Edge edge;
  int64_t begin, end;  // columns

  PM_HD CenterCrossings(const Vertex& from, const Vertex& to)
      : edge(make_edge(from.x, from.y, to.x, to.y)),
        begin(min_of(from.column, to.column)),
        end(max_of(from.column, to.column)) {}

  template <class T>
  PM_HD CenterCrossings(const Segment<T>& s, int64_t first, int64_t last)
      : CenterCrossings(Vertex(s.from, first, last), Vertex(s.to, first, last)) {}

  PM_HD int64_t row(int64_t column, int64_t height) const {
    return clamped_ceil(crossing(edge, static_cast<double>(column) + 0.5) - 0.5, 0, height);
  }
};

// The rule of the COCO API. Its rleFrPoly rounds vertices to a grid of fifths of a pixel and walks each edge there, one
// step at a time along its longer axis. A column is toggled where the walk steps between the fifths 2 and 3 of it, the
// row is the first whose fifth 2 is not above the step. So every crossing can be found on its own, without the walk.
struct CocoCrossings {
  double x0, y0;       // fifths: where the walk starts, the lower end on the longer axis
  double slope;        // of the shorter axis against the longer one
  double inverse;      // 1 / slope, nearly
  int64_t steps;       // along the longer axis
  bool steep;          // the longer axis is y
  int64_t begin, end;  // columns

  struct Vertex {
    int64_t x, y;    // fifths
    int64_t column;  // the first that is toggled right of it

    template <class T>
    PM_HD Vertex(const Vec2<T>& v, int64_t first, int64_t last)
        : x(fifths(v.x)), y(fifths(v.y)), column(max_of(first, min_of(last, pixel(x)))) {}
  };

  PM_HD CocoCrossings(const Vertex& from, const Vertex& to)
      : begin(min_of(from.column, to.column)), end(max_of(from.column, to.column)) {
    int64_t ax = from.x, ay = from.y, bx = to.x, by = to.y;
    const int64_t dx = max_of(ax - bx, bx - ax), dy = max_of(ay - by, by - ay);
    steep = dx < dy;
    if (steep ? ay > by : ax > bx) {
      int64_t swap = ax;
      ax = bx, bx = swap;
      swap = ay, ay = by, by = swap;
    }
    x0 = static_cast<double>(ax), y0 = static_cast<double>(ay);
    steps = max_of(dx, dy);
    const auto shorter = static_cast<double>(steep ? bx - ax : by - ay), longer = static_cast<double>(steps);
    slope = shorter / longer;
    inverse = longer / shorter;
  }

  template <class T>
  PM_HD CocoCrossings(const Segment<T>& s, int64_t first, int64_t last)
      : CocoCrossings(Vertex(s.from, first, last), Vertex(s.to, first, last)) {}

  PM_HD int64_t row(int64_t column, int64_t height) const {
    return min_of(height, pixel(steep ? height_steep(column) : height_flat(column)));
  }

 private:
  static constexpr double kLimit = 1e6;  // pixels; beyond it rleFrPoly's own integers overflow

  // Rounded as in C: towards zero, so a negative coordinate lands one fifth higher than its positive mirror image.
  PM_HD static int64_t fifths(double v) { return static_cast<int64_t>(5.0 * max_of(-kLimit, min_of(kLimit, v)) + 0.5); }

  // The first pixel whose fifth 2 is not before fifth v.
  PM_HD static int64_t pixel(int64_t v) { return (max_of<int64_t>(v, 0) + 2) / 5; }

  PM_HD int64_t height_flat(int64_t column) const {
    const double t = static_cast<double>(5 * column + 2) - x0;
    return min_of(static_cast<int64_t>(y0 + slope * t + 0.5), static_cast<int64_t>(y0 + slope * (t + 1.0) + 0.5));
  }

  PM_HD int64_t height_steep(int64_t column) const {
    const double wall = static_cast<double>(5 * column + 3);
    const auto passed = [&](int64_t t) {
      const double x = x0 + slope * static_cast<double>(t) + 0.5;
      return slope > 0.0 ? x >= wall : x < wall;
    };
    // This may err by a step; the walk's own arithmetic has the last word.
    int64_t t = clamped_ceil((wall - 0.5 - x0) * inverse, 1, steps);
    while (t > 1 && passed(t - 1)) --t;
    while (t < steps && !passed(t)) ++t;
    return static_cast<int64_t>(y0) + t - 1;
  }
};

}  // namespace polarmask::rasterize
