// libtorch's stable ABI, under the names that the host functions use. No other header includes torch.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <vector>

#include "common/half.h"

namespace polarmask {

using torch::headeronly::ScalarType;
using torch::stable::parallel_for;
using torch::stable::Tensor;

// Its elements one after the other: nearly always the tensor itself. To ask the dispatcher for it, or for memory, takes
// longer than a small op works.
inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

inline std::optional<Tensor> as_contiguous(const std::optional<Tensor>& tensor) {
  if (!tensor) return tensor;
  return as_contiguous(*tensor);
}

// On the device of `like`, not initialised.
inline Tensor allocate(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef shape, ScalarType dtype) {
  std::vector<int64_t> strides(shape.size());
  int64_t stride = 1;
  for (size_t d = shape.size(); d-- > 0; stride *= std::max<int64_t>(shape[d], 1)) strides[d] = stride;
  int32_t device_type;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  AtenTensorHandle memory;
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(static_cast<int64_t>(shape.size()), shape.data(), strides.data(),
                               torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype)), device_type,
                               like.get_device_index(), &memory));
  return Tensor(memory);
}

inline Tensor allocate(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef shape) {
  return allocate(like, shape, like.scalar_type());
}

// Calls body.operator()<T>() with the C++ type of a geometry tensor. The op has checked its dtype before.
template <class Body>
decltype(auto) dispatch_float(ScalarType dtype, Body&& body) {
  switch (dtype) {
    case ScalarType::Float: return body.template operator()<float>();
    case ScalarType::Double: return body.template operator()<double>();
    default: throw std::logic_error("polarmask: an op has not checked the dtype of its argument");
  }
}

// The same with the half precisions, for ops that read them as they are.
template <class Body>
decltype(auto) dispatch_any_float(ScalarType dtype, Body&& body) {
  switch (dtype) {
    case ScalarType::Half: return body.template operator()<Half>();
    case ScalarType::BFloat16: return body.template operator()<BFloat16>();
    default: return dispatch_float(dtype, body);
  }
}

// The dtype in which its elements are summed up: SumOf as a ScalarType.
inline ScalarType sum_dtype(const Tensor& tensor) {
  return tensor.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// The elements of a tensor that may be missing. torch's typed accessors do not know our half precisions.
template <class T>
const T* data_of(const std::optional<Tensor>& tensor) {
  return tensor ? static_cast<const T*>(tensor->const_data_ptr()) : nullptr;
}

template <class T>
T* mutable_data_of(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

}  // namespace polarmask
