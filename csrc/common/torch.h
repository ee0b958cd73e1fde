// The one door to libtorch: its stable ABI, under the names that the host functions use.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>

#include "half.h"

namespace polarmask {

using torch::headeronly::ScalarType;
using torch::stable::parallel_for;
using torch::stable::Tensor;

// Calls body.operator()<T>() with the C++ type of a geometry tensor: double, or float for the rest (Python has promoted
// it).
template <class Body>
decltype(auto) dispatch_float(ScalarType dtype, Body&& body) {
  if (dtype == ScalarType::Double) return body.template operator()<double>();
  return body.template operator()<float>();
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

// SumOf of its elements.
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
