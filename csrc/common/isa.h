// Which vector instructions the CPU loops use: what every x86-64 has, AVX2 or AVX-512, chosen when the library is
// loaded. A loop is written once. with_isa() compiles it for each level and calls the best one:
//
//     parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
//       with_isa([&] { for (int64_t row = begin; row < end; ++row) … });
//     });
//
// Everything that is called in the body must be visible to the compiler: it is inlined, and vectorised anew. So
// parallel_for goes outside. Levels differ in speed only: nothing is contracted, and sums keep the order in which they
// are written. Sums over vectors are written with a fixed number of lanes, never the machine's.
#pragma once

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

// The emulator's AddressSanitizer makes do with the baseline: loops compiled three times take it minutes.
#if defined(__x86_64__) && defined(__GNUC__) && !(defined(POLARMASK_SIMT) && defined(__SANITIZE_ADDRESS__))
#define POLARMASK_ISA_LEVELS
#endif

namespace polarmask {

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

}  // namespace polarmask
