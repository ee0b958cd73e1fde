// The two kinds of shapes: polygons, intersected by the order-free sum, and stars, by the star sweep.
#pragma once

#include "ops/polygon_iou/order_free.h"
#include "ops/polygon_iou/star_sweep.h"

namespace polarmask::polygon_iou {

template <class T>
struct Polygons {
  const T* vertices;     // [N, V, 2] pixels
  int64_t num_vertices;  // V

  struct Ring {
    const T* vertices;  // [V, 2]
    PM_HD Vec2<double> operator()(int64_t j) const { return {vertices[2 * j], vertices[2 * j + 1]}; }
  };
  PM_HD Ring ring(int64_t i) const { return {vertices + i * num_vertices * 2}; }

  // For the summary: the ring's length, what its area is summed relative to, and where it lies.
  PM_HD int64_t size() const { return num_vertices; }
  PM_HD Vec2<double> anchor(int64_t i) const { return num_vertices > 0 ? ring(i)(0) : Vec2<double>{0, 0}; }
  PM_HD Vec2<double> origin(int64_t) const { return {0, 0}; }
};

template <class T>
struct Stars {
  const T* centers;                // [N, 2] pixels
  const T* rays;                   // [N, R] pixels
  const Vec2<double>* directions;  // [R]
  int64_t num_rays;                // R

  // Vertices relative to the centre, or to any point by which it is moved.
  struct Ring {
    const T* rays;                   // [R]
    const Vec2<double>* directions;  // [R]
    Vec2<double> moved;
    PM_HD Vec2<double> operator()(int64_t k) const {
      const double length = ray_length(rays[k]);
      return {moved.x + length * directions[k].x, moved.y + length * directions[k].y};
    }
  };
  PM_HD Ring ring(int64_t i, Vec2<double> moved = {0, 0}) const { return {rays + i * num_rays, directions, moved}; }
  PM_HD StarRays<T> star(int64_t i) const { return {rays + i * num_rays, directions, num_rays}; }

  PM_HD int64_t size() const { return num_rays; }
  PM_HD Vec2<double> anchor(int64_t) const { return {0, 0}; }
  PM_HD Vec2<double> origin(int64_t i) const { return {centers[2 * i], centers[2 * i + 1]}; }
};

template <class Geometry>
PM_HD Shape shape_of(const Geometry& geometry, int64_t i) {
  return summarise(geometry.size(), geometry.ring(i), geometry.anchor(i), geometry.origin(i));
}

}  // namespace polarmask::polygon_iou
