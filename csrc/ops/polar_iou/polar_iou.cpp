#include "polar_iou.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include "../../common/check.h"
#include "../../common/device.h"
#include "../../common/torch.h"

namespace polarmask {

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

// Some 10 µs of work with 36 rays, well above the cost of handing out a task. The reductions add up the sums of such
// blocks in order, so that the number of threads does not change a bit of the result.
constexpr int64_t kRowsPerBlock = 512;

template <class Body>
void for_blocks(int64_t rows, Body&& body) {
  parallel_for(0, ceil_div(rows, kRowsPerBlock), 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block)
      body(block, block * kRowsPerBlock, std::min(rows, (block + 1) * kRowsPerBlock));
  });
}

template <class Body>
void for_rows(int64_t rows, Body&& body) {
  for_blocks(rows, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) body(row);
  });
}

template <class T>
void polar_iou_cpu(const PolarIouParams<T>& p) {
  with_options(p.in, [&]<int power, bool log_pred>() {
    for_blocks(p.in.rows, [&](int64_t block, int64_t begin, int64_t end) {
      Totals total{0, 0};
      for (int64_t row = begin; row < end; ++row) {
        const Row<T> pred = row_of(p.in.pred, row), target = row_of(p.in.target, row);
        const int64_t num_rays = is_absent(p.in, row) ? 0 : p.in.num_rays;
        RowSums<SumOf<T>> sums{0, 0};
        bool negative = false;
        for (int64_t k = 0; k < num_rays; ++k) add_ray<power, log_pred>(pred[k], target[k], sums, negative);
        total = total + finish_row(p, row, sums, negative);
      }
      p.parts[block] = total;
    });
  });
  Totals total{0, 0};
  for (int64_t part = 0; part < p.num_parts; ++part) total = total + p.parts[part];
  finish(p, total);
}

template <class T>
void polar_iou_backward_cpu(const PolarIouBackwardParams<T>& p) {
  using Sum = SumOf<T>;
  with_options(p.in, [&]<int power, bool log_pred>() {
    for_rows(p.in.rows, [&](int64_t row) {
      const RowGradient<Sum> from = row_gradient(p, row);
      const Row<T> pred = row_of(p.in.pred, row), target = row_of(p.in.target, row);
      if (p.grad_weight) p.grad_weight[row] = from.by_weight;
      for (int64_t k = 0; k < p.in.num_rays; ++k) {
        Sum a = 0, b = 0;
        if (from.present) ray_gradients<power, log_pred>(from.f, from.scale, pred[k], target[k], a, b);
        if (p.grad_pred) p.grad_pred[row * p.in.num_rays + k] = static_cast<T>(a);
        if (p.grad_target) p.grad_target[row * p.in.num_rays + k] = static_cast<T>(b);
      }
    });
  });
}

template <class T>
void polar_iou_double_backward_cpu(const PolarIouDoubleBackwardParams<T>& p) {
  using Sum = SumOf<T>;
  with_options(p.in, [&]<int power, bool log_pred>() {
    for_rows(p.in.rows, [&](int64_t row) {
      const RowGradient<Sum> from = row_second_gradient(p, row);
      const Row<T> pred = row_of(p.in.pred, row), target = row_of(p.in.target, row);
      const Row<T> along_pred = row_of(p.along_pred, row), along_target = row_of(p.along_target, row);
      Sum larger = 0, smaller = 0;
      for (int64_t k = 0; k < p.in.num_rays && from.present; ++k)
        ray_tangent<power, log_pred>(pred[k], target[k], along_pred[k], along_target[k], larger, smaller);
      p.tangent[row] = from.f.larger * larger + from.f.smaller * smaller;
      for (int64_t k = 0; k < p.in.num_rays; ++k) {
        Sum a = 0, b = 0;
        if (from.present)
          ray_second_gradients<power, log_pred>(from.f, from.scale, p.value_scale[row], larger, smaller, pred[k],
                                                target[k], along_pred[k], along_target[k], a, b);
        p.grad_pred[row * p.in.num_rays + k] = static_cast<T>(a);
        p.grad_target[row * p.in.num_rays + k] = static_cast<T>(b);
      }
    });
  });
}

template <class T>
void polar_centerness_cpu(const PolarCenternessParams<T>& p) {
  for_rows(p.rows, [&](int64_t row) {
    const Row<T> rays = row_of(p.rays, row);
    Extent<SumOf<T>> extent = no_rays<SumOf<T>>();
    for (int64_t k = 0; k < p.num_rays; ++k) extent = add_ray(extent, rays[k]);
    p.centerness[row] = centerness_of(extent);
  });
}

