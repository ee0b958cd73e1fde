#include "ops/polar_iou/polar_iou.h"

#include <algorithm>
#include <numeric>
#include <tuple>
#include <vector>

#include "common/host/check.h"
#include "common/host/device.h"
#include "common/host/huge_pages.h"
#include "common/host/torch.h"
#include "common/isa.h"

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

// Some 10 µs of work with 36 rays, well above the cost of handing out a task. The reductions add up the sums of such
// blocks in order, so that the number of threads does not change a bit of the result.
constexpr int64_t kRowsPerBlock = 512;
static_assert(kRowsPerBlock % kWidth == 0);

// The loops over float are compiled for each level; double is for checks, and has the machine's baseline.
template <class T, class Body>
void with_isa_of(Body&& body) {
  if constexpr (std::is_same_v<T, float>) {
    with_isa(body);
  } else {
    body();
  }
}

struct Block {
  int64_t index, begin, end;  // rows [begin, end)
};

template <class Body>
void for_blocks(int64_t rows, Body&& body) {
  parallel_for(0, ceil_div(rows, kRowsPerBlock), 1, [&](int64_t first, int64_t last) {
    for (int64_t index = first; index < last; ++index)
      body(Block{index, index * kRowsPerBlock, std::min(rows, (index + 1) * kRowsPerBlock)});
  });
}

template <class T>
Rays<T> no_rays_given() {
  return {nullptr, 0, 0, 0, 1};
}

// Rows as contiguous numbers, at least kWidth of them: where they lie, or copied.
template <class T>
class Reader {
 public:
  Reader(const Rays<const T>& rays, int64_t num_rays, T rest = 0)
      : rays_(rays), num_rays_(num_rays), copies_(rays.ray_stride != 1 || num_rays < kWidth) {
    if (copies_) copy_.assign(std::max<int64_t>(num_rays, kWidth), rest);
  }

  const T* row(int64_t row) {
    const Row<const T> from = row_of(rays_, row);
    if (!copies_) return from.data;
    for (int64_t k = 0; k < num_rays_; ++k) copy_[k] = from.data[k * from.stride];
    return copy_.data();
  }

 private:
  Rays<const T> rays_;
  int64_t num_rays_;
  bool copies_;
  std::vector<T> copy_;
};

// The same for results. What row() gives is written before done() is called.
template <class T>
class Writer {
 public:
  Writer(const Rays<T>& rays, int64_t num_rays)
      : rays_(rays), num_rays_(num_rays), copies_(rays.ray_stride != 1 || num_rays < kWidth) {
    if (copies_) copy_.resize(std::max<int64_t>(num_rays, kWidth));
  }

  bool wanted() const { return rays_.data; }

  T* row(int64_t row) { return copies_ ? copy_.data() : row_of(rays_, row).data; }

  void done(int64_t row) {
    if (!copies_ || !wanted()) return;
    const Row<T> to = row_of(rays_, row);
    for (int64_t k = 0; k < num_rays_; ++k) to.at(k) = copy_[k];
  }

  void zeros(int64_t row) {
    if (!wanted()) return;
    const Row<T> to = row_of(rays_, row);
    for (int64_t k = 0; k < num_rays_; ++k) to.at(k) = 0;
  }

 private:
  Rays<T> rays_;
  int64_t num_rays_;
  bool copies_;
  std::vector<T> copy_;
};

// What is rare stays out of the loops, or would be compiled again for each level.
template <int power, bool log_pred, class T>
__attribute__((noinline, cold)) RowSums<double> rare_sums(const PolarIouInput<T>& in, int64_t row) {
  return careful_sums<power, log_pred>(in, row);
}

