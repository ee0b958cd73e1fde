// Argument checks of the host functions. A failed one reaches Python as a ValueError (or an IndexError) that names the
// op, the argument, what was expected and what was got.
#pragma once

#include <array>
#include <cstdlib>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

#include "common/host/torch.h"
#include "common/polar.h"
#ifdef POLARMASK_SIMT
#include "simt.h"
#endif

namespace polarmask {

template <class... Parts>
std::string text_of(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  throw std::invalid_argument(text_of(parts...));
}

// A check that holds costs a branch: the parts become text in a failed one.
template <class... Parts>
void check(bool holds, const Parts&... parts) {
  if (!holds) [[unlikely]]
    fail(parts...);
}

template <class... Parts>
void check_index(bool holds, const Parts&... parts) {
  if (!holds) [[unlikely]]
    throw std::out_of_range(text_of(parts...));
}

// Parts of messages.
struct ShapeText {
  const Tensor& of;
};

struct DeviceText {
  const Tensor& of;
};

struct DtypeText {
  ScalarType of;
};

inline ShapeText shape_of(const Tensor& tensor) { return {tensor}; }
inline DeviceText device_of(const Tensor& tensor) { return {tensor}; }

inline std::ostream& operator<<(std::ostream& text, ShapeText shape) {
  const int64_t dim = shape.of.dim();
  text << '(';
  for (int64_t d = 0; d < dim; ++d) text << (d ? ", " : "") << shape.of.size(d);
  return text << (dim == 1 ? ",)" : ")");
}

inline std::ostream& operator<<(std::ostream& text, DeviceText device) {
  if (device.of.is_cuda()) return text << "cuda:" << int{device.of.get_device()};
  return text << (device.of.is_cpu() ? "cpu" : "another device");
}

// The name that torch has for it in Python.
inline std::ostream& operator<<(std::ostream& text, DtypeText dtype) {
  switch (dtype.of) {
    case ScalarType::Bool: return text << "bool";
    case ScalarType::Byte: return text << "uint8";
    case ScalarType::Char: return text << "int8";
    case ScalarType::Short: return text << "int16";
    case ScalarType::Int: return text << "int32";
    case ScalarType::Long: return text << "int64";
    case ScalarType::UInt16: return text << "uint16";
    case ScalarType::UInt32: return text << "uint32";
    case ScalarType::UInt64: return text << "uint64";
    case ScalarType::Half: return text << "float16";
    case ScalarType::BFloat16: return text << "bfloat16";
    case ScalarType::Float: return text << "float32";
    case ScalarType::Double: return text << "float64";
    default: return text << torch::headeronly::toString(dtype.of);
  }
}

inline void check_dim(const char* op, const char* name, const Tensor& tensor, int64_t dim, const char* shape) {
  check(tensor.dim() == dim, op, ": expected ", name, " of shape ", shape, ", got ", shape_of(tensor));
}

inline void check_size(const char* op, const char* name, const Tensor& tensor, int64_t dim, int64_t size,
                       const char* shape) {
  check(tensor.size(dim) == size, op, ": expected ", name, " of shape ", shape, " with size ", size, " in dimension ",
        dim, ", got ", shape_of(tensor));
}

inline void check_same_device(const char* op, const char* name, const Tensor& tensor, const char* other_name,
                              const Tensor& other) {
  check(tensor.is_cpu() == other.is_cpu() && tensor.get_device() == other.get_device(), op, ": expected ", name,
        " on the device of ", other_name, " (", device_of(other), "), got ", device_of(tensor));
}

// The dtypes that arguments may have. The ops read memory by them, so each op checks every tensor that it is given: the
// functions in Python have checked and promoted before, but torch.ops.polarmask can be called by anybody.
inline constexpr std::array kGeometry{ScalarType::Float, ScalarType::Double};  // of dispatch_float
inline constexpr std::array kAnyFloat{ScalarType::Half, ScalarType::BFloat16, ScalarType::Float,
                                      ScalarType::Double};  // of dispatch_any_float
inline constexpr std::array kFloat32{ScalarType::Float};
inline constexpr std::array kFloat64{ScalarType::Double};
inline constexpr std::array kInt32{ScalarType::Int};
inline constexpr std::array kInt64{ScalarType::Long};
inline constexpr std::array kUint8{ScalarType::Byte};
inline constexpr std::array kBool{ScalarType::Bool};
inline constexpr std::array kMask{ScalarType::Bool, ScalarType::Byte};  // bytes; what is not 0 is inside

template <size_t count>
void check_dtype(const char* op, const char* name, const Tensor& tensor, const std::array<ScalarType, count>& dtypes) {
  const ScalarType dtype = tensor.scalar_type();
  for (const ScalarType each : dtypes)
    if (each == dtype) return;
  std::ostringstream expected;
  for (size_t k = 0; k < count; ++k) expected << (k == 0 ? "" : k + 1 == count ? " or " : ", ") << DtypeText{dtypes[k]};
  fail(op, ": expected ", name, " of dtype ", expected.str(), ", got ", DtypeText{dtype});
}

inline void check_same_dtype(const char* op, const char* name, const Tensor& tensor, const char* other_name,
                             const Tensor& other) {
  check(tensor.scalar_type() == other.scalar_type(), op, ": expected ", name, " of the dtype of ", other_name, " (",
        DtypeText{other.scalar_type()}, "), got ", DtypeText{tensor.scalar_type()});
}

// An argument whose values are to be checked, on the CPU. Nothing where the kernels work: reading values would wait for
// them, and they take whatever comes; but with POLARMASK_CHECK=1 they are read there too.
inline std::optional<Tensor> values_to_check(const Tensor& tensor) {
  bool here = tensor.is_cpu();
#ifdef POLARMASK_SIMT
  here = !simt::emulating;
#endif
  if (!here) {
    const char* const variable = std::getenv("POLARMASK_CHECK");
    if (!variable || std::string_view(variable) != "1") return std::nullopt;
  }
  if (tensor.is_cpu()) return tensor;
  return torch::stable::to(tensor, torch::stable::Device(torch::headeronly::DeviceType::CPU));
}

// Offsets (N + 1,), contiguous, that divide `total` rows among N owners: from 0 to it, never falling.
inline void check_offsets(const char* op, const char* name, const Tensor& offsets, int64_t total) {
  check(offsets.dim() == 1 && offsets.size(0) >= 1, op, ": expected ", name, " of shape (N + 1,), got ",
        shape_of(offsets));
  check_dtype(op, name, offsets, kInt64);
  const std::optional<Tensor> values = values_to_check(offsets);
  if (!values) return;
  const int64_t* const at = values->const_data_ptr<int64_t>();
  const int64_t last = offsets.size(0) - 1;
  check(at[0] == 0 && at[last] == total, op, ": expected ", name, " to go from 0 to ", total, ", got ", at[0], " to ",
        at[last]);
  for (int64_t n = 0; n < last; ++n)
    check(at[n] <= at[n + 1], op, ": expected ", name, " not to fall, got ", at[n], ", ", at[n + 1], " at index ", n);
}

// The two tensors of polarmask_ops.Outlines, contiguous.
inline void check_outlines(const char* op, const Tensor& segments, const Tensor& offsets) {
  check_dim(op, "outlines.segments", segments, 2, "(S, 4)");
  check_size(op, "outlines.segments", segments, 1, 4, "(S, 4)");
  check_dtype(op, "outlines.segments", segments, kGeometry);
  check_same_device(op, "outlines.offsets", offsets, "outlines.segments", segments);
  check_offsets(op, "outlines.offsets", offsets, segments.size(0));
}

struct ImageSize {
  int64_t height, width;  // pixels, of which there are fewer than 2³¹
};

inline ImageSize checked_size(const char* op, int64_t height, int64_t width) {
  check(height >= 0 && width >= 0 && (width == 0 || height <= INT32_MAX / width), op,
        ": expected size (H, W) with H, W >= 0 and H * W < 2**31, got (", height, ", ", width, ")");
  return {height, width};
}

inline void check_num_rays(const char* op, int64_t num_rays) {
  check(num_rays >= kMinRays && num_rays <= kMaxRays, op, ": expected num_rays from ", kMinRays, " to ", kMaxRays,
        ", got ", num_rays);
}

}  // namespace polarmask