ScalarType sum_dtype(const Tensor& rays) {
  return rays.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

std::optional<Tensor> contiguous(const std::optional<Tensor>& tensor) {
  if (!tensor) return tensor;
  return torch::stable::contiguous(*tensor);
}

template <class T>
Rays<T> rays_of(const std::optional<Tensor>& tensor) {
  if (!tensor) return {nullptr, 0, 0};
  return {data_of<T>(tensor), tensor->stride(0), tensor->stride(1)};
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

// What the forward pass kept, handed back.
void check_sums(const char* op, const Tensor& sums, const Tensor& pred) {
  check_dim(op, "sums", sums, 2, "(N, 2)");
  check_size(op, "sums", sums, 0, pred.size(0), "(N, 2)");
  check_size(op, "sums", sums, 1, 2, "(N, 2)");
  check(sums.scalar_type() == sum_dtype(pred), op, ": expected sums of the dtype that the forward pass gave them");
  check_same_device(op, "sums", sums, "pred", pred);
}

template <class T>
PolarIouInput<T> input_of(const Tensor& pred, const Tensor& target, const std::optional<Tensor>& weight, int64_t power,
                          bool log_pred, bool log) {
  return {
      .pred = rays_of<T>(pred),
      .target = rays_of<T>(target),
      .weight = data_of<SumOf<T>>(weight),
      .rows = pred.size(0),
      .num_rays = pred.size(1),
      .power = power,
      .log_pred = log_pred,
      .log = log,
  };
}

using Result3 = std::tuple<Tensor, Tensor, Tensor>;

// -> value (N,) or (), sums (N, 2), divisor ()
Result3 polar_iou(const Tensor& pred, const Tensor& target, const std::optional<Tensor>& weight_in,
                  const std::optional<Tensor>& avg_factor, int64_t power, bool log_pred, bool log,
                  int64_t reduction_in) {
  const char* op = log ? "polar_iou_loss" : "polar_iou";
  check_rays(op, pred, target, weight_in);
  if (avg_factor) check_same_device(op, "avg_factor", *avg_factor, "pred", pred);
  const auto reduction = static_cast<Reduction>(reduction_in);
  const int64_t rows = pred.size(0);
  const std::optional<Tensor> weight = contiguous(weight_in);
  const ScalarType dtype = sum_dtype(pred);
  const std::vector<int64_t> shape =
      reduction == Reduction::kNone ? std::vector<int64_t>{rows} : std::vector<int64_t>{};
  Tensor value = torch::stable::new_empty(pred, shape, dtype);
  Tensor sums = torch::stable::new_empty(pred, {rows, 2}, dtype);
  Tensor divisor = torch::stable::new_empty(pred, {}, dtype);
  const int64_t num_parts = by_kernels(pred) ? std::clamp(ceil_div(rows, kRowsPerPart), int64_t{1}, kMaxParts)
                                             : ceil_div(rows, kRowsPerBlock);
  const Tensor parts = torch::stable::new_empty(pred, {num_parts, 2}, ScalarType::Double);
  dispatch_any_float(pred.scalar_type(), [&]<class T>() {
    const PolarIouParams<T> params{
        .in = input_of<T>(pred, target, weight, power, log_pred, log),
        .avg_factor = data_of<SumOf<T>>(avg_factor),
        .reduction = reduction,
        .sums = mutable_data_of<RowSums<SumOf<T>>>(sums),
        .value = mutable_data_of<SumOf<T>>(value),
        .divisor = mutable_data_of<SumOf<T>>(divisor),
        .parts = mutable_data_of<Totals>(parts),
        .num_parts = num_parts,
    };
    run_on(op, pred, [&] { polar_iou_cpu(params); }, [&](auto stream) { return launch_polar_iou(params, stream); });
  });
  return {value, sums, divisor};
}

// -> gradients of pred (N, R), target (N, R), weight (N,); those not wanted are empty
Result3 polar_iou_backward(const Tensor& grad_in, const Tensor& pred, const Tensor& target,
                           const std::optional<Tensor>& weight_in, const Tensor& value, const Tensor& sums,
                           const Tensor& divisor, bool weights_divide, int64_t power, bool log_pred, bool log,
                           int64_t reduction_in, bool wants_pred, bool wants_target, bool wants_weight) {
  const char* op = "polar_iou_backward";
  check_rays(op, pred, target, weight_in);
  check_sums(op, sums, pred);
  const int64_t rows = pred.size(0), num_rays = pred.size(1);
  const Tensor grad = torch::stable::contiguous(grad_in);
  const std::optional<Tensor> weight = contiguous(weight_in);
  const auto matrix = [&](bool wanted) { return torch::stable::new_empty(pred, {wanted ? rows : 0, num_rays}); };
  Tensor grad_pred = matrix(wants_pred), grad_target = matrix(wants_target);
  Tensor grad_weight = torch::stable::new_empty(pred, {wants_weight ? rows : 0}, sum_dtype(pred));
  dispatch_any_float(pred.scalar_type(), [&]<class T>() {
    const PolarIouBackwardParams<T> params{
        .in = input_of<T>(pred, target, weight, power, log_pred, log),
        .sums = data_of<RowSums<SumOf<T>>>(sums),
        .grad = data_of<SumOf<T>>(grad),
        .reduced = static_cast<Reduction>(reduction_in) != Reduction::kNone,
        .divisor = data_of<SumOf<T>>(divisor),
        .mean = weights_divide ? data_of<SumOf<T>>(value) : nullptr,
        .grad_pred = wants_pred ? mutable_data_of<T>(grad_pred) : nullptr,
        .grad_target = wants_target ? mutable_data_of<T>(grad_target) : nullptr,
        .grad_weight = wants_weight ? mutable_data_of<SumOf<T>>(grad_weight) : nullptr,
    };
    run_on(
        op, pred, [&] { polar_iou_backward_cpu(params); },
        [&](auto stream) { return launch_polar_iou_backward(params, stream); });
  });
  return {grad_pred, grad_target, grad_weight};
}

// The backward of the backward, row by row -> f' (N,) and the gradients by pred and target (N, R)
Result3 polar_iou_double_backward(const std::optional<Tensor>& along_pred, const std::optional<Tensor>& along_target,
                                  const Tensor& row_scale_in, const Tensor& value_scale_in, const Tensor& pred,
                                  const Tensor& target, const Tensor& sums, int64_t power, bool log_pred, bool log) {
  const char* op = "polar_iou_double_backward";
  check_rays(op, pred, target, row_scale_in);
  check_sums(op, sums, pred);
  const int64_t rows = pred.size(0), num_rays = pred.size(1);
  const Tensor row_scale = torch::stable::contiguous(row_scale_in),
               value_scale = torch::stable::contiguous(value_scale_in);
  Tensor tangent = torch::stable::new_empty(pred, {rows}, sum_dtype(pred));
  Tensor grad_pred = torch::stable::new_empty(pred, {rows, num_rays});
  Tensor grad_target = torch::stable::new_empty(pred, {rows, num_rays});
  dispatch_any_float(pred.scalar_type(), [&]<class T>() {
    const PolarIouDoubleBackwardParams<T> params{
        .in = input_of<T>(pred, target, std::nullopt, power, log_pred, log),
        .sums = data_of<RowSums<SumOf<T>>>(sums),
        .along_pred = rays_of<T>(along_pred),
        .along_target = rays_of<T>(along_target),
        .row_scale = data_of<SumOf<T>>(row_scale),
        .value_scale = data_of<SumOf<T>>(value_scale),
        .tangent = mutable_data_of<SumOf<T>>(tangent),
        .grad_pred = mutable_data_of<T>(grad_pred),
        .grad_target = mutable_data_of<T>(grad_target),
    };
    run_on(
        op, pred, [&] { polar_iou_double_backward_cpu(params); },
        [&](auto stream) { return launch_polar_iou_double_backward(params, stream); });
  });
  return {tangent, grad_pred, grad_target};
}

Tensor polar_centerness(const Tensor& rays) {
  const char* op = "polar_centerness";
  check_dim(op, "rays", rays, 2, "(N, R)");
  check(rays.size(1) >= 1, op, ": expected at least 1 ray, got rays of shape ", shape_of(rays));
  Tensor centerness = torch::stable::new_empty(rays, {rays.size(0)}, sum_dtype(rays));
  dispatch_any_float(rays.scalar_type(), [&]<class T>() {
    const PolarCenternessParams<T> params{
        .rays = rays_of<T>(rays),
        .rows = rays.size(0),
        .num_rays = rays.size(1),
        .centerness = mutable_data_of<SumOf<T>>(centerness),
    };
    run_on(
        op, rays, [&] { polar_centerness_cpu(params); },
        [&](auto stream) { return launch_polar_centerness(params, stream); });
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
