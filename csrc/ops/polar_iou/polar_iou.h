// Polar IoU of two sets of rays around one centre (PolarMask, section 3.4), n = 1 as released, n = 2 the true polar
// area:
//
//     IoU = Σ min(p, t)ⁿ / Σ max(p, t)ⁿ,        loss = −log IoU = log1p(Σ |pⁿ − tⁿ| / Σ min(p, t)ⁿ)
//
// The second form keeps its precision where IoU is near 1. A row is first summed, then its value and the derivatives by
// the two sums say everything about the gradients: forward, backward and double backward are one pass over the rays
// each.
//
// Nearly all rows are plain: no negative length, and sums that float32 can hold with their squares. What the passes do
// for a ray of a plain row is written for numbers and for vectors of them. The other rows are gone through in double,
// ray by ray, so that a length of 3e38 or a logarithm of 300 has a finite loss and finite gradients.
//
// No torch here: the CPU loops, the CUDA kernels and the C++ tests share this file.
#pragma once

#include <cmath>

#include "common/centerness.h"
#include "common/exponential.h"
#include "common/half.h"
#include "common/host_device.h"

namespace polarmask::polar_iou {

constexpr double kPolarIouFloor = 1e-12;  // of Σ minⁿ in the loss: far below a pixel, and 1/floor is finite in float32
constexpr double kLargestLog = 300;       // what is above counts as this: its square still sums up in double
constexpr double kPlain = 0x1p60;         // Σ maxⁿ of plain rows lies between this and its inverse

// The kernels' part sums: of 64 rows or, when there are many, of more; 1024 blocks fill an H100 once.
constexpr int64_t kRowsPerPart = 64, kMaxParts = 1024;

enum class Reduction : int64_t { kNone = 0, kMean = 1, kSum = 2 };  // torch's own numbers

template <class V>
struct RowSums {
  V difference;  // Σ |pⁿ − tⁿ|
  V smaller;     // Σ min(p, t)ⁿ
};

// Over rows, in double: their values times their weights, and their weights.
struct Totals {
  double value, weight;
};

PM_HD Totals operator+(Totals a, Totals b) { return {a.value + b.value, a.weight + b.weight}; }

// A strided matrix [N, R], or N rows of B such ones after each other; stride 0 is legal. T may be const.
template <class T>
struct Rays {
  T* data;                                       // null: not given, zeros
  int64_t batch_stride, row_stride, ray_stride;  // elements
  int64_t rows_per_batch;
};

template <class T>
struct Row {
  T* data;
  int64_t stride;
  PM_HD T& at(int64_t k) const { return data[k * stride]; }
  PM_HD auto operator[](int64_t k) const {
    using Sum = SumOf<std::remove_const_t<T>>;
    return data ? static_cast<Sum>(data[k * stride]) : Sum(0);
  }
};

template <class T>
PM_HD Row<T> row_of(const Rays<T>& rays, int64_t row) {
  if (!rays.data) return {nullptr, 0};
  const int64_t batch = row < rays.rows_per_batch ? 0 : row / rays.rows_per_batch;
  const int64_t within = row - batch * rays.rows_per_batch;
  return {rays.data + batch * rays.batch_stride + within * rays.row_stride, rays.ray_stride};
}

// The input of all passes. T is the type of the rays in memory; everything else is in SumOf<T>.
template <class T>
struct PolarIouInput {
  Rays<const T> pred;      // [N, R] pixels, or their logarithms
  Rays<const T> target;    // [N, R] pixels
  const SumOf<T>* weight;  // [N], null: all 1
  int64_t rows;            // N
  int64_t num_rays;        // R
  int64_t power;           // n
  bool log_pred;           // pred holds logarithms
  bool log;                // the value of a row is the loss, not the IoU
};

template <class T>
struct PolarIouParams {
  PolarIouInput<T> in;
  const SumOf<T>* avg_factor;  // [], null: Σ weight
  Reduction reduction;
  RowSums<double>* sums;  // [N], for the backward passes
  SumOf<T>* value;        // [N] without a reduction, else []
  SumOf<T>* divisor;      // []
  Totals* parts;          // [num_parts] scratch: totals of some rows each
  int64_t num_parts;
};

template <class T>
struct PolarIouBackwardParams {
  PolarIouInput<T> in;
  const RowSums<double>* sums;  // [N]
  const SumOf<T>* grad;         // [N] without a reduction, else []; null: 1
  bool reduced;
  const SumOf<T>* divisor;  // []
  const SumOf<T>* mean;     // [] the value, where it moves with the weights that it is divided by; else null
  Rays<T> grad_pred;        // [N, R], null: not wanted
  Rays<T> grad_target;      // [N, R], null: not wanted
  SumOf<T>* grad_weight;    // [N], null: not wanted
};

// With f the value of a row and f' its derivative along (along_pred, along_target): f' and the gradients of
// Σ row_scale · f' + value_scale · f.
template <class T>
struct PolarIouDoubleBackwardParams {
  PolarIouInput<T> in;          // its weight is not read
  const RowSums<double>* sums;  // [N]
  Rays<const T> along_pred;     // [N, R]
  Rays<const T> along_target;   // [N, R]
  const SumOf<T>* row_scale;    // [N]
  const SumOf<T>* value_scale;  // [N]
  SumOf<T>* tangent;            // [N] f'
  Rays<T> grad_pred;            // [N, R]
  Rays<T> grad_target;          // [N, R]
};

template <class T>
struct PolarCenternessParams {
  Rays<const T> rays;    // [N, R] pixels
  int64_t rows;          // N
  int64_t num_rays;      // R
  SumOf<T>* centerness;  // [N]
};

// body<power, log_pred>(), so that the loops over rays have no branches on options.
template <class T, class Body>
PM_HD void with_options(const PolarIouInput<T>& in, Body&& body) {
  if (in.power == 1) {
    in.log_pred ? body.template operator()<1, true>() : body.template operator()<1, false>();
  } else {
    in.log_pred ? body.template operator()<2, true>() : body.template operator()<2, false>();
  }
}

// Returns true for zero-weight rows, whose rays are not read.
template <class T>
PM_HD bool is_absent(const PolarIouInput<T>& in, int64_t row) {
  return in.weight && in.weight[row] == 0;
}

// A ray length and its power, with the derivatives of the power by what the caller gave: a length, of which negative
// ones count as 0, or its logarithm.
template <class V>
struct Power {
  V value, first, second;
};

template <int power, bool is_log, class V, bool is_negative_possible = true>
PM_HD Power<V> power_of(V given) {
  using Number = NumberOf<V>;
  constexpr Number n = power;
  if constexpr (is_log) {
    if constexpr (sizeof(Number) == 8)  // float overflows before
      given = select((given > kLargestLog) & (given < __builtin_inf()), all<V>(kLargestLog), given);
    const V length = exp_of(given), value = power == 1 ? length : length * length;
    return {value, n * value, n * n * value};
  } else if constexpr (!is_negative_possible) {
    if constexpr (power == 1) return {given, all<V>(1), V{}};
    return {given * given, 2 * given, all<V>(2)};
  } else {
    const auto negative = given < 0;
    const V zero{}, length = select(negative, given - given, given);  // −∞ to NaN
    if constexpr (power == 1) return {length, select(negative, zero, all<V>(1)), zero};
    return {length * length, 2 * length, select(negative, zero, all<V>(2))};
  }
}

// The sums of a row, and the lowest of the lengths that were given.
template <class V>
struct RaySums {
  RowSums<V> sums;
  V lowest;
};

template <class V>
PM_HD RaySums<V> no_ray_sums() {
  return {{V{}, V{}}, V{}};
}

// One ray's part in the sums of its row, right if it is plain.
template <int power, bool log_pred, class V>
PM_HD void add_ray(V pred, V target, RaySums<V>& row) {
  V u = pred, v = target;
  if constexpr (log_pred) u = power_of<1, true>(pred).value;
  const V lower = select(u < v, u, v);
  row.lowest = select(lower < row.lowest, lower, row.lowest);
  // Not |u² − v²|: near IoU 1 that difference is smaller than the rounding of the squares.
  row.sums.difference += power == 1 ? magnitude_of(u - v) : magnitude_of(u - v) * (u + v);
  row.sums.smaller += power == 1 ? lower : lower * lower;
}

// Of sums that add_ray() made; NaN is not.
template <class T>
PM_HD bool is_plain(RowSums<T> sums) {
  const T larger = sums.difference + sums.smaller;
  return larger >= T(1 / kPlain) && larger <= T(kPlain);
}

// The sums to keep of a row that is not. IoU: shapes that do not exist have none, instead of NaN. Loss: a negative
// length makes NaN, a logarithm would hide the mistake.
template <int power, bool log_pred, class T>
PM_HD RowSums<double> careful_sums(const PolarIouInput<T>& in, int64_t row) {
  const auto pred = row_of(in.pred, row), target = row_of(in.target, row);
  RowSums<double> sums{0, 0};
  bool negative = false;
  for (int64_t k = 0; k < in.num_rays; ++k) {
    const double p = pred[k], t = target[k];
    negative |= (!log_pred && p < 0) || t < 0;
    const double u = power_of<1, log_pred>(p).value, v = power_of<1, false>(t).value;
    const double difference = u < v ? v - u : u - v, lower = u < v ? u : v;
    sums.difference += power == 1 ? difference : difference * (u + v);
    sums.smaller += power == 1 ? lower : lower * lower;
  }
  if (in.log) return {negative ? static_cast<double>(NAN) : sums.difference, sums.smaller};
  if (is_finite(sums.difference) && is_finite(sums.smaller)) return sums;
  return {0, 0};
}

// The value of a row: its loss, or its IoU.
template <class V>
PM_HD V value_of(RowSums<V> sums, bool log) {
  using Number = NumberOf<V>;
  const V floor = all<V>(static_cast<Number>(kPolarIouFloor));
  if (log) return log1p_of(sums.difference / select(sums.smaller < floor, floor, sums.smaller));
  const V larger = sums.smaller + sums.difference;
  return select(larger > 0, sums.smaller / larger, V{});
}

// The derivatives of the value f(M, m) of a row, M = Σ maxⁿ and m = Σ minⁿ.
template <class T>
struct Derivatives {
  T larger, smaller;                                 // ∂f/∂M, ∂f/∂m
  T larger_larger, larger_smaller, smaller_smaller;  // second derivatives
};

template <class V>
PM_HD Derivatives<V> derivatives_of(RowSums<V> sums, bool log) {
  const V zero{}, floor = all<V>(static_cast<NumberOf<V>>(kPolarIouFloor));
  const V m = sums.smaller;
  if (log) {
    const auto floored = m < floor;  // log1p((M − m) / floor)
    const V d = 1 / (select(floored, floor, m) + sums.difference);
    const V smaller = select(floored, d, 1 / m);
    return {d, -smaller, -d * d, select(floored, d * d, zero), select(floored, -d * d, smaller * smaller)};
  }
  const V M = m + sums.difference;
  const V d = select(M > 0, 1 / M, zero);
  return {-m * d * d, d, 2 * m * d * d * d, -d * d, zero};
}

template <class T>
PM_HD RowSums<T> rounded(RowSums<double> sums) {
  return {static_cast<T>(sums.difference), static_cast<T>(sums.smaller)};
}

// The value of a row from the sums that are kept of it.
template <class T>
PM_HD T kept_value(RowSums<double> sums, bool log) {
  if (is_plain(sums)) return value_of(rounded<T>(sums), log);
  return static_cast<T>(value_of(sums, log));
}

// Keeps the sums of a row and its value; -> its part of the totals.
template <class T>
PM_HD Totals finish_row(const PolarIouParams<T>& p, int64_t row, RowSums<double> sums, SumOf<T> value) {
  const SumOf<T> weight = p.in.weight ? p.in.weight[row] : SumOf<T>(1);
  const SumOf<T> weighted = weight == 0 ? SumOf<T>(0) : weight * value;
  p.sums[row] = sums;
  if (p.reduction == Reduction::kNone) p.value[row] = weighted;
  return {static_cast<double>(weighted), static_cast<double>(weight)};
}

template <class T>
PM_HD double divisor_of(const PolarIouParams<T>& p, double total_weight) {
  if (p.reduction != Reduction::kMean) return 1;
  return p.avg_factor ? static_cast<double>(*p.avg_factor) : total_weight;
}

template <class T>
PM_HD void finish(const PolarIouParams<T>& p, Totals total) {
  const double by = divisor_of(p, total.weight);
  *p.divisor = static_cast<SumOf<T>>(by);
  if (p.reduction != Reduction::kNone) *p.value = by <= 0 ? SumOf<T>(0) : static_cast<SumOf<T>>(total.value / by);
}

// Whether a row's value moves with its rays: the IoU of shapes that do not exist stays 0. Infinite rays would make NaN
// of their zero gradients.
PM_HD bool moves(RowSums<double> sums, bool log) { return log || sums.difference + sums.smaller > 0; }

// Whether a row gets a gradient from the backward pass, and from the double backward pass.
template <class T>
PM_HD bool has_gradient(const PolarIouBackwardParams<T>& p, int64_t row) {
  return !(*p.divisor <= 0) && !is_absent(p.in, row) && moves(p.sums[row], p.in.log);
}
template <class T>
PM_HD bool has_gradient(const PolarIouDoubleBackwardParams<T>& p, int64_t row) {
  return (p.row_scale[row] != 0 || p.value_scale[row] != 0) && moves(p.sums[row], p.in.log);
}

// What a row with a gradient hands to its rays: to the larger of two, to the smaller, and to each of two equal ones.
template <class V>
struct RowGradient {
  V to_larger, to_smaller, to_equal;
};

// What the derivatives of a row are multiplied by.
template <class V, class T>
PM_HD V row_scale(const PolarIouBackwardParams<T>& p, int64_t row) {
  const V grad = p.grad ? static_cast<V>(p.grad[p.reduced ? 0 : row]) : V(1);
  const V scale = grad / static_cast<V>(*p.divisor);
  return p.in.weight ? scale * static_cast<V>(p.in.weight[row]) : scale;
}

// In float or double; rows that are not plain need double.
template <class V>
PM_HD RowGradient<V> row_gradient(RowSums<V> sums, V scale, bool log) {
  const Derivatives<V> f = derivatives_of(sums, log);
  return {scale * f.larger, scale * f.smaller, scale * (NumberOf<V>(0.5) * (f.larger + f.smaller))};
}

// The gradient of the row's weight.
template <class T>
PM_HD SumOf<T> weight_gradient(const PolarIouBackwardParams<T>& p, int64_t row) {
  using Sum = SumOf<T>;
  const Sum value = kept_value<Sum>(p.sums[row], p.in.log);
  return p.grad[p.reduced ? 0 : row] / *p.divisor * (value - (p.mean ? *p.mean : Sum(0)));
}

// Gradients of one ray with respect to pred and target.
template <class V>
PM_HD void ray_gradients(const RowGradient<NumberOf<V>>& from, Power<V> p, Power<V> t, V& grad_pred, V& grad_target) {
  const V to_larger = all<V>(from.to_larger), to_smaller = all<V>(from.to_smaller), to_equal = all<V>(from.to_equal);
  const auto more = p.value > t.value, less = p.value < t.value;
  grad_pred = select(more, to_larger, select(less, to_smaller, to_equal)) * p.first;
  grad_target = select(less, to_larger, select(more, to_smaller, to_equal)) * t.first;
}

// How much of a ray's derivative goes through max(p, t)ⁿ; the rest goes through min. Ties go half and half.
template <class V>
PM_HD V share_of_larger(V own, V other) {
  return select(own > other, all<V>(1), select(own < other, V{}, all<V>(NumberOf<V>(0.5))));
}

// Directional derivatives of M and m along (along_pred, along_target), one ray's part.
template <int power, bool log_pred, class V>
PM_HD void ray_tangent(V pred, V target, V along_pred, V along_target, V& larger, V& smaller) {
  const Power<V> p = power_of<power, log_pred>(pred), t = power_of<power, false>(target);
  const V share = share_of_larger(p.value, t.value);
  larger += share * p.first * along_pred + (1 - share) * t.first * along_target;
  smaller += (1 - share) * p.first * along_pred + share * t.first * along_target;
}

// A row's derivatives and their scales in the double backward pass; (larger, smaller) is the directional derivative of
// (M, m).
template <class T>
struct RowSecondGradient {
  Derivatives<T> f;
  T scale;                  // of f'
  T by_larger, by_smaller;  // of M and m
};

template <class T>
PM_HD RowSecondGradient<T> row_second_gradient(const Derivatives<T>& f, T scale, T value_scale, T larger, T smaller) {
  return {f, scale, scale * (f.larger_larger * larger + f.larger_smaller * smaller) + value_scale * f.larger,
          scale * (f.larger_smaller * larger + f.smaller_smaller * smaller) + value_scale * f.smaller};
}

// Gradients of scale · (directional derivative of f) + value_scale · f by one ray of pred and target.
template <int power, bool log_pred, class V>
PM_HD void ray_second_gradients(const RowSecondGradient<NumberOf<V>>& from, V pred, V target, V along_pred,
                                V along_target, V& grad_pred, V& grad_target) {
  const Power<V> p = power_of<power, log_pred>(pred), t = power_of<power, false>(target);
  const V share = share_of_larger(p.value, t.value);
  grad_pred = (share * from.by_larger + (1 - share) * from.by_smaller) * p.first +
              from.scale * (share * from.f.larger + (1 - share) * from.f.smaller) * p.second * along_pred;
  grad_target = ((1 - share) * from.by_larger + share * from.by_smaller) * t.first +
                from.scale * ((1 - share) * from.f.larger + share * from.f.smaller) * t.second * along_target;
}

}  // namespace polarmask::polar_iou
