// Registers polarmask::polar_iou, its backward and double backward, and polarmask::polar_centerness.
// The maths is in polar_iou.h, the CPU loops are in cpu/loops.h.
#include "ops/polar_iou/polar_iou.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include "common/host/check.h"
#include "common/host/device.h"
#include "common/host/huge_pages.h"
#include "common/host/torch.h"
#include "ops/polar_iou/cpu/loops.h"

namespace polarmask::polar_iou {

#ifdef POLARMASK_WITH_CUDA
template <class T>
cudaError_t launch_polar_iou(const PolarIouParams<T>&, cudaStream_t);
template <class T>
cudaError_t launch_polar_iou_backward(const PolarIouBackwardParams<T>&, cudaStream_t);
template <class T>
cudaError_t launch_polar_iou_double_backward(const PolarIouDoubleBackwardParams<T>&, cudaStream_t);
template <class T>
cudaError_t launch_polar_centerness(const PolarCenternessParams<T>&, cudaStream_t);
#endif

namespace {

// A gradient in the dtype of what it is the gradient of.
Tensor as_given(const Tensor& gradient, const Tensor& given) {
  return gradient.scalar_type() == given.scalar_type() ? gradient : torch::stable::to(gradient, given.scalar_type());
}

// A matrix, or a batch of matrices whose rows are counted on: (B, N, R) are B · N rows.
template <class T>
Rays<T> rays_of(const std::optional<Tensor>& tensor) {
  if (!tensor) return no_rays_given<T>();
  auto* const data = static_cast<T*>(tensor->mutable_data_ptr());
  const int64_t last = tensor->dim() - 1, rows = tensor->size(last - 1);
  const int64_t row_stride = tensor->stride(last - 1), ray_stride = tensor->stride(last);
  if (last == 1) return {data, 0, row_stride, ray_stride, std::max(rows, int64_t{1})};
  return {data, tensor->stride(0), row_stride, ray_stride, std::max(rows, int64_t{1})};
}

std::vector<int64_t> rows_of(const Tensor& rays) {
  std::vector<int64_t> shape;
  for (int64_t d = 0; d + 1 < rays.dim(); ++d) shape.push_back(rays.size(d));
  return shape;
}

int64_t num_rows(const Tensor& rays) { return rays.dim() == 3 ? rays.size(0) * rays.size(1) : rays.size(0); }

bool same_shape(const Tensor& a, const Tensor& b, int64_t dims) {
  for (int64_t d = 0; d < dims; ++d)
    if (a.size(d) != b.size(d)) return false;
  return true;
}

// A number for each row of pred, in the dtype of sums over them.
void check_rows(const char* op, const char* name, const Tensor& rows, const Tensor& pred) {
  check(rows.dim() == pred.dim() - 1 && same_shape(pred, rows, rows.dim()), op, ": expected ", name,
        " of shape (N,) or (B, N) with a number for each row of pred, ", shape_of(pred), ", got ", shape_of(rows));
  check_dtype(op, name, rows, std::array{sum_dtype(pred)});
  check_same_device(op, name, rows, "pred", pred);
}

void check_scalar(const char* op, const char* name, const Tensor& scalar, const Tensor& pred) {
  check_dim(op, name, scalar, 0, "()");
  check_dtype(op, name, scalar, std::array{sum_dtype(pred)});
  check_same_device(op, name, scalar, "pred", pred);
}

void check_like_pred(const char* op, const char* name, const Tensor& rays, const Tensor& pred) {
  check(rays.dim() == pred.dim() && same_shape(pred, rays, pred.dim()), op, ": expected ", name,
        " of the shape of pred, ", shape_of(pred), ", got ", shape_of(rays));
  check_same_dtype(op, name, rays, "pred", pred);
  check_same_device(op, name, rays, "pred", pred);
}

void check_rays(const char* op, const Tensor& pred, const Tensor& target, const std::optional<Tensor>& weight,
                int64_t power) {
  check(pred.dim() == 2 || pred.dim() == 3, op, ": expected pred of shape (N, R) or (B, N, R), got ", shape_of(pred));
  check_dtype(op, "pred", pred, kAnyFloat);
  check_like_pred(op, "target", target, pred);
  check(pred.size(pred.dim() - 1) >= 1, op, ": expected at least 1 ray, got pred of shape ", shape_of(pred));
  check(power == 1 || power == 2, op, ": expected power to be 1 or 2, got ", power);
  if (weight) check_rows(op, "weight", *weight, pred);
}

Reduction checked_reduction(const char* op, int64_t reduction) {
  check(reduction >= 0 && reduction <= 2, op, ": expected reduction to be 0, 1 or 2, got ", reduction);
  return static_cast<Reduction>(reduction);
}

// What the forward pass kept, handed back.
void check_sums(const char* op, const Tensor& sums, const Tensor& pred) {
  check_dim(op, "sums", sums, 2, "(N, 2)");
  check_size(op, "sums", sums, 0, num_rows(pred), "(N, 2)");
  check_size(op, "sums", sums, 1, 2, "(N, 2)");
  check_dtype(op, "sums", sums, kFloat64);
  check_same_device(op, "sums", sums, "pred", pred);
}

template <class T>
PolarIouInput<T> input_of(const Tensor& pred, const Tensor& target, const std::optional<Tensor>& weight, int64_t power,
                          bool log_pred, bool log) {
  return {
      .pred = rays_of<const T>(pred),
      .target = rays_of<const T>(target),
      .weight = data_of<SumOf<T>>(weight),
      .rows = num_rows(pred),
      .num_rays = pred.size(pred.dim() - 1),
      .power = power,
      .log_pred = log_pred,
      .log = log,
  };
}

// Fresh memory for a gradient, in the layout of what it is the gradient of.
Tensor gradient_of(const Tensor& rays, bool wanted = true) {
  if (!wanted) return allocate(rays, {0});
  Tensor gradient = torch::stable::empty_like(rays);
  prefer_huge_pages(gradient);
  return gradient;
}

using Result3 = std::tuple<Tensor, Tensor, Tensor>;
using Result4 = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// -> value (N,), (B, N) or (), sums (B · N, 2), divisor (), gradient of a reduced value by pred or empty
Result4 polar_iou(const Tensor& pred_in, const Tensor& target_in, const std::optional<Tensor>& weight_in,
                  const std::optional<Tensor>& avg_factor, int64_t power, bool log_pred, bool log, int64_t reduction_in,
                  bool with_gradient) {
  const char* op = log ? "polar_iou_loss" : "polar_iou";
  check_rays(op, pred_in, target_in, weight_in, power);
  if (avg_factor) check_scalar(op, "avg_factor", *avg_factor, pred_in);
  const Reduction reduction = checked_reduction(op, reduction_in);
  check(!with_gradient || reduction != Reduction::kNone, op, ": expected a reduction with the gradient, got none");
  const Tensor pred = widened(pred_in), target = widened(target_in);
  const int64_t rows = num_rows(pred);
  const std::optional<Tensor> weight = as_contiguous(weight_in);
  const ScalarType dtype = sum_dtype(pred);
  const std::vector<int64_t> shape = reduction == Reduction::kNone ? rows_of(pred) : std::vector<int64_t>{};
  Tensor value = allocate(pred, shape, dtype);
  Tensor sums = allocate(pred, {rows, 2}, ScalarType::Double);
  Tensor divisor = allocate(pred, {}, dtype);
  Tensor gradient = gradient_of(pred, with_gradient);
  const int64_t num_parts = by_kernels(pred) ? std::clamp(ceil_div(rows, kRowsPerPart), int64_t{1}, kMaxParts)
                                             : ceil_div(rows, kRowsPerBlock);
  const Tensor parts = allocate(pred, {num_parts, 2}, ScalarType::Double);
  dispatch_any_float(pred.scalar_type(), [&]<class T>() {
    const PolarIouParams<T> params{
        .in = input_of<T>(pred, target, weight, power, log_pred, log),
        .avg_factor = data_of<SumOf<T>>(avg_factor),
        .reduction = reduction,
        .sums = mutable_data_of<RowSums<double>>(sums),
        .value = mutable_data_of<SumOf<T>>(value),
        .divisor = mutable_data_of<SumOf<T>>(divisor),
        .parts = mutable_data_of<Totals>(parts),
        .num_parts = num_parts,
    };
    const PolarIouBackwardParams<T> ahead{
        .in = params.in,
        .sums = params.sums,
        .grad = nullptr,
        .reduced = true,
        .divisor = params.divisor,
        .mean = nullptr,
        .grad_pred = with_gradient ? rays_of<T>(gradient) : no_rays_given<T>(),
        .grad_target = no_rays_given<T>(),
        .grad_weight = nullptr,
    };
    const auto cpu = [&] {
      if constexpr (kHasLoops<T>) polar_iou_cpu(params, with_gradient ? &ahead : nullptr);
    };
    run_on(op, pred, cpu, [&](auto stream) { return launch_polar_iou(params, stream); });
    if (with_gradient && by_kernels(pred))
      run_kernels(op, pred, [&](auto stream) { return launch_polar_iou_backward(ahead, stream); });
  });
  return {value, sums, divisor, as_given(gradient, pred_in)};
}

// -> gradients of pred, target and weight, of their shapes; those not wanted are empty
Result3 polar_iou_backward(const Tensor& grad_in, const Tensor& pred_in, const Tensor& target_in,
                           const std::optional<Tensor>& weight_in, const Tensor& value, const Tensor& sums_in,
                           const Tensor& divisor, bool weights_divide, int64_t power, bool log_pred, bool log,
                           int64_t reduction_in, bool wants_pred, bool wants_target, bool wants_weight) {
  const char* op = "polar_iou_backward";
  check_rays(op, pred_in, target_in, weight_in, power);
  check_sums(op, sums_in, pred_in);
  check_scalar(op, "value", value, pred_in);
  check_scalar(op, "divisor", divisor, pred_in);
  const bool reduced = checked_reduction(op, reduction_in) != Reduction::kNone;
  reduced ? check_scalar(op, "grad", grad_in, pred_in) : check_rows(op, "grad", grad_in, pred_in);
  const Tensor pred = widened(pred_in), target = widened(target_in);
  const Tensor grad = as_contiguous(grad_in), sums = as_contiguous(sums_in);
  const std::optional<Tensor> weight = as_contiguous(weight_in);
  Tensor grad_pred = gradient_of(pred, wants_pred), grad_target = gradient_of(target, wants_target);
  Tensor grad_weight = allocate(pred, wants_weight ? rows_of(pred) : std::vector<int64_t>{0}, sum_dtype(pred));
  dispatch_any_float(pred.scalar_type(), [&]<class T>() {
    const PolarIouBackwardParams<T> params{
        .in = input_of<T>(pred, target, weight, power, log_pred, log),
        .sums = data_of<RowSums<double>>(sums),
        .grad = data_of<SumOf<T>>(grad),
        .reduced = reduced,
        .divisor = data_of<SumOf<T>>(divisor),
        .mean = weights_divide ? data_of<SumOf<T>>(value) : nullptr,
        .grad_pred = wants_pred ? rays_of<T>(grad_pred) : no_rays_given<T>(),
        .grad_target = wants_target ? rays_of<T>(grad_target) : no_rays_given<T>(),
        .grad_weight = wants_weight ? mutable_data_of<SumOf<T>>(grad_weight) : nullptr,
    };
    const auto cpu = [&] {
      if constexpr (kHasLoops<T>) polar_iou_backward_cpu(params);
    };
    run_on(op, pred, cpu, [&](auto stream) { return launch_polar_iou_backward(params, stream); });
  });
  return {as_given(grad_pred, pred_in), as_given(grad_target, target_in), grad_weight};
}

// The backward of the backward, row by row -> f' and the gradients by pred and target
Result3 polar_iou_double_backward(const std::optional<Tensor>& along_pred_in,
                                  const std::optional<Tensor>& along_target_in, const Tensor& row_scale_in,
                                  const Tensor& value_scale_in, const Tensor& pred_in, const Tensor& target_in,
                                  const Tensor& sums_in, int64_t power, bool log_pred, bool log) {
  const char* op = "polar_iou_double_backward";
  check_rays(op, pred_in, target_in, std::nullopt, power);
  check_sums(op, sums_in, pred_in);
  check_rows(op, "row_scale", row_scale_in, pred_in);
  check_rows(op, "value_scale", value_scale_in, pred_in);
  if (along_pred_in) check_like_pred(op, "along_pred", *along_pred_in, pred_in);
  if (along_target_in) check_like_pred(op, "along_target", *along_target_in, pred_in);
  const Tensor pred = widened(pred_in), target = widened(target_in);
  const std::optional<Tensor> along_pred = widened(along_pred_in), along_target = widened(along_target_in);
  const Tensor row_scale = as_contiguous(row_scale_in), value_scale = as_contiguous(value_scale_in);
  const Tensor sums = as_contiguous(sums_in);
  Tensor tangent = allocate(pred, rows_of(pred), sum_dtype(pred));
  Tensor grad_pred = gradient_of(pred), grad_target = gradient_of(target);
  dispatch_any_float(pred.scalar_type(), [&]<class T>() {
    const PolarIouDoubleBackwardParams<T> params{
        .in = input_of<T>(pred, target, std::nullopt, power, log_pred, log),
        .sums = data_of<RowSums<double>>(sums),
        .along_pred = rays_of<const T>(along_pred),
        .along_target = rays_of<const T>(along_target),
        .row_scale = data_of<SumOf<T>>(row_scale),
        .value_scale = data_of<SumOf<T>>(value_scale),
        .tangent = mutable_data_of<SumOf<T>>(tangent),
        .grad_pred = rays_of<T>(grad_pred),
        .grad_target = rays_of<T>(grad_target),
    };
    const auto cpu = [&] {
      if constexpr (kHasLoops<T>) polar_iou_double_backward_cpu(params);
    };
    run_on(op, pred, cpu, [&](auto stream) { return launch_polar_iou_double_backward(params, stream); });
  });
  return {tangent, as_given(grad_pred, pred_in), as_given(grad_target, target_in)};
}

Tensor polar_centerness(const Tensor& rays_in) {
  const char* op = "polar_centerness";
  check_dim(op, "rays", rays_in, 2, "(N, R)");
  check_dtype(op, "rays", rays_in, kAnyFloat);
  check(rays_in.size(1) >= 1, op, ": expected at least 1 ray, got rays of shape ", shape_of(rays_in));
  const Tensor rays = widened(rays_in);
  Tensor centerness = allocate(rays, {rays.size(0)}, sum_dtype(rays));
  dispatch_any_float(rays.scalar_type(), [&]<class T>() {
    const PolarCenternessParams<T> params{
        .rays = rays_of<const T>(rays),
        .rows = rays.size(0),
        .num_rays = rays.size(1),
        .centerness = mutable_data_of<SumOf<T>>(centerness),
    };
    const auto cpu = [&] {
      if constexpr (kHasLoops<T>) polar_centerness_cpu(params);
    };
    run_on(op, rays, cpu, [&](auto stream) { return launch_polar_centerness(params, stream); });
  });
  return centerness;
}

}  // namespace
}  // namespace polarmask::polar_iou

