#include "polar_iou.h"

#include <tuple>
#include <type_traits>
#include <vector>

#include "../../common/check.h"
#include "../../common/torch.h"

namespace polarmask {
namespace {

// Some 10 µs of work with 36 rays, well above the cost of handing out a task. The reductions add up the sums of such
// blocks in order, so that the number of threads does not change a bit of the result.
constexpr int64_t kRowsPerBlock = 512;

template <class T>
using SumOf = std::conditional_t<std::is_same_v<T, double>, double, float>;

// body(constant of power, constant of log_pred), so that the inner loops have no branches on options.
template <class Body>
void dispatch_options(int64_t power, bool log_pred, Body&& body) {
  const auto with_power = [&]<int n>(std::integral_constant<int, n>) {
    log_pred ? body.template operator()<n, true>() : body.template operator()<n, false>();
  };
  power == 1 ? with_power(std::integral_constant<int, 1>{}) : with_power(std::integral_constant<int, 2>{});
}

template <class T>
Rays<const T> rays_of(const std::optional<Tensor>& tensor) {
  if (!tensor) return {nullptr, 0, 0};
  return {tensor->const_data_ptr<T>(), tensor->stride(0), tensor->stride(1)};
}

template <class T>
const T* data_of(const std::optional<Tensor>& tensor) {
  return tensor ? tensor->const_data_ptr<T>() : nullptr;
}

ScalarType sum_dtype(const Tensor& pred) {
  return pred.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// Loss: rows of weight 0 are not even read.
template <class Sum>
bool is_absent(const Sum* weight, int64_t row) {
  return weight && weight[row] == 0;
}

void check_rays(const char* op, const Tensor& pred, const Tensor& target, const std::optional<Tensor>& weight) {
  check_dim(op, "pred", pred, 2, "(N, R)");
  check_dim(op, "target", target, 2, "(N, R)");
  check(pred.size(0) == target.size(0) && pred.size(1) == target.size(1), op,
        ": expected target of the shape of pred, ", shape_of(pred), ", got ", shape_of(target));
  check(pred.size(1) >= 1, op, ": expected at least 1 ray, got pred of shape ", shape_of(pred));
  check_same_device(op, "target", target, "pred", pred);
  if (!weight) return;
  check_dim(op, "weight", *weight, 1, "(N,)");
  check_size(op, "weight", *weight, 0, pred.size(0), "(N,)");
  check_same_device(op, "weight", *weight, "pred", pred);
}

template <class T, class Sum>
PolarIouParams<T, Sum> params_of(const Tensor& pred, const Tensor& target, const std::optional<Tensor>& weight,
                                 bool log) {
  return {
      .pred = rays_of<T>(pred),
      .target = rays_of<T>(target),
      .weight = data_of<Sum>(weight),
      .rows = pred.size(0),
      .num_rays = pred.size(1),
      .log = log,
      .sums = nullptr,
  };
}

template <class Body>
void for_blocks(int64_t rows, Body&& body) {
  parallel_for(0, ceil_div(rows, kRowsPerBlock), 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block)
      body(block, block * kRowsPerBlock, std::min(rows, (block + 1) * kRowsPerBlock));
  });
}

using Result3 = std::tuple<Tensor, Tensor, Tensor>;

// -> value (N,) or (), sums (N, 2), divisor ()
Result3 polar_iou(const Tensor& pred, const Tensor& target, const std::optional<Tensor>& weight_in,
                  const std::optional<Tensor>& avg_factor, int64_t power, bool log_pred, bool log,
                  int64_t reduction_in) {
  const char* op = log ? "polar_iou_loss" : "polar_iou";
  check_rays(op, pred, target, weight_in);
  if (avg_factor) check_same_device(op, "avg_factor", *avg_factor, "pred", pred);
  if (pred.is_cuda()) no_cuda_kernel(op);
  const auto reduction = static_cast<Reduction>(reduction_in);
  const int64_t rows = pred.size(0);
  std::optional<Tensor> weight;
  if (weight_in) weight = torch::stable::contiguous(*weight_in);
  const ScalarType dtype = sum_dtype(pred);
  const bool reduced = reduction != Reduction::kNone;
  const std::vector<int64_t> shape = reduced ? std::vector<int64_t>{} : std::vector<int64_t>{rows};
  Tensor value = torch::stable::new_empty(pred, shape, dtype);
  Tensor sums = torch::stable::new_empty(pred, {rows, 2}, dtype);
  Tensor divisor = torch::stable::new_empty(pred, {}, dtype);
  dispatch_any_float(pred.scalar_type(), [&]<class T>() {
    using Sum = SumOf<T>;
    const auto params = params_of<T, Sum>(pred, target, weight, log);
    auto* const kept = static_cast<RowSums<Sum>*>(sums.mutable_data_ptr());
    Sum* const values = reduced ? nullptr : value.mutable_data_ptr<Sum>();
    struct Totals {
      double value = 0, weight = 0;
    };
    std::vector<Totals> totals(ceil_div(rows, kRowsPerBlock));
    dispatch_options(power, log_pred, [&]<int n, bool is_log>() {
      for_blocks(rows, [&](int64_t block, int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          const Sum scale = params.weight ? params.weight[row] : Sum(1);
          const bool absent = is_absent(params.weight, row);
          kept[row] = absent ? RowSums<Sum>{0, 0} : kept_sums(row_sums<n, is_log>(params, row, 0, 1), log);
          const Sum weighted = absent ? Sum(0) : scale * row_value(kept[row], log).value;
          if (values) values[row] = weighted;
          totals[block].value += weighted;
          totals[block].weight += scale;
        }
      });
    });
    Totals total;
    for (const Totals& block : totals) total.value += block.value, total.weight += block.weight;
    double by = 1;
    if (reduction == Reduction::kMean)
      by = avg_factor ? static_cast<double>(*avg_factor->const_data_ptr<Sum>()) : total.weight;
    *divisor.mutable_data_ptr<Sum>() = static_cast<Sum>(by);
    if (reduced) *value.mutable_data_ptr<Sum>() = by <= 0 ? Sum(0) : static_cast<Sum>(total.value / by);
  });
  return {value, sums, divisor};
}

