// Maths for one number that runs for several side by side: what chooses by select() and has no branches takes float,
// double, or a vector of kWidth of them. The width is fixed, so that every level of isa.h makes the same bits, of sums
// too: a narrow machine needs several instructions for one of ours.
#pragma once

#include <limits>
#include <type_traits>

#include "common/host_device.h"
#ifndef __CUDACC__
#include "common/lanes.h"
#endif

namespace polarmask {

constexpr int kWidth = 8;  // the floats of AVX2; 36 rays are four and a half

#ifndef __CUDACC__
template <class T>
using Wide = Lanes<T, kWidth * sizeof(T)>;
#endif

namespace detail {

template <class T>
struct Lane {
  using Number = T;
  using Bits = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  using Unsigned = std::make_unsigned_t<Bits>;
};

#ifndef __CUDACC__
template <class T>
struct WideLane {
  using Number = T;
  using Bits = Wide<typename Lane<T>::Bits>;
  using Unsigned = Wide<typename Lane<T>::Unsigned>;
};
template <>
struct Lane<Wide<float>> : WideLane<float> {};
template <>
struct Lane<Wide<double>> : WideLane<double> {};
#endif

}  // namespace detail

template <class V>
using NumberOf = typename detail::Lane<V>::Number;
template <class V>
using BitsOf = typename detail::Lane<V>::Bits;
template <class V>
using UnsignedOf = typename detail::Lane<V>::Unsigned;

// mask ? yes : no, lane by lane; the mask is what a comparison gives.
template <class Mask, class V>
PM_HD V select(Mask mask, V yes, V no) {
  return mask ? yes : no;
}

// The same number in every lane.
template <class V>
PM_HD constexpr V all(NumberOf<V> number) {
  return V{} + number;
}

// Without its sign.
template <class V>
PM_HD V magnitude_of(V v) {
  constexpr auto kAllButSign = std::numeric_limits<BitsOf<NumberOf<V>>>::max();
  return __builtin_bit_cast(V, __builtin_bit_cast(BitsOf<V>, v) & kAllButSign);
}

#ifndef __CUDACC__

// The sum of each of kWidth vectors, side by side: adding up a vector alone leaves most lanes idle. Halves upon halves,
// always in the same order.
template <class V>
inline V sums_of(const V (&v)[kWidth]) {
  V halves[4], pairs[2];
  for (int i = 0; i < 4; ++i)
    halves[i] = __builtin_shufflevector(v[i], v[i + 4], 0, 1, 2, 3, 8, 9, 10, 11) +
                __builtin_shufflevector(v[i], v[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  for (int i = 0; i < 2; ++i)
    pairs[i] = __builtin_shufflevector(halves[2 * i], halves[2 * i + 1], 0, 1, 8, 9, 4, 5, 12, 13) +
               __builtin_shufflevector(halves[2 * i], halves[2 * i + 1], 2, 3, 10, 11, 6, 7, 14, 15);
  return __builtin_shufflevector(pairs[0], pairs[1], 0, 2, 8, 10, 4, 6, 12, 14) +
         __builtin_shufflevector(pairs[0], pairs[1], 1, 3, 9, 11, 5, 7, 13, 15);
}

// body(k, which) for the numbers k … k + kWidth − 1 of count ≥ kWidth; `which` masks those that no call had before: the
// last lanes overlap the ones before them, since reading or writing a part of a vector is slow.
template <class V, class Body>
inline void for_vectors(int64_t count, Body&& body) {
  const int64_t whole = count / kWidth * kWidth;
  for (int64_t k = 0; k < whole; k += kWidth) body(k, std::true_type{});
  if (whole == count) return;
  const auto known = static_cast<BitsOf<NumberOf<V>>>(kWidth - (count - whole));
  body(count - kWidth, BitsOf<V>{0, 1, 2, 3, 4, 5, 6, 7} >= known);
}

// Lanes that `which` does not name become `rest`.
template <class Mask, class V>
inline V only(Mask which, V v, NumberOf<V> rest) {
  if constexpr (std::is_same_v<Mask, std::true_type>) {
    return v;
  } else {
    return select(which, v, all<V>(rest));
  }
}

#endif

}  // namespace polarmask
