// Memory for masks that is zero: pages that the system hands out when they are first written. Most pages of a mask
// never are: torch's zeros, which writes all of them, takes 12 times as long as drawing 100 shapes on 800 × 1280
// pixels.
#pragma once

#include <cstdlib>
#include <new>

#include "common/host/device.h"

namespace polarmask {

// Masks (N, H, W) of bool: zero for the CPU loops, uninitialised for the kernels, whose launchers zero them.
inline Tensor empty_masks(const Tensor& like, int64_t count, int64_t height, int64_t width) {
  const int64_t bytes = count * height * width;
  if (bytes == 0 || by_kernels(like)) return allocate(like, {count, height, width}, ScalarType::Bool);
  void* const zeros = std::calloc(bytes, 1);
  if (!zeros) throw std::bad_alloc();
  return torch::stable::from_blob(zeros, {count, height, width}, {height * width, width, 1}, like.device(),
                                  ScalarType::Bool, [](void* memory) { std::free(memory); });
}

}  // namespace polarmask