// The values of a block's rows, and their part of the totals.
template <class T>
void values_of_block(const PolarIouParams<T>& params, Block block) {
  using V = Wide<T>;
  with_isa_of<T>([&] {
    const PolarIouParams<T> p = params;  // which nothing that is written can change
    const PolarIouInput<T>& in = p.in;
    const int64_t num_lanes = std::max<int64_t>(in.num_rays, kWidth);
    with_options(in, [&]<int power, bool log_pred>() {
      constexpr T kNone = log_pred ? -static_cast<T>(INFINITY) : T(0);  // adds nothing
      Reader<T> preds(in.pred, in.num_rays, kNone), targets(in.target, in.num_rays);
      Totals total{0, 0};
      for (int64_t row = block.begin; row < block.end; row += kWidth) {
        const int64_t count = std::min<int64_t>(kWidth, block.end - row);
        V difference[kWidth] = {}, smaller[kWidth] = {};
        for (int64_t j = 0; j < count; ++j) {
          if (is_absent(in, row + j)) continue;
          const T *pred = preds.row(row + j), *target = targets.row(row + j);
          auto own = no_ray_sums<V>();
          for_vectors<V>(num_lanes, [&](int64_t k, auto which) {
            add_ray<power, log_pred>(only(which, load<V>(pred + k), kNone), only(which, load<V>(target + k), 0), own);
          });
          difference[j] = select(own.lowest < 0, all<V>(NAN), own.sums.difference);  // NaN: not plain
          smaller[j] = own.sums.smaller;
        }
        const RowSums<V> sums{sums_of(difference), sums_of(smaller)};
        const V values = value_of(sums, in.log);
        for (int64_t j = 0; j < count; ++j) {
          const RowSums<T> own{sums.difference[j], sums.smaller[j]};
          RowSums<double> kept{own.difference, own.smaller};
          T value = values[j];
          if (!is_plain(own) && !is_absent(in, row + j)) {
            kept = rare_sums<power, log_pred>(params.in, row + j);
            value = kept_value<T>(kept, in.log);
          }
          total = total + finish_row(p, row + j, kept, value);
        }
      }
      p.parts[block.index] = total;
    });
  });
}

template <int power, bool log_pred, class T>
__attribute__((noinline, cold)) void rare_gradients(const PolarIouBackwardParams<T>& p, int64_t row, T* to_pred,
                                                    T* to_target) {
  const auto from = row_gradient(p.sums[row], row_scale<double>(p, row), p.in.log);
  const auto pred = row_of(p.in.pred, row), target = row_of(p.in.target, row);
  for (int64_t k = 0; k < p.in.num_rays; ++k) {
    double a, b;
    ray_gradients<double>(from, power_of<power, log_pred, double>(pred[k]), power_of<power, false, double>(target[k]),
                          a, b);
    if (p.grad_pred.data) to_pred[k] = static_cast<T>(a);
    if (p.grad_target.data) to_target[k] = static_cast<T>(b);
  }
}

template <class T>
__attribute__((noinline)) T own_weight_gradient(const PolarIouBackwardParams<T>& p, int64_t row) {
  return weight_gradient(p, row);
}

// The gradients of a block's rows.
template <class T>
void gradients_of_block(const PolarIouBackwardParams<T>& params, Block block) {
  using V = Wide<T>;
  with_isa_of<T>([&] {
    const PolarIouBackwardParams<T> p = params;  // which nothing that is written can change
    const int64_t num_rays = p.in.num_rays, num_lanes = std::max<int64_t>(num_rays, kWidth);
    with_options(p.in, [&]<int power, bool log_pred>() {
      Reader<T> preds(p.in.pred, num_rays), targets(p.in.target, num_rays);
      Writer<T> to_preds(p.grad_pred, num_rays), to_targets(p.grad_target, num_rays);
      for (int64_t begin = block.begin; begin < block.end; begin += kWidth) {
        const int64_t count = std::min<int64_t>(kWidth, block.end - begin);
        T difference[kWidth] = {}, smaller[kWidth] = {}, scale[kWidth] = {};
        for (int64_t j = 0; j < count; ++j) {
          const auto own = rounded<T>(p.sums[begin + j]);
          difference[j] = own.difference, smaller[j] = own.smaller, scale[j] = row_scale<T>(p, begin + j);
        }
        const RowSums<V> sums{load<V>(difference), load<V>(smaller)};
        const RowGradient<V> from = row_gradient(sums, load<V>(scale), p.in.log);
        for (int64_t j = 0; j < count; ++j) {
          const int64_t row = begin + j;
          const bool present = has_gradient(p, row);
          if (p.grad_weight) p.grad_weight[row] = present ? own_weight_gradient(params, row) : T(0);
          if (!present) {
            to_preds.zeros(row);
            to_targets.zeros(row);
            continue;
          }
          T *const to_pred = to_preds.row(row), *const to_target = to_targets.row(row);
          if (is_plain(p.sums[row])) {
            const RowGradient<T> own{from.to_larger[j], from.to_smaller[j], from.to_equal[j]};
            const T *pred = preds.row(row), *target = targets.row(row);
            const auto rays = [&]<bool is_negative_possible>() {
              for_vectors<V>(num_lanes, [&](int64_t k, auto) {
                V a, b;
                ray_gradients(own, power_of<power, log_pred, V, is_negative_possible>(load<V>(pred + k)),
                              power_of<power, false, V, is_negative_possible>(load<V>(target + k)), a, b);
                if (to_preds.wanted()) store(to_pred + k, a);
                if (to_targets.wanted()) store(to_target + k, b);
              });
            };
            if (p.in.log)  // a loss with a negative length is NaN, and its row not plain
              rays.template operator()<false>();
            else
              rays.template operator()<true>();
          } else {
            rare_gradients<power, log_pred>(params, row, to_pred, to_target);
          }
          to_preds.done(row);
          to_targets.done(row);
        }
      }
    });
  });
}

