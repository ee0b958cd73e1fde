// Finds which of many boxes touch one box, eight at a time. Coordinates are in columns: all x0, then all y0, and so on.
//
// Replaces: boxes_overlap() for each box.
// Falls back: never; columns are padded to a multiple of eight with boxes that touch nothing.
// Saves: see EdgeBoxes in queries.h, and neighbours.h of polygon_nms, which are built on it.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "common/simd.h"
#include "ops/polygon_iou/shapes.h"

namespace polarmask::polygon_iou {

class BoxColumns {
 public:
  static constexpr int64_t kLanes = 8;
  using Mask = Lanes<int32_t, 4 * kLanes>;  // -1 or 0

  // Boxes 0, …, count - 1, which the caller sets; what follows up to a multiple of kLanes touches nothing, as long as
  // coordinates are finite.
  void resize(int64_t count) {
    const int64_t padded = ceil_div(count, kLanes) * kLanes;
    const float infinity = std::numeric_limits<float>::infinity();
    for (std::vector<float>* column : {&x0_, &y0_, &x1_, &y1_}) column->resize(padded + kLanes);
    for (int64_t n = count; n < padded + kLanes; ++n) set(n, {infinity, infinity, -infinity, -infinity});
  }

  void set(int64_t n, const Box<float>& box) { x0_[n] = box.x0, y0_[n] = box.y0, x1_[n] = box.x1, y1_[n] = box.y1; }
  Box<float> at(int64_t n) const { return {x0_[n], y0_[n], x1_[n], y1_[n]}; }

  const float* x0() const { return x0_.data(); }

  // For boxes first, …, first + 7. By reference: how wide vectors are returned depends on the instruction set.
  void touching(int64_t first, const Box<float>& box, Mask& mask) const {
    using Floats = Lanes<float, 4 * kLanes>;
    const auto x0 = load<Floats>(&x0_[first]), y0 = load<Floats>(&y0_[first]);
    const auto x1 = load<Floats>(&x1_[first]), y1 = load<Floats>(&y1_[first]);
    mask = (x0 <= box.x1) & (x1 >= box.x0) & (y0 <= box.y1) & (y1 >= box.y0);
  }

  // Calls visit(lane) for the set lanes of a mask below `count`.
  template <class Visit>
  static void each_lane(const Mask& mask, int64_t count, const Visit& visit) {
    uint32_t set = bits_of_mask(mask);
    if (count < kLanes) set &= (1u << count) - 1;
    for (; set; set &= set - 1) visit(__builtin_ctz(set));
  }

 private:
  std::vector<float> x0_, y0_, x1_, y1_;
};

}  // namespace polarmask::polygon_iou
