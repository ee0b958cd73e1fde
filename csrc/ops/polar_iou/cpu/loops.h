// CPU loops of polar IoU: forward, backward, double backward and centerness. A task has a block of rows, and the sums
// of the blocks are added in order.
//
// The rays of plain rows go by in vectors of kWidth; polar_iou.h has the maths for numbers and vectors alike.
// Falls back: to careful_sums() and double, row by row, for rows that are not plain, and to copies of rows that are
// strided or shorter than a vector.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "common/host/torch.h"
#include "common/simd.h"
#include "ops/polar_iou/polar_iou.h"

namespace polarmask::polar_iou {

// Rows of a task: some 10 µs with 36 rays, well above the cost of a task. A reduction adds up the sums of the blocks in
// order, so its result does not depend on the number of threads.
constexpr int64_t kRowsPerBlock = 512;
static_assert(kRowsPerBlock % kWidth == 0);

// Compiles loops over float for each instruction set. Loops over double serve gradient checks and have the baseline
// only.
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

// Rows as contiguous numbers, padded to kWidth: in place, or copied if strided or shorter.
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

// The same for results: write to row(), then call done().
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

// The paths for rows that are not plain are not inlined: with_isa() would compile them once more for each level.
template <int power, bool log_pred, class T>
__attribute__((noinline, cold)) RowSums<double> rare_sums(const PolarIouInput<T>& in, int64_t row) {
  return careful_sums<power, log_pred>(in, row);
}

// The values of a block's rows, and their part of the totals.
template <class T>
void values_of_block(const PolarIouParams<T>& params, Block block) {
  using V = Wide<T>;
  with_isa_of<T>([&] {
    const PolarIouParams<T> p = params;  // a copy: the compiler then knows that no store changes it
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
    const PolarIouBackwardParams<T> p = params;  // a copy, as above
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

// Σ weight, in kWidth partial sums: one chain of a million additions takes a millisecond.
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

// If `gradient` is given, computes the gradient of the reduced value too, block by block while the rays are in the
// cache.
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

// In double for all rows: few callers take second derivatives, so this loop has neither vectors nor a second path.
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

}  // namespace polarmask::polar_iou