template <class T>
void polar_iou_backward_cpu(const PolarIouBackwardParams<T>& params) {
  for_blocks(params.in.rows, [&](Block block) { gradients_of_block(params, block); });
}

// Σ weight, in lanes: the sum of a million numbers one after the other takes a millisecond.
template <class T>
double total_weight(const PolarIouInput<T>& in) {
  if (!in.weight) return static_cast<double>(in.rows);
  double sums[kWidth] = {};
  with_isa_of<T>([&] {
    for (int64_t row = 0; row < in.rows; row += kWidth)
      for (int64_t j = 0; j < std::min<int64_t>(kWidth, in.rows - row); ++j) sums[j] += in.weight[row + j];
  });
  return std::accumulate(sums, sums + kWidth, 0.0);
}

// With `gradient`, that of the reduced value too: a block's rays are then in the cache.
template <class T>
void polar_iou_cpu(const PolarIouParams<T>& params, const PolarIouBackwardParams<T>* gradient) {
  const double weight = total_weight(params.in);
  *params.divisor = static_cast<T>(divisor_of(params, weight));
  for_blocks(params.in.rows, [&](Block block) {
    values_of_block(params, block);
    if (gradient) gradients_of_block(*gradient, block);
  });
  double value = 0;
  for (int64_t part = 0; part < params.num_parts; ++part) value += params.parts[part].value;
  finish(params, {value, weight});
}

// In double: what is rarely called needs neither lanes nor a second path for rows that are not plain.
template <class T>
void polar_iou_double_backward_cpu(const PolarIouDoubleBackwardParams<T>& p) {
  const int64_t num_rays = p.in.num_rays;
  with_options(p.in, [&]<int power, bool log_pred>() {
    parallel_for(0, p.in.rows, kRowsPerBlock, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const bool present = has_gradient(p, row);
        const auto pred = row_of(p.in.pred, row), target = row_of(p.in.target, row);
        const auto along_pred = row_of(p.along_pred, row), along_target = row_of(p.along_target, row);
        double larger = 0, smaller = 0;
        for (int64_t k = 0; k < num_rays && present; ++k)
          ray_tangent<power, log_pred, double>(pred[k], target[k], along_pred[k], along_target[k], larger, smaller);
        const Derivatives<double> f = present ? derivatives_of(p.sums[row], p.in.log) : Derivatives<double>{};
        p.tangent[row] = static_cast<T>(f.larger * larger + f.smaller * smaller);
        const auto from = row_second_gradient<double>(f, p.row_scale[row], p.value_scale[row], larger, smaller);
        const auto to_pred = row_of(p.grad_pred, row), to_target = row_of(p.grad_target, row);
        for (int64_t k = 0; k < num_rays; ++k) {
          double a = 0, b = 0;
          if (present)
            ray_second_gradients<power, log_pred, double>(from, pred[k], target[k], along_pred[k], along_target[k], a,
                                                          b);
          to_pred.at(k) = static_cast<T>(a);
          to_target.at(k) = static_cast<T>(b);
        }
      }
    });
  });
}

template <class T>
void polar_centerness_cpu(const PolarCenternessParams<T>& p) {
  for_blocks(p.rows, [&](Block block) {
    with_isa_of<T>([&] {
      for (int64_t row = block.begin; row < block.end; ++row) {
        const auto rays = row_of(p.rays, row);
        Extent<T> extent = no_rays<T>();
        for (int64_t k = 0; k < p.num_rays; ++k) extent = add_ray(extent, rays[k]);
        p.centerness[row] = centerness_of(extent);
      }
    });
  });
}

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
