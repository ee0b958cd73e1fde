// Points, segments, rectangles and intervals. Every op uses these types; coordinates are pixels, x to the right, y
// down.
#pragma once

#include "common/host_device.h"

namespace polarmask {

template <class T>
struct Vec2 {
  T x, y;
};

template <class T>
PM_HD T cross(Vec2<T> a, Vec2<T> b) {
  return a.x * b.y - a.y * b.x;
}

template <class T>
PM_HD T dot(Vec2<T> a, Vec2<T> b) {
  return a.x * b.x + a.y * b.y;
}

template <class T>
PM_HD Vec2<T> operator-(Vec2<T> a, Vec2<T> b) {
  return {a.x - b.x, a.y - b.y};
}

template <class T>
PM_HD bool is_finite(const Vec2<T>& v) {
  return is_finite(v.x) && is_finite(v.y);
}

// A directed segment. Tensors of arguments may start at any multiple of alignof(T); tensors that an op allocates are
// aligned to 16 bytes, and kernels then write a segment of floats in one access.
template <class T, int kAlignment = alignof(T)>
struct alignas(kAlignment) Segment {
  Vec2<T> from, to;
};

template <class T>
using AlignedSegment = Segment<T, 16>;

template <class T, int kAlignment>
PM_HD bool is_finite(const Segment<T, kAlignment>& s) {
  return is_finite(s.from) && is_finite(s.to);
}

// A rectangle with sides along the axes.
template <class T>
struct Box {
  T x0, y0, x1, y1;
};

template <class T>
PM_HD bool is_finite(const Box<T>& box) {
  return is_finite(box.x0) && is_finite(box.y0) && is_finite(box.x1) && is_finite(box.y1);
}

// The box that contains nothing: join() with it changes nothing.
template <class T>
PM_HD Box<T> empty_box() {
  constexpr T kFar = static_cast<T>(__builtin_inf());
  return {kFar, kFar, -kFar, -kFar};
}

// The smallest box around both. NaN in `b` is ignored.
template <class T>
PM_HD Box<T> join(const Box<T>& a, const Box<T>& b) {
  return {min_of(a.x0, b.x0), min_of(a.y0, b.y0), max_of(a.x1, b.x1), max_of(a.y1, b.y1)};
}

template <class T>
PM_HD Box<T> join(const Box<T>& box, const Vec2<T>& p) {
  return join(box, Box<T>{p.x, p.y, p.x, p.y});
}

template <class T>
PM_HD Box<T> box_around(Vec2<T> p, Vec2<T> q) {
  return {min_of(p.x, q.x), min_of(p.y, q.y), max_of(p.x, q.x), max_of(p.y, q.y)};
}

// Returns true if the boxes have an area in common; a common side is not enough.
template <class T>
PM_HD bool boxes_overlap(const Box<T>& a, const Box<T>& b) {
  return a.x0 < b.x1 && b.x0 < a.x1 && a.y0 < b.y1 && b.y0 < a.y1;
}

// Indices begin, …, end - 1.
struct Interval {
  int64_t begin, end;

  PM_HD int64_t size() const { return end - begin; }
};

// The pixels of some neighbouring rows and columns of an image.
struct PixelBox {
  Interval rows, columns;
};

}  // namespace polarmask
