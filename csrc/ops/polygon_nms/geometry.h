// The two kinds of shapes for the CPU loops: polygons, intersected by the order-free sum, and stars, by the star sweep.
// Both offer shape(i), and a Query: one shape against others, with the memory that this takes.
#pragma once

#include <vector>

#include "order_free.h"
#include "star_sweep.h"

namespace polarmask {

template <class T>
struct Polygons {
  const T* vertices;     // [N, V, 2] pixels
  int64_t num_vertices;  // V

  auto ring(int64_t i) const {
    return [row = vertices + i * num_vertices * 2](int64_t j) -> Vec2<double> { return {row[2 * j], row[2 * j + 1]}; };
  }

  Shape shape(int64_t i) const {
    const auto vertex = ring(i);
    return summarise(num_vertices, vertex, num_vertices > 0 ? vertex(0) : Vec2<double>{});
  }

  class Query {
   public:
    Query(const Polygons& a, const Polygons& b)
        : a_(a), b_(b), rings_(a.num_vertices + b.num_vertices + 2), numbers_(2 * b.num_vertices) {}

    void start(int64_t i, const Shape& shape) { i_ = i, shape_ = shape; }

    Overlap operator()(int64_t j, const Shape& other) {
      const OrderFreeScratch scratch{rings_.data(), rings_.data() + a_.num_vertices + 1, numbers_.data(),
                                     numbers_.data() + b_.num_vertices};
      return order_free_overlap(shape_.box, a_.num_vertices, a_.ring(i_), other.box, b_.num_vertices, b_.ring(j),
                                scratch);
    }

   private:
    const Polygons &a_, &b_;
    std::vector<Vec2<double>> rings_;
    std::vector<double> numbers_;
    int64_t i_ = 0;
    Shape shape_{};
  };
};

template <class T>
struct Stars {
  const T* centers;                // [N, 2] pixels
  const T* rays;                   // [N, R] pixels
  const Vec2<double>* directions;  // [R]
  int64_t num_rays;                // R

  Vec2<double> center(int64_t i) const { return {centers[2 * i], centers[2 * i + 1]}; }

  // Vertices of star i relative to its centre.
  auto ring(int64_t i) const {
    return [row = rays + i * num_rays, u = directions](int64_t k) -> Vec2<double> {
      const double length = ray_length(row[k]);
      return {length * u[k].x, length * u[k].y};
    };
  }

  Shape shape(int64_t i) const {
    const Vec2<double> o = center(i);
    Shape shape = summarise(num_rays, ring(i), {0, 0});
    shape.box = {shape.box.x0 + o.x, shape.box.y0 + o.y, shape.box.x1 + o.x, shape.box.y1 + o.y};
    return is_finite(o.x) && is_finite(o.y) ? shape : Shape{};
  }

  class Query {
   public:
    Query(const Stars& a, const Stars& b) : a_(a), b_(b), spokes_(a.num_rays + 1), sectors_(a.num_rays) {}

    void start(int64_t i, const Shape& shape) {
      center_ = a_.center(i), area_ = shape.area;
      star_ = make_star(a_.rays + i * a_.num_rays, a_.directions, a_.num_rays, spokes_.data(), sectors_.data());
    }

    Overlap operator()(int64_t j, const Shape& other) {
      const Vec2<double> offset = b_.center(j) - center_;
      const double inter = star_sweep(star_, b_.num_rays, [offset, vertex = b_.ring(j)](int64_t k) -> Vec2<double> {
        const Vec2<double> v = vertex(k);
        return {offset.x + v.x, offset.y + v.y};
      });
      return make_overlap(inter, area_, other.area);
    }

   private:
    const Stars &a_, &b_;
    std::vector<Vec2<double>> spokes_;
    std::vector<double> sectors_;
    Vec2<double> center_{};
    double area_ = 0;
    Star star_{};
  };
};

}  // namespace polarmask
