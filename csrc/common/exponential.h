// exp and log1p in plain arithmetic of one order, for numbers and vectors of them: no libm, so that CPU, emulator and
// GPU make the same bits, and loops over them are vectorised. Within 2 ulp.
#pragma once

#include "common/simd.h"

namespace polarmask {

namespace detail {

// What differs between float and double. Sums with `round` have an integer in their low bits.
template <class T>
struct Binary;
template <>
struct Binary<float> {
  static constexpr int mantissa = 23, bias = 127;
  static constexpr float round = 0x1.8p23f;
  static constexpr float ln2_high = 0x1.62e4p-1f, ln2_low = 1.42860682030941723e-6f;  // n · high is exact
  static constexpr float lowest = -104, highest = 89;                                 // exp is 0 and infinite there
  static constexpr int exp_terms = 7, log_terms = 5;                                  // the next is below ulp / 20
  static constexpr int32_t sqrt_half = 0x3f3504f3;
};
template <>
struct Binary<double> {
  static constexpr int mantissa = 52, bias = 1023;
  static constexpr double round = 0x1.8p52;
  static constexpr double ln2_high = 0x1.62e42feep-1, ln2_low = 1.90821492927058770e-10;
  static constexpr double lowest = -746, highest = 710;
  static constexpr int exp_terms = 13, log_terms = 11;
  static constexpr int64_t sqrt_half = 0x3fe6a09e667f3bcd;
};

// 2ⁿ, n an integer that keeps it normal.
template <class V>
PM_HD V two_to(V n) {
  using B = Binary<NumberOf<V>>;
  const BitsOf<V> bits = __builtin_bit_cast(BitsOf<V>, n + B::round) - __builtin_bit_cast(BitsOf<V>, all<V>(B::round));
  return __builtin_bit_cast(V, (bits + B::bias) << B::mantissa);
}

// Σ aᵢ xⁱ by Horner's rule, the coefficients computed by the compiler.
template <int i, int terms, class V, class Coefficient>
PM_HD V series(V x, Coefficient coefficient) {
  constexpr auto a = static_cast<NumberOf<V>>(Coefficient{}(i));
  if constexpr (i + 1 == terms) {
    return all<V>(a);
  } else {
    return a + x * series<i + 1, terms>(x, coefficient);
  }
}

struct InverseFactorial {
  PM_HD constexpr double operator()(int n) const {
    double product = 1;
    for (int k = 2; k <= n; ++k) product *= k;
    return 1 / product;
  }
};

struct InverseOdd {
  PM_HD constexpr double operator()(int n) const { return 1.0 / (2 * n + 1); }
};

}  // namespace detail

template <class V>
PM_HD V exp_of(V x) {
  using Number = NumberOf<V>;
  using B = detail::Binary<Number>;
  x = select(x < B::lowest, all<V>(B::lowest), x);
  x = select(x > B::highest, all<V>(B::highest), x);
  const V n = (x * static_cast<Number>(1.44269504088896340736) + B::round) - B::round;
  const V r = (x - n * B::ln2_high) - n * B::ln2_low;  // |r| ≤ ln 2 / 2
  const V power = detail::series<0, B::exp_terms + 1>(r, detail::InverseFactorial{});
  const V half = (n * Number(0.5) + B::round) - B::round;  // in two steps: the result may be subnormal, or infinite
  return power * detail::two_to(half) * detail::two_to(n - half);
}

// For x ≥ 0.
template <class V>
PM_HD V log1p_of(V x) {
  using Number = NumberOf<V>;
  using Bits = BitsOf<V>;
  using B = detail::Binary<Number>;
  const V u = 1 + x;
  const V lost = select(u < 2, x - (u - 1), 1 - (u - x));  // by the rounding of u
  // u = 2ⁿ m, √½ ≤ m < √2
  const Bits above = __builtin_bit_cast(Bits, u) - B::sqrt_half;
  const auto exponent = __builtin_bit_cast(UnsignedOf<V>, above) >> B::mantissa;
  const V m =
      __builtin_bit_cast(V, __builtin_bit_cast(UnsignedOf<V>, __builtin_bit_cast(Bits, u)) - (exponent << B::mantissa));
  const V n =
      __builtin_bit_cast(V, __builtin_bit_cast(Bits, all<V>(B::round)) + __builtin_bit_cast(Bits, exponent)) - B::round;
  const V s = (m - 1) / (m + 1);  // log m = 2 artanh s
  const V log_m = 2 * s * detail::series<0, B::log_terms>(s * s, detail::InverseOdd{});
  const V result = n * B::ln2_high + (log_m + (n * B::ln2_low + lost / u));
  return select(x < static_cast<Number>(__builtin_inf()), result, x);
}

}  // namespace polarmask
