// A stand-in for <cuda_runtime.h>: g++ and clang++ compile CUDA sources with it as plain C++. It holds what the kernels
// of this project use and what is near to it; simt.h runs them.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "simt.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1
#endif
#endif

// ---- the language

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
#define __shared__ static  // blocks run one after another

#define SIMT_VECTOR(T, name)                                                         \
  struct alignas(2 * sizeof(T)) name##2 { T x, y; };                                 \
  struct name##3 { T x, y, z; };                                                     \
  struct alignas(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)) name##4 { T x, y, z, w; }; \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }                         \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                 \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
SIMT_VECTOR(float, float)
SIMT_VECTOR(double, double)
SIMT_VECTOR(int, int)
SIMT_VECTOR(unsigned, uint)
SIMT_VECTOR(unsigned char, uchar)
#undef SIMT_VECTOR

extern const uint3 threadIdx, blockIdx;  // constant for each fiber: simt.cpp sets them when it switches
extern const dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace simt {

template <class T>
uint64_t bits_of(T value) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}

template <class T>
T value_of(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <class To, class From>
To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  return value_of<To>(bits_of(from));
}

template <class T>
T shuffle(unsigned mask, T value, int source, Site site) {
  return value_of<T>(meet_warp(mask, Meeting::kShuffle, bits_of(value), static_cast<unsigned>(source), site));
}

}  // namespace simt

// ---- barriers, votes, shuffles: default arguments know the line of the call

#define SIMT_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(SIMT_HERE) { simt::meet_block(0, {file, line, "__syncthreads"}); }
inline int __syncthreads_count(int holds, SIMT_HERE) {
  return static_cast<int>(simt::meet_block(holds != 0, {file, line, "__syncthreads_count"}));
}
inline int __syncthreads_or(int holds, SIMT_HERE) {
  return simt::meet_block(holds != 0, {file, line, "__syncthreads_or"}) != 0;
}
inline int __syncthreads_and(int holds, SIMT_HERE) {
  return simt::meet_block(holds == 0, {file, line, "__syncthreads_and"}) == 0;
}
inline void __syncwarp(unsigned mask = ~0u, SIMT_HERE) {
  simt::meet_warp(mask, simt::Meeting::kSync, 0, 0, {file, line, "__syncwarp"});
}
inline unsigned __ballot_sync(unsigned mask, int holds, SIMT_HERE) {
  const simt::Site site{file, line, "__ballot_sync"};
  return static_cast<unsigned>(simt::meet_warp(mask, simt::Meeting::kBallot, holds != 0, 0, site));
}
inline int __any_sync(unsigned mask, int holds, SIMT_HERE) {
  return simt::meet_warp(mask, simt::Meeting::kBallot, holds != 0, 0, {file, line, "__any_sync"}) != 0;
}
inline int __all_sync(unsigned mask, int holds, SIMT_HERE) {
  return simt::meet_warp(mask, simt::Meeting::kBallot, holds == 0, 0, {file, line, "__all_sync"}) == 0;
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value, SIMT_HERE) {
  const simt::Site site{file, line, "__match_any_sync"};
  return static_cast<unsigned>(simt::meet_warp(mask, simt::Meeting::kMatch, simt::bits_of(value), 0, site));
}
template <class T>
T __shfl_sync(unsigned mask, T value, int from, int width = warpSize, SIMT_HERE) {
  const int segment = static_cast<int>(simt::lane()) & ~(width - 1);
  return simt::shuffle(mask, value, segment + (from & (width - 1)), {file, line, "__shfl_sync"});
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = warpSize, SIMT_HERE) {
  const int self = static_cast<int>(simt::lane()), from = self - static_cast<int>(by);
  return simt::shuffle(mask, value, from < (self & ~(width - 1)) ? self : from, {file, line, "__shfl_up_sync"});
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = warpSize, SIMT_HERE) {
  const int self = static_cast<int>(simt::lane()), from = self + static_cast<int>(by);
  return simt::shuffle(mask, value, from > (self | (width - 1)) ? self : from, {file, line, "__shfl_down_sync"});
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int by, int width = warpSize, SIMT_HERE) {
  const int self = static_cast<int>(simt::lane()), from = self ^ by;
  return simt::shuffle(mask, value, from > (self | (width - 1)) ? self : from, {file, line, "__shfl_xor_sync"});
}
unsigned __activemask() = delete;  // what it returns depends on the hardware's scheduling
inline void __threadfence() {}
inline void __threadfence_block() {}

