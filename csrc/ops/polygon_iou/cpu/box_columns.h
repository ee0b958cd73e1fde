// Which of many boxes touch one, eight at a time, for the CPU loops.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "ops/polygon_iou/shapes.h"

namespace polarmask::polygon_iou {

class BoxColumns {
 public:
  static constexpr int64_t kLanes = 8;
  using Mask = int32_t __attribute__((vector_size(4 * kLanes)));  // -1 or 0

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
    using Floats = float __attribute__((vector_size(4 * kLanes)));
    Floats x0, y0, x1, y1;
    std::memcpy(&x0, &x0_[first], sizeof x0);
    std::memcpy(&y0, &y0_[first], sizeof y0);
    std::memcpy(&x1, &x1_[first], sizeof x1);
    std::memcpy(&y1, &y1_[first], sizeof y1);
    mask = (x0 <= box.x1) & (x1 >= box.x0) & (y0 <= box.y1) & (y1 >= box.y0);
  }

  // Calls visit(lane) for the set lanes of a mask below `count`.
  template <class Visit>
  static void each_lane(const Mask& mask, int64_t count, const Visit& visit) {
    using Pairs = int64_t __attribute__((vector_size(16)));
    const Mask bits = mask & Mask{1, 2, 4, 8, 16, 32, 64, 128};
    const auto low = __builtin_shufflevector(bits, bits, 0, 1, 2, 3);
    const auto high = __builtin_shufflevector(bits, bits, 4, 5, 6, 7);
    const auto pairs = (Pairs)(low | high);
    const int64_t both = pairs[0] | pairs[1];
    uint32_t set = static_cast<uint32_t>(both | both >> 32) & 0xff;
    if (count < kLanes) set &= (1u << count) - 1;
    for (; set; set &= set - 1) visit(__builtin_ctz(set));
  }

 private:
  std::vector<float> x0_, y0_, x1_, y1_;
};

}  // namespace polarmask::polygon_iou