// -> gradients of pred (N, R), target (N, R), weight (N,); those not wanted are empty
Result3 polar_iou_backward(const Tensor& grad_in, const Tensor& pred, const Tensor& target,
                           const std::optional<Tensor>& weight_in, const Tensor& value, const Tensor& sums,
                           const Tensor& divisor, bool weights_divide, int64_t power, bool log_pred, bool log,
                           int64_t reduction_in, bool wants_pred, bool wants_target, bool wants_weight) {
  check_rays("polar_iou_backward", pred, target, weight_in);
  if (pred.is_cuda()) no_cuda_kernel("polar_iou_backward");
  const bool reduced = static_cast<Reduction>(reduction_in) != Reduction::kNone;
  const int64_t rows = pred.size(0), num_rays = pred.size(1);
  const Tensor grad = torch::stable::contiguous(grad_in);
  std::optional<Tensor> weight;
  if (weight_in) weight = torch::stable::contiguous(*weight_in);
  const auto matrix = [&](bool wanted) { return torch::stable::new_empty(pred, {wanted ? rows : 0, num_rays}); };
  Tensor grad_pred = matrix(wants_pred), grad_target = matrix(wants_target);
  Tensor grad_weight = torch::stable::new_empty(pred, {wants_weight ? rows : 0}, sum_dtype(pred));
  dispatch_any_float(pred.scalar_type(), [&]<class T>() {
    using Sum = SumOf<T>;
    auto params = params_of<T, Sum>(pred, target, weight, log);
    params.sums = static_cast<const RowSums<Sum>*>(sums.const_data_ptr());
    const Sum* const grads = grad.const_data_ptr<Sum>();
    T* const to_pred = wants_pred ? grad_pred.mutable_data_ptr<T>() : nullptr;
    T* const to_target = wants_target ? grad_target.mutable_data_ptr<T>() : nullptr;
    Sum* const to_weight = wants_weight ? grad_weight.mutable_data_ptr<Sum>() : nullptr;
    const Sum by = *divisor.const_data_ptr<Sum>();
    const Sum mean = weights_divide ? *value.const_data_ptr<Sum>() : Sum(0);  // moves with the weights it is divided by
    dispatch_options(power, log_pred, [&]<int n, bool is_log>() {
      for_blocks(rows, [&](int64_t, int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          const bool absent = by <= 0 || is_absent(params.weight, row);
          const Sum scale = absent ? Sum(0) : grads[reduced ? 0 : row] / by;
          const RowValue<Sum> f = absent ? RowValue<Sum>{} : row_value(params.sums[row], log);
          if (to_weight) to_weight[row] = absent ? Sum(0) : scale * (f.value - mean);
          const Sum row_scale = params.weight ? scale * params.weight[row] : scale;
          const T* p = params.pred.data + row * params.pred.row_stride;
          const T* t = params.target.data + row * params.target.row_stride;
          for (int64_t k = 0; k < num_rays; ++k) {
            Sum a = 0, b = 0;
            if (!absent)
              ray_gradients<n, is_log>(f, row_scale, static_cast<Sum>(p[k * params.pred.ray_stride]),
                                       static_cast<Sum>(t[k * params.target.ray_stride]), a, b);
            if (to_pred) to_pred[row * num_rays + k] = static_cast<T>(a);
            if (to_target) to_target[row * num_rays + k] = static_cast<T>(b);
          }
        }
      });
    });
  });
  return {grad_pred, grad_target, grad_weight};
}

