// The half precisions as storage; arithmetic happens in float. torch's own types would bring torch into the kernels.
#pragma once

#include "common/host_device.h"

namespace polarmask {

namespace detail {

PM_HD uint32_t bits_of(float value) { return __builtin_bit_cast(uint32_t, value); }
PM_HD float float_of(uint32_t bits) { return __builtin_bit_cast(float, bits); }

PM_HD float from_half(uint16_t half) {
#ifdef __CUDA_ARCH__
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
  return value;
#else
  const uint32_t magnitude = (half & 0x7fffu) << 13;
  uint32_t bits = bits_of(float_of(magnitude) * 0x1p112f);  // another bias; exact, subnormals included
  if (magnitude >= 0x7c00u << 13) bits |= 0x7f800000u;      // infinity and NaN
  return float_of(bits | (half & 0x8000u) << 16);
#endif
}

// To the nearest, ties to even.
PM_HD uint16_t to_half(float value) {
#ifdef __CUDA_ARCH__
  uint16_t half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
#else
  const uint32_t sign = bits_of(value) >> 16 & 0x8000u, magnitude = bits_of(value) & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= bits_of(65520.0f)) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude < bits_of(0x1p-14f))  // subnormal: half an ulp of 0.5 is where its last bit lies, so the sum rounds
    return static_cast<uint16_t>(sign | (bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f)));
  const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1);
  return static_cast<uint16_t>(sign | (rounded - (112u << 23)) >> 13);
#endif
}

PM_HD uint16_t to_bfloat16(float value) {
  const uint32_t bits = bits_of(value);
  if (value != value) return 0x7fc0;
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

}  // namespace detail

struct Half {
  uint16_t bits;
  Half() = default;
  PM_HD explicit Half(float value) : bits(detail::to_half(value)) {}
  PM_HD explicit operator float() const { return detail::from_half(bits); }
};

struct BFloat16 {
  uint16_t bits;
  BFloat16() = default;
  PM_HD explicit BFloat16(float value) : bits(detail::to_bfloat16(value)) {}
  PM_HD explicit operator float() const { return detail::float_of(static_cast<uint32_t>(bits) << 16); }
};

// The type in which values of T are summed up.
template <class T>
struct SumType {
  using type = float;
};
template <>
struct SumType<double> {
  using type = double;
};
template <class T>
using SumOf = typename SumType<T>::type;

}  // namespace polarmask
