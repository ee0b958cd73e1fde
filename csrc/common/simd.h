// SIMD for the CPU loops, and the maths that runs in it. Everything that is compiled for several instruction sets, and
// every vector type, intrinsic and shuffle helper, is in this file.
//
// 1. Maths for one number or for a vector. Functions that choose by select() and have no branches take float, double or
//    a vector of them: the CUDA kernels call them with numbers, the CPU loops with vectors.
// 2. Instruction sets. A loop is written once; with_isa() compiles it for each level and calls the best one:
//
//        parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
//          with_isa([&] { for (int64_t row = begin; row < end; ++row) … });
//        });
//
//    The body must be visible to the compiler, which inlines it and vectorises it for the level; so parallel_for goes
//    outside. Levels differ in speed only: nothing is contracted, and sums keep the order in which they are written.
// 3. Vectors written by hand, where the compiler does not vectorise a loop: Lanes<T, bytes> has the operators of a
//    number. Wide<T> has kWidth lanes on every machine: use it where lanes are added up, so that every level makes the
//    same bits. with_vectors() passes the width of the machine's registers: use it where lanes are independent.
#pragma once

#include <limits>
#include <type_traits>

#include "common/host_device.h"
#ifndef __CUDACC__
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

// Functions that take or return vectors are inlined, so that the calling convention for vectors does not matter.
#pragma GCC diagnostic ignored "-Wpsabi"
#endif

// The emulator's AddressSanitizer has the baseline only: compiling the loops three times takes it minutes.
#if defined(__x86_64__) && defined(__GNUC__) && !(defined(POLARMASK_SIMT) && defined(__SANITIZE_ADDRESS__))
#define POLARMASK_ISA_LEVELS
#endif

namespace polarmask {

// ---- 1. Numbers and vectors ----

constexpr int kWidth = 8;  // lanes of Wide: the floats of an AVX2 register

namespace detail {

template <class T>
struct Lane {
  using Number = T;
  using Bits = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  using Unsigned = std::make_unsigned_t<Bits>;
};

#ifndef __CUDACC__
template <class T, int bytes>
struct Vector {
  typedef T type __attribute__((vector_size(bytes)));
};

template <class V>
  requires requires(V v) { v[0]; }
struct Lane<V> {
  using Number = std::remove_cvref_t<decltype(V{}[0])>;
  using Bits = typename Vector<typename Lane<Number>::Bits, sizeof(V)>::type;
  using Unsigned = typename Vector<typename Lane<Number>::Unsigned, sizeof(V)>::type;
};
#endif

}  // namespace detail

// Of a vector: its numbers, and vectors of integers of their size. Of a number: itself, and integers of its size.
template <class V>
using NumberOf = typename detail::Lane<V>::Number;
template <class V>
using BitsOf = typename detail::Lane<V>::Bits;
template <class V>
using UnsignedOf = typename detail::Lane<V>::Unsigned;

// mask ? yes : no, lane by lane; the mask is the result of a comparison.
template <class Mask, class V>
PM_HD V select(Mask mask, V yes, V no) {
  return mask ? yes : no;
}

// The same number in every lane.
template <class V>
PM_HD constexpr V all(NumberOf<V> number) {
  return V{} + number;
}

// The absolute value: clears the sign bit, of NaN and -0 too.
template <class V>
PM_HD V magnitude_of(V v) {
  constexpr auto kAllButSign = std::numeric_limits<BitsOf<NumberOf<V>>>::max();
  return __builtin_bit_cast(V, __builtin_bit_cast(BitsOf<V>, v) & kAllButSign);
}

#ifndef __CUDACC__

// ---- 2. Instruction sets ----

enum class Isa { kBaseline, kAvx2, kAvx512 };
constexpr std::string_view kIsaNames[] = {"baseline", "avx2", "avx512"};  // by their numbers

// The best that this machine has.
inline Isa best_isa() {
#ifdef POLARMASK_ISA_LEVELS
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    return Isa::kAvx512;
  if (__builtin_cpu_supports("avx2")) return Isa::kAvx2;
#endif
  return Isa::kBaseline;
}

inline Isa parse_isa(std::string_view name) {
  for (const Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512}) {
    if (name != kIsaNames[static_cast<int>(isa)]) continue;
    if (isa <= best_isa()) return isa;
    throw std::invalid_argument("POLARMASK_ISA: this machine has no " + std::string(name));
  }
  throw std::invalid_argument("POLARMASK_ISA: expected baseline, avx2 or avx512, got \"" + std::string(name) + '"');
}

// Its initial value is the machine's best; bindings.cpp reads POLARMASK_ISA.
inline std::atomic<Isa> chosen_isa = best_isa();

namespace detail {

#ifdef POLARMASK_ISA_LEVELS
template <class Body>
__attribute__((target("avx2,bmi,bmi2,lzcnt,popcnt"), flatten, noinline)) void run_avx2(Body& body) {
  body();
}
template <class Body>
__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,bmi,bmi2,lzcnt,popcnt,prefer-vector-width=512"), flatten,
               noinline)) void
run_avx512(Body& body) {
  body();
}
#endif

}  // namespace detail

