// The one way to launch a kernel. cudaLaunchKernelEx, not <<<>>>: the emulator of tests/simt supplies it too.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace polarmask {

constexpr int kWarpSize = 32;
constexpr size_t kUnaskedShared = 48 * 1024;  // bytes of dynamic shared memory that a kernel gets without asking
#ifdef __CUDACC__
constexpr int64_t kMaxBlocks = 1 << 20;  // kernels stride over the rest: more blocks would only start slower
#else
constexpr int64_t kMaxBlocks = 1 << 10;  // emulated, so that tests see them stride
#endif

template <class... Params>
cudaError_t launch(void (*kernel)(Params...), int64_t blocks, unsigned threads, size_t shared_bytes,
                   cudaStream_t stream, std::type_identity_t<Params>... args) {
  if (blocks == 0) return cudaSuccess;
  if (shared_bytes > kUnaskedShared) {
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return error;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(std::min(blocks, kMaxBlocks)));
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, args...);
}

// The dynamic shared memory of the block, aligned to 16 bytes.
template <class T>
__device__ T* dynamic_shared() {
#ifdef __CUDACC__
  extern __shared__ __align__(16) unsigned char bytes[];
  return reinterpret_cast<T*>(bytes);
#else
  return static_cast<T*>(simt::dynamic_shared());
#endif
}

}  // namespace polarmask