// The backward of the backward, row by row: with f the value of a row and f' its derivative along (along_pred,
// along_target), -> f' (N,) and the gradients of Σ row_scale · f' + value_scale · f by pred and target (N, R).
Result3 polar_iou_double_backward(const std::optional<Tensor>& along_pred, const std::optional<Tensor>& along_target,
                                  const Tensor& row_scale_in, const Tensor& value_scale_in, const Tensor& pred,
                                  const Tensor& target, const Tensor& sums, int64_t power, bool log_pred, bool log) {
  check_rays("polar_iou_double_backward", pred, target, row_scale_in);
  if (pred.is_cuda()) no_cuda_kernel("polar_iou_double_backward");
  const int64_t rows = pred.size(0), num_rays = pred.size(1);
  const Tensor row_scale = torch::stable::contiguous(row_scale_in),
               value_scale = torch::stable::contiguous(value_scale_in);
  Tensor tangent = torch::stable::new_empty(pred, {rows}, sum_dtype(pred));
  Tensor grad_pred = torch::stable::new_empty(pred, {rows, num_rays});
  Tensor grad_target = torch::stable::new_empty(pred, {rows, num_rays});
  dispatch_any_float(pred.scalar_type(), [&]<class T>() {
    using Sum = SumOf<T>;
    auto params = params_of<T, Sum>(pred, target, std::nullopt, log);
    params.sums = static_cast<const RowSums<Sum>*>(sums.const_data_ptr());
    const Rays<const T> by_pred = rays_of<T>(along_pred), by_target = rays_of<T>(along_target);
    const Sum* const row_scales = row_scale.const_data_ptr<Sum>();
    const Sum* const value_scales = value_scale.const_data_ptr<Sum>();
    Sum* const to_tangent = tangent.mutable_data_ptr<Sum>();
    T* const to_pred = grad_pred.mutable_data_ptr<T>();
    T* const to_target = grad_target.mutable_data_ptr<T>();
    const auto read = [](const Rays<const T>& rays, int64_t row, int64_t k) {
      return rays.data ? static_cast<Sum>(rays.data[row * rays.row_stride + k * rays.ray_stride]) : Sum(0);
    };
    dispatch_options(power, log_pred, [&]<int n, bool is_log>() {
      for_blocks(rows, [&](int64_t, int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          const bool absent = row_scales[row] == 0 && value_scales[row] == 0;
          const RowValue<Sum> f = absent ? RowValue<Sum>{} : row_value(params.sums[row], log);
          Sum larger = 0, smaller = 0;
          for (int64_t k = 0; k < num_rays && !absent; ++k)
            ray_tangent<n, is_log>(read(params.pred, row, k), read(params.target, row, k), read(by_pred, row, k),
                                   read(by_target, row, k), larger, smaller);
          to_tangent[row] = f.larger * larger + f.smaller * smaller;
          for (int64_t k = 0; k < num_rays; ++k) {
            Sum a = 0, b = 0;
            if (!absent)
              ray_second_gradients<n, is_log>(f, row_scales[row], value_scales[row], larger, smaller,
                                              read(params.pred, row, k), read(params.target, row, k),
                                              read(by_pred, row, k), read(by_target, row, k), a, b);
            to_pred[row * num_rays + k] = static_cast<T>(a);
            to_target[row * num_rays + k] = static_cast<T>(b);
          }
        }
      });
    });
  });
  return {tangent, grad_pred, grad_target};
}

