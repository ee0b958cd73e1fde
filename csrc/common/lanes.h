// Vectors that are written by hand, where the compiler makes none of a loop: lanes of numbers with the operators of
// one.
//
//     with_vectors([&](auto bytes) { using Floats = Lanes<float, bytes>; … });
//
// runs the body as with_isa() does, with the width of a register as a constant. Another width is slow, so it differs
// between levels; lanes must have nothing to do with each other.
#pragma once

#include <cstring>
#include <type_traits>

#include "common/isa.h"

// Inlined, no function takes or returns a vector.
#pragma GCC diagnostic ignored "-Wpsabi"

namespace polarmask {

namespace detail {

template <class T, int bytes>
struct Vector {
  typedef T type __attribute__((vector_size(bytes)));
};

}  // namespace detail

template <class T, int bytes>
using Lanes = typename detail::Vector<T, bytes>::type;

// The first of them; they need not be aligned.
template <class V>
[[gnu::always_inline]] inline V load(const void* from) {
  V lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

template <class V>
[[gnu::always_inline]] inline void store(void* to, const V& lanes) {
  std::memcpy(to, &lanes, sizeof lanes);
}

// number(0), number(1), …
template <class V, class Number>
[[gnu::always_inline]] inline V gather(Number&& number) {
  constexpr int kLanes = sizeof(V) / sizeof(V{}[0]);
  static_assert(kLanes == 2 || kLanes == 4);
  if constexpr (kLanes == 2)
    return V{number(0), number(1)};
  else
    return V{number(0), number(1), number(2), number(3)};
}

template <class Body>
void with_vectors(Body&& body) {
  if (chosen_isa.load(std::memory_order_relaxed) == Isa::kBaseline) return body(std::integral_constant<int, 16>{});
  with_isa([&] { body(std::integral_constant<int, 32>{}); });
}

}  // namespace polarmask
