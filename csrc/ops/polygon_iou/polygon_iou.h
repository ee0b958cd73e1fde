// Areas and IoU of shapes, for the CPU loops and the CUDA kernels.
#pragma once

#include "ops/polygon_iou/polygons_and_stars.h"

namespace polarmask::polygon_iou {

template <class T>
struct AreasParams {
  Polygons<T> polygons;
  int64_t count;  // N
  T* areas;       // [N] square pixels
};

template <class Geometry, class T>
struct IouParams {
  Geometry a, b;  // for the kernels without directions
  int64_t count_a, count_b;
  Metric metric;
  bool paired;                 // row by row: count_a = count_b
  T* iou;                      // [count_a, count_b], or [count_a] when paired
  Shape *shapes_a, *shapes_b;  // [count_a], [count_b] memory for the summaries
};

}  // namespace polarmask::polygon_iou