Tensor polar_centerness(const Tensor& rays) {
  check_dim("polar_centerness", "rays", rays, 2, "(N, R)");
  check(rays.size(1) >= 1, "polar_centerness: expected at least 1 ray, got rays of shape ", shape_of(rays));
  if (rays.is_cuda()) no_cuda_kernel("polar_centerness");
  Tensor centerness = torch::stable::new_empty(rays, {rays.size(0)}, sum_dtype(rays));
  dispatch_any_float(rays.scalar_type(), [&]<class T>() {
    using Sum = SumOf<T>;
    const Rays<const T> in = rays_of<T>(rays);
    Sum* const out = centerness.mutable_data_ptr<Sum>();
    for_blocks(rays.size(0), [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        Sum shortest = static_cast<Sum>(in.data[row * in.row_stride]), longest = shortest;
        for (int64_t k = 0; k < rays.size(1); ++k) {
          const Sum ray = static_cast<Sum>(in.data[row * in.row_stride + k * in.ray_stride]);
          if (!is_finite(ray)) longest = ray, shortest = 0;  // and stays: no comparison moves it again
          shortest = min_of(shortest, ray);
          longest = max_of(longest, ray);
        }
        out[row] = centerness_of(shortest, longest);
      }
    });
  });
  return centerness;
}

}  // namespace
}  // namespace polarmask

STABLE_TORCH_LIBRARY_FRAGMENT(polarmask, m) {
  m.set_python_module("polarmask_ops.polar_iou");
  m.def(
      "polar_iou(Tensor pred, Tensor target, Tensor? weight, Tensor? avg_factor, int power, bool log_pred, bool log, "
      "int "
      "reduction) -> (Tensor value, Tensor sums, Tensor divisor)");
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

#define POLARMASK_IMPLEMENT(device)                                                        \
  STABLE_TORCH_LIBRARY_IMPL(polarmask, device, m) {                                        \
    m.impl("polar_iou", TORCH_BOX(&polarmask::polar_iou));                                 \
    m.impl("polar_iou_backward", TORCH_BOX(&polarmask::polar_iou_backward));               \
    m.impl("polar_iou_double_backward", TORCH_BOX(&polarmask::polar_iou_double_backward)); \
    m.impl("polar_centerness", TORCH_BOX(&polarmask::polar_centerness));                   \
  }
POLARMASK_IMPLEMENT(CPU)
POLARMASK_IMPLEMENT(CUDA)
