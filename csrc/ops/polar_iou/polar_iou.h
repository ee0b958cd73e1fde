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

#include "../../common/host_device.h"

namespace polarmask {

constexpr double kPolarIouFloor = 1e-12;  // of Σ minⁿ in the loss: far below a pixel, and 1/floor is finite in float32

enum class Reduction : int64_t { kNone = 0, kMean = 1, kSum = 2 };  // torch's own numbers

template <class T>
struct RowSums {
  T difference;  // Σ |pⁿ − tⁿ|
  T smaller;     // Σ min(p, t)ⁿ
};

// A strided matrix [N, R]; stride 0 is legal.
template <class T>
struct Rays {
  T* data;             // null: not given, or not wanted
  int64_t row_stride;  // elements
  int64_t ray_stride;  // elements
};

template <class T, class Sum>
struct PolarIouParams {
  Rays<const T> pred;    // [N, R] pixels, or their logarithms
  Rays<const T> target;  // [N, R] pixels
  const Sum* weight;     // [N], null: all 1
  int64_t rows;          // N
  int64_t num_rays;      // R
  bool log;              // the value of a row is the loss, not the IoU

  const RowSums<Sum>* sums;  // [N], for the backward passes
};

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

// Sums over every `step`-th ray from `first` on: a warp shares a row, the CPU takes it whole.
template <int power, bool log_pred, class T, class Sum>
PM_HD RowSums<Sum> row_sums(const PolarIouParams<T, Sum>& p, int64_t row, int64_t first, int64_t step) {
  const T* pred = p.pred.data + row * p.pred.row_stride;
  const T* target = p.target.data + row * p.target.row_stride;
  RowSums<Sum> sums{0, 0};
  bool negative = false;
  for (int64_t k = first; k < p.num_rays; k += step) {
    const Sum a = static_cast<Sum>(pred[k * p.pred.ray_stride]), b = static_cast<Sum>(target[k * p.target.ray_stride]);
    const Sum u = power_of<power, log_pred>(a).value, v = power_of<power, false>(b).value;
    sums.difference += u < v ? v - u : u - v;
    sums.smaller += u < v ? u : v;
    negative |= (!log_pred && a < 0) || b < 0;
  }
  if (p.log && negative) sums.difference = static_cast<Sum>(NAN);  // a logarithm of it would hide the mistake
  return sums;
}

// What is kept of a row: for the IoU, shapes that do not exist have none, instead of NaN.
template <class Sum>
PM_HD RowSums<Sum> kept_sums(RowSums<Sum> sums, bool log) {
  if (log || (is_finite(sums.difference) && is_finite(sums.smaller))) return sums;
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

// Polar centerness (PolarMask, section 3.3) from the shortest and the longest ray.
template <class T>
PM_HD T centerness_of(T shortest, T longest) {
  return shortest > 0 && is_finite(longest) ? std::sqrt(shortest / longest) : T(0);
}

}  // namespace polarmask