STABLE_TORCH_LIBRARY_FRAGMENT(polarmask, m) {
  m.set_python_module("polarmask_ops.polar_iou");
  m.def(
      "polar_iou(Tensor pred, Tensor target, Tensor? weight, Tensor? avg_factor, int power, bool log_pred, bool log, "
      "int reduction, bool with_gradient) -> (Tensor value, Tensor sums, Tensor divisor, Tensor gradient)");
  m.def(
      "polar_iou_backward(Tensor grad, Tensor pred, Tensor target, Tensor? weight, Tensor value, Tensor sums, Tensor "
      "divisor, bool weights_divide, int power, bool log_pred, bool log, int reduction, bool wants_pred, bool "
      "wants_target, bool wants_weight) -> (Tensor, Tensor, Tensor)");
  m.def(
      "polar_iou_double_backward(Tensor? along_pred, Tensor? along_target, Tensor row_scale, Tensor value_scale, "
      "Tensor "
      "pred, Tensor target, Tensor sums, int power, bool log_pred, bool log) -> (Tensor, Tensor, Tensor)");
  m.def("polar_centerness(Tensor rays) -> Tensor");
}

#define POLARMASK_IMPLEMENT(device)                                                                   \
  STABLE_TORCH_LIBRARY_IMPL(polarmask, device, m) {                                                   \
    m.impl("polar_iou", TORCH_BOX(&polarmask::polar_iou::polar_iou));                                 \
    m.impl("polar_iou_backward", TORCH_BOX(&polarmask::polar_iou::polar_iou_backward));               \
    m.impl("polar_iou_double_backward", TORCH_BOX(&polarmask::polar_iou::polar_iou_double_backward)); \
    m.impl("polar_centerness", TORCH_BOX(&polarmask::polar_iou::polar_centerness));                   \
  }
POLARMASK_IMPLEMENT(CPU)
POLARMASK_IMPLEMENT(CUDA)
