// Basics for host and device code. Includes nothing of torch or CUDA.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define PM_HD __host__ __device__ __forceinline__
#else
#define PM_HD inline
#endif

namespace polarmask {

PM_HD constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// std::min and std::max are host functions. NaN in `b` is passed over: the comparison with it is false.
template <class T>
PM_HD constexpr T min_of(T a, T b) {
  return b < a ? b : a;
}
template <class T>
PM_HD constexpr T max_of(T a, T b) {
  return a < b ? b : a;
}

template <class T>
PM_HD constexpr T absolute(T value) {
  return value < 0 ? -value : value;
}

// Returns true unless the value is NaN or infinite. Uses no libm.
template <class T>
PM_HD constexpr bool is_finite(T value) {
  return value - value == T(0);
}

}  // namespace polarmask