// ---- atomics: there is one thread of the operating system, so a plain update is atomic; the race detector is told

#define SIMT_ATOMIC __attribute__((noinline, no_sanitize("thread")))  // its return address is in the kernel

namespace simt {

template <class T, class Change>
__attribute__((always_inline, no_sanitize("thread"))) inline T update(T* address, Change change) {
  yield();
#if defined(__SANITIZE_THREAD__)
  touch(address, sizeof(T), true, true, __builtin_return_address(0));
#endif
  const T old = *address;
  *address = change(old);
  return old;
}

}  // namespace simt

template <class T>
SIMT_ATOMIC T atomicAdd(T* address, std::type_identity_t<T> value) {
  return simt::update(address, [=](T old) { return static_cast<T>(old + value); });
}
template <class T>
SIMT_ATOMIC T atomicSub(T* address, std::type_identity_t<T> value) {
  return simt::update(address, [=](T old) { return static_cast<T>(old - value); });
}
template <class T>
SIMT_ATOMIC T atomicMin(T* address, std::type_identity_t<T> value) {
  return simt::update(address, [=](T old) { return std::min(old, value); });
}
template <class T>
SIMT_ATOMIC T atomicMax(T* address, std::type_identity_t<T> value) {
  return simt::update(address, [=](T old) { return std::max(old, value); });
}
template <class T>
SIMT_ATOMIC T atomicAnd(T* address, std::type_identity_t<T> value) {
  return simt::update(address, [=](T old) { return old & value; });
}
template <class T>
SIMT_ATOMIC T atomicOr(T* address, std::type_identity_t<T> value) {
  return simt::update(address, [=](T old) { return old | value; });
}
template <class T>
SIMT_ATOMIC T atomicXor(T* address, std::type_identity_t<T> value) {
  return simt::update(address, [=](T old) { return old ^ value; });
}
template <class T>
SIMT_ATOMIC T atomicExch(T* address, std::type_identity_t<T> value) {
  return simt::update(address, [=](T) { return value; });
}
template <class T>
SIMT_ATOMIC T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return simt::update(address, [=](T old) { return old == expected ? value : old; });
}

// ---- arithmetic

template <class T>
T __ldg(const T* address) {
  return *address;
}
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __ffsll(long long value) { return __builtin_ffsll(value); }
inline int __clz(int value) { return value ? __builtin_clz(static_cast<unsigned>(value)) : 32; }
inline int __clzll(long long value) { return value ? __builtin_clzll(static_cast<unsigned long long>(value)) : 64; }
inline int __float_as_int(float value) { return simt::bit_cast<int>(value); }
inline unsigned __float_as_uint(float value) { return simt::bit_cast<unsigned>(value); }
inline float __int_as_float(int value) { return simt::bit_cast<float>(value); }
inline float __uint_as_float(unsigned value) { return simt::bit_cast<float>(value); }
inline long long __double_as_longlong(double value) { return simt::bit_cast<long long>(value); }
inline double __longlong_as_double(long long value) { return simt::bit_cast<double>(value); }
using std::max;
using std::min;

// ---- launching

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  void* attrs = nullptr;
  unsigned numAttrs = 0;
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

namespace simt {

// As on hardware: 48 KB of dynamic shared memory, more (up to 227 KB, Hopper's) for a kernel that asked for it.
size_t& dynamic_shared_limit(const void* kernel);
cudaError_t check_launch(const cudaLaunchConfig_t& config, size_t shared_limit);

}  // namespace simt

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int bytes) {
  if (bytes < 0 || bytes > 227 * 1024) return cudaErrorInvalidValue;
  simt::dynamic_shared_limit(reinterpret_cast<const void*>(kernel)) = static_cast<size_t>(bytes);
  return cudaSuccess;
}

template <class... Params, class... Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Params...), Args&&... args) {
  const size_t limit = simt::dynamic_shared_limit(reinterpret_cast<const void*>(kernel));
  const cudaError_t error = simt::check_launch(*config, limit);
  if (error != cudaSuccess) return error;
  simt::run(config->gridDim, config->blockDim, config->dynamicSmemBytes, [&] { kernel(Params(args)...); });
  return cudaSuccess;
}