template <class Body>
void with_isa(Body&& body) {
#ifdef POLARMASK_ISA_LEVELS
  switch (chosen_isa.load(std::memory_order_relaxed)) {
    case Isa::kAvx512: return detail::run_avx512(body);
    case Isa::kAvx2: return detail::run_avx2(body);
    case Isa::kBaseline: break;
  }
#endif
  body();
}

// ---- 3. Vectors ----

template <class T, int bytes>
using Lanes = typename detail::Vector<T, bytes>::type;
template <class T>
using Wide = Lanes<T, kWidth * sizeof(T)>;

// Calls body(bytes) as with_isa() does, with the width of a register as a constant. On the baseline level that is 16:
// wider vectors are slow there.
template <class Body>
void with_vectors(Body&& body) {
  if (chosen_isa.load(std::memory_order_relaxed) == Isa::kBaseline) return body(std::integral_constant<int, 16>{});
  with_isa([&] { body(std::integral_constant<int, 32>{}); });
}

// A vector from memory of any alignment.
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

// The vector {number(0), number(1), …} of two or four lanes.
template <class V, class Number>
[[gnu::always_inline]] inline V gather(Number&& number) {
  constexpr int kLanes = sizeof(V) / sizeof(V{}[0]);
  static_assert(kLanes == 2 || kLanes == 4);
  if constexpr (kLanes == 2)
    return V{number(0), number(1)};
  else
    return V{number(0), number(1), number(2), number(3)};
}

// The larger and the smaller of two vectors, lane by lane. NaN in `b` is ignored.
template <class V>
[[gnu::always_inline]] inline V larger_of(const V& a, const V& b) {
  return a < b ? b : a;
}
template <class V>
[[gnu::always_inline]] inline V smaller_of(const V& a, const V& b) {
  return b < a ? b : a;
}

// Lane k of the result is the sum of the lanes of v[k]. Always adds in the same order: halves, then halves of these.
// Summing kWidth vectors at once keeps all lanes busy.
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

// Calls body(k, which) for the numbers k, …, k + kWidth - 1 of count ≥ kWidth. The last call overlaps the one before
// it, since reading or writing a part of a vector is slow; `which` masks the numbers that no earlier call had.
template <class V, class Body>
inline void for_vectors(int64_t count, Body&& body) {
  const int64_t whole = count / kWidth * kWidth;
  for (int64_t k = 0; k < whole; k += kWidth) body(k, std::true_type{});
  if (whole == count) return;
  const auto known = static_cast<BitsOf<NumberOf<V>>>(kWidth - (count - whole));
  body(count - kWidth, BitsOf<V>{0, 1, 2, 3, 4, 5, 6, 7} >= known);
}

// v where `which` is set, `rest` elsewhere.
template <class Mask, class V>
inline V only(Mask which, V v, NumberOf<V> rest) {
  if constexpr (std::is_same_v<Mask, std::true_type>) {
    return v;
  } else {
    return select(which, v, all<V>(rest));
  }
}

// The lanes 0, …, 7 of a mask of 8 lanes of 32 bits, as the bits of a number.
inline uint32_t bits_of_mask(const Lanes<int32_t, 32>& mask) {
  const Lanes<int32_t, 32> bits = mask & Lanes<int32_t, 32>{1, 2, 4, 8, 16, 32, 64, 128};
  const auto low = __builtin_shufflevector(bits, bits, 0, 1, 2, 3);
  const auto high = __builtin_shufflevector(bits, bits, 4, 5, 6, 7);
  const auto pairs = (Lanes<int64_t, 16>)(low | high);
  const int64_t both = pairs[0] | pairs[1];
  return static_cast<uint32_t>(both | both >> 32) & 0xff;
}

// Bit k of the result is set where byte k of 64 is not 0.
inline uint64_t nonzero_bytes(const uint8_t* bytes) {
  uint64_t bits = 0;
#ifdef __SSE2__  // every x86-64 has it, and no vector operator makes a bit of each byte
  for (int k = 0; k < 4; ++k) {
    const __m128i sixteen = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes) + k);
    const auto zeros = static_cast<uint16_t>(_mm_movemask_epi8(_mm_cmpeq_epi8(sixteen, _mm_setzero_si128())));
    bits |= uint64_t{static_cast<uint16_t>(~zeros)} << (16 * k);
  }
#else
  constexpr uint64_t kLow = 0x7f7f7f7f7f7f7f7f;
  for (int k = 0; k < 8; ++k) {
    uint64_t word;
    std::memcpy(&word, bytes + 8 * k, 8);
    const uint64_t ones = ((((word & kLow) + kLow) | word) & ~kLow) >> 7;
    bits |= (ones * 0x0102040810204080 >> 56) << (8 * k);  // the product moves the bit of byte k to bit 56 + k
  }
#endif
  return bits;
}

// Returns true if all bytes of a block are 0. Reads kZeroBlock bytes at the speed of memory.
using ZeroWords = Lanes<uint64_t, 32>;
constexpr int64_t kZeroBlock = 8 * sizeof(ZeroWords);
template <class Word>
[[gnu::always_inline]] inline bool is_zero_block(Word&& word) {
  const ZeroWords any = ((word(0) | word(1)) | (word(2) | word(3))) | ((word(4) | word(5)) | (word(6) | word(7)));
  return ((any[0] | any[1]) | (any[2] | any[3])) == 0;
}

#endif

}  // namespace polarmask
