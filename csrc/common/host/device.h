// Where a host function's work is done: by its CPU loop or by its CUDA kernels, on a GPU or under the emulator of
// tests/simt.
#pragma once

#include <type_traits>

#include "common/host/check.h"
#ifdef POLARMASK_WITH_CUDA
#include <cuda_runtime_api.h>
#endif
#ifdef POLARMASK_SIMT
#include "simt.h"
#endif

namespace polarmask {

inline bool by_kernels([[maybe_unused]] const Tensor& tensor) {
#ifdef POLARMASK_SIMT
  return simt::emulating;
#else
  return tensor.is_cuda();
#endif
}

#ifdef POLARMASK_WITH_CUDA
// Waits for the device.
inline cudaError_t read_back(int64_t& value, const int64_t* from, cudaStream_t stream) {
  const cudaError_t error = cudaMemcpyAsync(&value, from, sizeof value, cudaMemcpyDeviceToHost, stream);
  return error == cudaSuccess ? cudaStreamSynchronize(stream) : error;
}
#endif

// Calls kernels(stream), which returns a cudaError_t, on the device of `tensor`. A generic lambda will do: without CUDA
// it is never compiled.
template <class Kernels>
void run_kernels([[maybe_unused]] const char* op, [[maybe_unused]] const Tensor& tensor,
                 [[maybe_unused]] Kernels&& kernels) {
#if defined(POLARMASK_SIMT)
  const cudaError_t error = kernels(cudaStream_t{});
  if (error != cudaSuccess) throw std::runtime_error(text_of(op, ": CUDA error: ", cudaGetErrorString(error)));
#elif defined(POLARMASK_WITH_CUDA)
  const torch::stable::accelerator::DeviceGuard guard(tensor.get_device());
  const auto stream = torch::stable::accelerator::getCurrentStream(tensor.get_device());
  STD_CUDA_CHECK(kernels(static_cast<cudaStream_t>(stream.nativeHandle())));
#else
  throw std::runtime_error(text_of(op, ": polarmask_ops was built without CUDA; rebuild it with POLARMASK_CUDA=1"));
#endif
}

// The same, or cpu().
template <class Cpu, class Kernels>
void run_on(const char* op, const Tensor& tensor, Cpu&& cpu, Kernels&& kernels) {
  if (!by_kernels(tensor)) return cpu();
  run_kernels(op, tensor, kernels);
}

// What CPU loops take that have no half precision: float in its place, in the same layout. Kernels read it as it is.
inline Tensor widened(const Tensor& tensor) {
  const bool half = tensor.scalar_type() == ScalarType::Half || tensor.scalar_type() == ScalarType::BFloat16;
  return half && !by_kernels(tensor) ? torch::stable::to(tensor, ScalarType::Float) : tensor;
}

inline std::optional<Tensor> widened(const std::optional<Tensor>& tensor) {
  if (!tensor) return tensor;
  return widened(*tensor);
}

// Whether a type comes to such loops.
template <class T>
constexpr bool kHasLoops = std::is_same_v<T, SumOf<T>>;

}  // namespace polarmask
