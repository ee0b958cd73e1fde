// Polar IoU of two sets of rays around one centre (PolarMask, section 3.4), n = 1 as released, n = 2 the true polar
// area:
//
//     IoU = Σ min(p, t)ⁿ / Σ max(p, t)ⁿ,        loss = −log IoU = log1p(Σ |pⁿ − tⁿ| / Σ min(p, t)ⁿ)
//
// The second form keeps its precision where IoU is near 1. A row is first summed, then its value and the derivatives by
// the two sums say everything about the gradients: forward, backward and double backward are one pass over the rays
// each.
//
// No torch here: the CPU loops, the CUDA kernels and the C++ tests share this file.
#pragma once

#include <cmath>

#include "../../common/centerness.h"
#include "../../common/half.h"
#include "../../common/host_device.h"

namespace polarmask {

constexpr double kPolarIouFloor = 1e-12;  // of Σ minⁿ in the loss: far below a pixel, and 1/floor is finite in float32

// The kernels' part sums: of 64 rows or, when there are many, of more; 1024 blocks fill an H100 once.
constexpr int64_t kRowsPerPart = 64, kMaxParts = 1024;

enum class Reduction : int64_t { kNone = 0, kMean = 1, kSum = 2 };  // torch's own numbers

template <class T>
struct RowSums {
  T difference;  // Σ |pⁿ − tⁿ|
  T smaller;     // Σ min(p, t)ⁿ
};

// Over rows, in double: their values times their weights, and their weights.
struct Totals {
  double value, weight;
};

PM_HD Totals operator+(Totals a, Totals b) { return {a.value + b.value, a.weight + b.weight}; }

// A strided matrix [N, R]; stride 0 is legal.
template <class T>
struct Rays {
  const T* data;       // null: not given, zeros
  int64_t row_stride;  // elements
  int64_t ray_stride;  // elements
};

template <class T>
struct Row {
  const T* data;
  int64_t stride;
  PM_HD SumOf<T> operator[](int64_t k) const { return data ? static_cast<SumOf<T>>(data[k * stride]) : SumOf<T>(0); }
};

template <class T>
PM_HD Row<T> row_of(const Rays<T>& rays, int64_t row) {
  return {rays.data ? rays.data + row * rays.row_stride : nullptr, rays.ray_stride};
}

// What all passes read. T: how rays are stored; all else is in SumOf<T>.
template <class T>
struct PolarIouInput {
  Rays<T> pred;            // [N, R] pixels, or their logarithms
  Rays<T> target;          // [N, R] pixels
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
  RowSums<SumOf<T>>* sums;  // [N], for the backward passes
  SumOf<T>* value;          // [N] without a reduction, else []
  SumOf<T>* divisor;        // []
  Totals* parts;            // [num_parts] scratch: totals of some rows each
  int64_t num_parts;
};

template <class T>
struct PolarIouBackwardParams {
  PolarIouInput<T> in;
  const RowSums<SumOf<T>>* sums;  // [N]
  const SumOf<T>* grad;           // [N] without a reduction, else []
  bool reduced;
  const SumOf<T>* divisor;  // []
  const SumOf<T>* mean;     // [] the value, where it moves with the weights that it is divided by; else null
  T* grad_pred;             // [N, R], null: not wanted
  T* grad_target;           // [N, R], null: not wanted
  SumOf<T>* grad_weight;    // [N], null: not wanted
};

// With f the value of a row and f' its derivative along (along_pred, along_target): f' and the gradients of
// Σ row_scale · f' + value_scale · f.
template <class T>
struct PolarIouDoubleBackwardParams {
  PolarIouInput<T> in;            // its weight is not read
  const RowSums<SumOf<T>>* sums;  // [N]
  Rays<T> along_pred;             // [N, R]
  Rays<T> along_target;           // [N, R]
  const SumOf<T>* row_scale;      // [N]
  const SumOf<T>* value_scale;    // [N]
  SumOf<T>* tangent;              // [N] f'
  T* grad_pred;                   // [N, R]
  T* grad_target;                 // [N, R]
};

template <class T>
struct PolarCenternessParams {
  Rays<T> rays;          // [N, R] pixels
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

// Rows of weight 0 are not even read.
template <class T>
PM_HD bool is_absent(const PolarIouInput<T>& in, int64_t row) {
  return in.weight && in.weight[row] == 0;
}

// A ray length and its power, with the derivatives of the power by what the caller gave (a length or its logarithm).
template <class T>
struct Power {
  T value, first, second;
};

template <int power, bool is_log, class T>
PM_HD Power<T> power_of(T given) {
  const T length = is_log ? std::exp(given) : given < 0 ? given - given : given;  // −∞ to NaN
  const T value = power == 1 ? length : length * length;
  if constexpr (is_log) return {value, power * value, power * power * value};
  if (given < 0) return {value, 0, 0};
  return power == 1 ? Power<T>{value, 1, 0} : Power<T>{value, 2 * length, 2};
}

// One ray's part in the sums of its row; `negative` gathers whether a length is.
template <int power, bool log_pred, class T>
PM_HD void add_ray(T pred, T target, RowSums<T>& sums, bool& negative) {
  const T u = power_of<power, log_pred>(pred).value, v = power_of<power, false>(target).value;
  sums.difference += u < v ? v - u : u - v;
  sums.smaller += u < v ? u : v;
  negative |= (!log_pred && pred < 0) || target < 0;
}

// What is kept of a row. IoU: shapes that do not exist have none, instead of NaN. Loss: a negative length makes NaN, a
// logarithm would hide the mistake.
template <class T>
PM_HD RowSums<T> kept_sums(RowSums<T> sums, bool negative, bool log) {
  if (log) return {negative ? static_cast<T>(NAN) : sums.difference, sums.smaller};
  if (is_finite(sums.difference) && is_finite(sums.smaller)) return sums;
  return {0, 0};
}

// f(M, m) with M = Σ maxⁿ and m = Σ minⁿ: the value of a row and its derivatives.
template <class T>
struct RowValue {
  T value;
  T larger, smaller;                                 // ∂f/∂M, ∂f/∂m
  T larger_larger, larger_smaller, smaller_smaller;  // second derivatives
};

template <class T>
PM_HD RowValue<T> row_value(RowSums<T> sums, bool log) {
  const T floor = static_cast<T>(kPolarIouFloor);
  const T m = sums.smaller;
  if (log) {
    if (m < floor) {  // log1p((M − m) / floor)
      const T d = 1 / (floor + sums.difference);
      return {std::log1p(sums.difference / floor), d, -d, -d * d, d * d, -d * d};
    }
    const T larger = 1 / (m + sums.difference), smaller = 1 / m;
    return {std::log1p(sums.difference / m), larger, -smaller, -larger * larger, 0, smaller * smaller};
  }
  const T M = m + sums.difference;
  if (!(M > 0)) return {0, 0, 0, 0, 0, 0};
  const T d = 1 / M;
  return {m / M, -m * d * d, d, 2 * m * d * d * d, -d * d, 0};
}

// Keeps the sums of a row and its value; -> its part of the totals.
template <class T>
PM_HD Totals finish_row(const PolarIouParams<T>& p, int64_t row, RowSums<SumOf<T>> sums, bool negative) {
  const bool absent = is_absent(p.in, row);
  const SumOf<T> weight = p.in.weight ? p.in.weight[row] : SumOf<T>(1);
  const RowSums<SumOf<T>> kept = absent ? RowSums<SumOf<T>>{0, 0} : kept_sums(sums, negative, p.in.log);
  const SumOf<T> value = absent ? SumOf<T>(0) : weight * row_value(kept, p.in.log).value;
  p.sums[row] = kept;
  if (p.reduction == Reduction::kNone) p.value[row] = value;
  return {static_cast<double>(value), static_cast<double>(weight)};
}

template <class T>
PM_HD void finish(const PolarIouParams<T>& p, Totals total) {
  double by = 1;
  if (p.reduction == Reduction::kMean) by = p.avg_factor ? static_cast<double>(*p.avg_factor) : total.weight;
  *p.divisor = static_cast<SumOf<T>>(by);
  if (p.reduction != Reduction::kNone) *p.value = by <= 0 ? SumOf<T>(0) : static_cast<SumOf<T>>(total.value / by);
}

// What a row contributes to the gradients; zeros when it is absent.
template <class T>
struct RowGradient {
  bool present;
  RowValue<T> f;
  T scale;      // of f
  T by_weight;  // gradient of the row's weight
};

// Whether a row's value moves with its rays: the IoU of shapes that do not exist stays 0. Infinite rays would make NaN
// of their zero gradients.
template <class T>
PM_HD bool moves(RowSums<T> sums, bool log) {
  return log || sums.difference + sums.smaller > 0;
}

template <class T>
PM_HD RowGradient<SumOf<T>> row_gradient(const PolarIouBackwardParams<T>& p, int64_t row) {
  using Sum = SumOf<T>;
  const Sum by = *p.divisor;
  if (by <= 0 || is_absent(p.in, row) || !moves(p.sums[row], p.in.log)) return {};
  const RowValue<Sum> f = row_value(p.sums[row], p.in.log);
  const Sum scale = p.grad[p.reduced ? 0 : row] / by;
  return {true, f, p.in.weight ? scale * p.in.weight[row] : scale, scale * (f.value - (p.mean ? *p.mean : Sum(0)))};
}

template <class T>
PM_HD RowGradient<SumOf<T>> row_second_gradient(const PolarIouDoubleBackwardParams<T>& p, int64_t row) {
  if ((p.row_scale[row] == 0 && p.value_scale[row] == 0) || !moves(p.sums[row], p.in.log)) return {};
  return {true, row_value(p.sums[row], p.in.log), p.row_scale[row], 0};
}

// How much of a ray's derivative goes through max(p, t)ⁿ; the rest goes through min. Ties go half and half.
template <class T>
PM_HD T share_of_larger(T own, T other) {
  return own > other ? T(1) : own < other ? T(0) : T(0.5);
}

// Gradients of one ray with respect to pred and target, `scale` being that of the row's value.
template <int power, bool log_pred, class T>
PM_HD void ray_gradients(const RowValue<T>& f, T scale, T pred, T target, T& grad_pred, T& grad_target) {
  const Power<T> p = power_of<power, log_pred>(pred), t = power_of<power, false>(target);
  const T share = share_of_larger(p.value, t.value);
  grad_pred = scale * (share * f.larger + (1 - share) * f.smaller) * p.first;
  grad_target = scale * ((1 - share) * f.larger + share * f.smaller) * t.first;
}

// Directional derivatives of M and m along (along_pred, along_target), one ray's part.
template <int power, bool log_pred, class T>
PM_HD void ray_tangent(T pred, T target, T along_pred, T along_target, T& larger, T& smaller) {
  const Power<T> p = power_of<power, log_pred>(pred), t = power_of<power, false>(target);
  const T share = share_of_larger(p.value, t.value);
  larger += share * p.first * along_pred + (1 - share) * t.first * along_target;
  smaller += (1 - share) * p.first * along_pred + share * t.first * along_target;
}

// Gradients of scale · (directional derivative of f) + value_scale · f by one ray of pred and target; (larger, smaller)
// is the directional derivative of (M, m).
template <int power, bool log_pred, class T>
PM_HD void ray_second_gradients(const RowValue<T>& f, T scale, T value_scale, T larger, T smaller, T pred, T target,
                                T along_pred, T along_target, T& grad_pred, T& grad_target) {
  const Power<T> p = power_of<power, log_pred>(pred), t = power_of<power, false>(target);
  const T share = share_of_larger(p.value, t.value);
  const T by_larger = scale * (f.larger_larger * larger + f.larger_smaller * smaller) + value_scale * f.larger;
  const T by_smaller = scale * (f.larger_smaller * larger + f.smaller_smaller * smaller) + value_scale * f.smaller;
  grad_pred = (share * by_larger + (1 - share) * by_smaller) * p.first +
              scale * (share * f.larger + (1 - share) * f.smaller) * p.second * along_pred;
  grad_target = ((1 - share) * by_larger + share * by_smaller) * t.first +
                scale * ((1 - share) * f.larger + share * f.smaller) * t.second * along_target;
}

}  // namespace polarmask
