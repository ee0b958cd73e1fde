// Maths for one number that runs for several side by side: what chooses by select() and has no branches takes float,
// double, or a vector of kWidth of them. The width is fixed, so that every level of isa.h makes the same bits, of sums
// too: a narrow machine needs several instructions for one of ours.
#pragma once

#include <type_traits>

#include "host_device.h"
#ifndef __CUDACC__
#include "lanes.h"
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
  if constexpr (std::is_arithmetic_v<V>) {
    return mask ? yes : no;
  } else {
    return (V)((mask & (Mask)yes) | (~mask & (Mask)no));
  }
}

// The same number in every lane.
template <class V>
PM_HD constexpr V all(NumberOf<V> number) {
  return V{} + number;
}

#ifndef __CUDACC__

// Halves upon halves: always the same order.
template <class V>
inline NumberOf<V> sum_of(V v) {
  const V half = v + __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3);
  return (half[0] + half[2]) + (half[1] + half[3]);
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
