// Memory for bitmaps.
#pragma once

#include <cstdlib>
#include <new>

#include "common/host/device.h"

namespace polarmask {

// (N, H, W) bool. For the CPU loops it is zero: pages that the system hands out when they are first written, and most
// of a mask never is. torch's zeros write all of them, which takes ten times as long as drawing. The kernels zero it
// themselves.
inline Tensor empty_masks(const Tensor& like, int64_t count, int64_t height, int64_t width) {
  const int64_t bytes = count * height * width;
  if (bytes == 0 || by_kernels(like)) return allocate(like, {count, height, width}, ScalarType::Bool);
  void* const zeros = std::calloc(bytes, 1);
  if (!zeros) throw std::bad_alloc();
  return torch::stable::from_blob(zeros, {count, height, width}, {height * width, width, 1}, like.device(),
                                  ScalarType::Bool, [](void* memory) { std::free(memory); });
}

}  // namespace polarmask
