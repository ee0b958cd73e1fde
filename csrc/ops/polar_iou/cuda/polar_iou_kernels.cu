// N rows of R rays of s bytes. Bound by memory: some 10 operations a ray. At 3.35 TB/s, 1,000,000 × 36 in float32:
//
//     forward          reads 2NRs         writes 16N            304 MB          91 µs
//     backward         reads 2NRs + 16N   writes NRs or 2NRs    448 or 592 MB   134 or 177 µs
//     double backward  reads 4NRs + 24N   writes 2NRs + 4N      892 MB          266 µs
//     centerness       reads NRs          writes 4N             148 MB          44 µs
//
// At 2,000 rows, what a training step has, all of them are far below the 2–3 µs that a launch costs: so few launches
// count, two for a reduced loss and one for everything else.
//
// Design: four lanes share a row and take its rays by four, 16 bytes an access in float32. Eight rows make a warp's
// access contiguous; 36 rays are nine quads, three rounds. (A whole warp to a row would idle in the second of two
// rounds and pay five shuffles a sum instead of two.) Options are branches that all threads take alike; a row that is
// not plain is gone through in double by one lane in the forward pass, by its four in the others. The sum over
// rows has a fixed order that does not depend on the device: at most kMaxParts blocks, each a shuffle tree and one row
// of shared memory, then one block for their sums.
#include <algorithm>

#include "common/cuda/launch.cuh"
#include "ops/polar_iou/polar_iou.h"

namespace polarmask::polar_iou {
namespace {

constexpr int kThreadsPerRow = 4;
constexpr int kRays = 4;  // to an access
constexpr int kThreads = 256;
constexpr int kRowsPerBlock = kThreads / kThreadsPerRow;
static_assert(kRowsPerBlock == kRowsPerPart);

// Blocks per multiprocessor, at least: bounds the registers of a thread. Without it nvcc spills on some chips.
constexpr int kForwardBlocks = 4, kBackwardBlocks = 2;

template <class T>
struct alignas(sizeof(T) < 4 ? kRays * sizeof(T) : 16) Quad {
  T ray[kRays];
};

// A matrix read and written by quads: in one access where its rows consist of quads, else ray by ray. T may be const.
template <class T>
struct Quads {
  using Number = std::remove_const_t<T>;
  using Whole = std::conditional_t<std::is_const_v<T>, const Quad<Number>, Quad<Number>>;

  Rays<T> rays;
  int64_t num_rays;
  bool whole;

  __device__ Quads(const Rays<T>& rays, int64_t num_rays)
      : rays(rays),
        num_rays(num_rays),
        whole(rays.data && rays.ray_stride == 1 && num_rays % kRays == 0 && rays.row_stride % kRays == 0 &&
              rays.batch_stride % kRays == 0 && reinterpret_cast<uintptr_t>(rays.data) % alignof(Quad<Number>) == 0) {}

  // Missing rays are 0.
  __device__ void read(int64_t row, int64_t k, SumOf<Number> (&into)[kRays]) const {
    const Row<T> from = row_of(rays, row);
    if (whole) {
      const auto quad = *reinterpret_cast<Whole*>(from.data + k);
#pragma unroll
      for (int j = 0; j < kRays; ++j) into[j] = static_cast<SumOf<Number>>(quad.ray[j]);
    } else {
#pragma unroll
      for (int j = 0; j < kRays; ++j) into[j] = k + j < num_rays ? from[k + j] : SumOf<Number>(0);
    }
  }

  __device__ void write(int64_t row, int64_t k, const SumOf<Number> (&from)[kRays]) const {
    if (!rays.data) return;
    const Row<T> to = row_of(rays, row);
    if (whole) {
      Quad<Number> quad;
#pragma unroll
      for (int j = 0; j < kRays; ++j) quad.ray[j] = static_cast<Number>(from[j]);
      *reinterpret_cast<Whole*>(to.data + k) = quad;
    } else {
#pragma unroll
      for (int j = 0; j < kRays; ++j)
        if (k + j < num_rays) to.at(k + j) = static_cast<Number>(from[j]);
    }
  }
};

// body(k) for the first ray of each quad of this lane.
template <class Body>
__device__ void for_quads(int64_t num_rays, Body&& body) {
  for (int64_t k = threadIdx.x % kThreadsPerRow * kRays; k < num_rays; k += kThreadsPerRow * kRays) body(k);
}

// body(row, whether it exists); called by all lanes of a warp, which shuffles need.
template <class Body>
__device__ void for_rows(int64_t rows, Body&& body) {
  const int64_t stride = gridDim.x * int64_t{kRowsPerBlock};
  for (int64_t first = blockIdx.x * int64_t{kRowsPerBlock}; first < rows; first += stride) {
    const int64_t row = first + threadIdx.x / kThreadsPerRow;
    body(row, row < rows);
  }
}

__device__ bool is_first_lane() { return threadIdx.x % kThreadsPerRow == 0; }

// Over the lanes of a row; all of them get the result.
template <class T>
__device__ T row_sum(T value) {
  for (int by = 1; by < kThreadsPerRow; by *= 2) value += __shfl_xor_sync(~0u, value, by);
  return value;
}

// Over the threads of a block, in a fixed order.
__device__ Totals block_sum(Totals total) {
  __shared__ Totals parts[kThreads / kWarpSize];
  for (int by = kWarpSize / 2; by > 0; by /= 2)
    total = total + Totals{__shfl_xor_sync(~0u, total.value, by), __shfl_xor_sync(~0u, total.weight, by)};
  if (threadIdx.x % kWarpSize == 0) parts[threadIdx.x / kWarpSize] = total;
  __syncthreads();
  Totals sum{0, 0};
  for (const Totals& part : parts) sum = sum + part;
  return sum;
}

template <class T>
__global__ void __launch_bounds__(kThreads, kForwardBlocks) polar_iou_kernel(PolarIouParams<T> p) {
  using Sum = SumOf<T>;
  const Quads<const T> pred(p.in.pred, p.in.num_rays), target(p.in.target, p.in.num_rays);
  Totals total{0, 0};
  for_rows(p.in.rows, [&](int64_t row, bool exists) {
    auto own = no_ray_sums<Sum>();
    const bool present = exists && !is_absent(p.in, row);
    if (present) {
      with_options(p.in, [&]<int power, bool log_pred>() {
        for_quads(p.in.num_rays, [&](int64_t k) {
          Sum a[kRays], b[kRays];
          pred.read(row, k, a);
          target.read(row, k, b);
#pragma unroll
          for (int j = 0; j < kRays; ++j)
            if (k + j < p.in.num_rays) add_ray<power, log_pred>(a[j], b[j], own);
        });
      });
    }
    const RowSums<Sum> sums{row_sum(own.sums.difference), row_sum(own.sums.smaller)};
    const bool negative = row_sum(static_cast<int>(own.lowest < 0)) != 0;
    if (!exists || !is_first_lane()) return;
    RowSums<double> kept{sums.difference, sums.smaller};
    Sum value{};
    if (present && (negative || !is_plain(sums))) {
      with_options(p.in, [&]<int power, bool log_pred>() { kept = careful_sums<power, log_pred>(p.in, row); });
      value = kept_value<Sum>(kept, p.in.log);
    } else if (present) {
      value = value_of(sums, p.in.log);
    }
    total = total + finish_row(p, row, kept, value);
  });
  if (p.reduction == Reduction::kNone) {
    if (blockIdx.x == 0 && threadIdx.x == 0) finish(p, total);
    return;
  }
  total = block_sum(total);
  if (threadIdx.x == 0) p.parts[blockIdx.x] = total;
}

template <class T>
__global__ void __launch_bounds__(kThreads) polar_iou_finish_kernel(PolarIouParams<T> p) {
  Totals total{0, 0};
  for (int64_t part = threadIdx.x; part < p.num_parts; part += kThreads) total = total + p.parts[part];
  total = block_sum(total);
  if (threadIdx.x == 0) finish(p, total);
}

// body(a number of the type to compute a row in): double where it is not plain.
template <class Sum, class Body>
__device__ void in_type_of(RowSums<double> sums, Body&& body) {
  if constexpr (std::is_same_v<Sum, double>) {
    body(0.0);
  } else {
    is_plain(sums) ? body(Sum(0)) : body(0.0);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, kBackwardBlocks) polar_iou_backward_kernel(PolarIouBackwardParams<T> p) {
  using Sum = SumOf<T>;
  const int64_t num_rays = p.in.num_rays;
  const Quads<const T> pred(p.in.pred, num_rays), target(p.in.target, num_rays);
  const Quads<T> grad_pred(p.grad_pred, num_rays), grad_target(p.grad_target, num_rays);
  for_rows(p.in.rows, [&](int64_t row, bool exists) {
    if (!exists) return;
    const bool present = has_gradient(p, row);
    if (p.grad_weight && is_first_lane()) p.grad_weight[row] = present ? weight_gradient(p, row) : Sum(0);
    if (!present) {
      for_quads(num_rays, [&](int64_t k) {
        grad_pred.write(row, k, {});
        grad_target.write(row, k, {});
      });
      return;
    }
    in_type_of<Sum>(p.sums[row], [&]<class V>(V) {
      const auto from = row_gradient(rounded<V>(p.sums[row]), row_scale<V>(p, row), p.in.log);
      with_options(p.in, [&]<int power, bool log_pred>() {
        for_quads(num_rays, [&](int64_t k) {
          Sum a[kRays], b[kRays], to_pred[kRays], to_target[kRays];
          pred.read(row, k, a);
          target.read(row, k, b);
#pragma unroll
          for (int j = 0; j < kRays; ++j) {
            V by_pred, by_target;
            ray_gradients<V>(from, power_of<power, log_pred, V>(a[j]), power_of<power, false, V>(b[j]), by_pred,
                             by_target);
            to_pred[j] = static_cast<Sum>(by_pred);
            to_target[j] = static_cast<Sum>(by_target);
          }
          grad_pred.write(row, k, to_pred);
          grad_target.write(row, k, to_target);
        });
      });
    });
  });
}

template <class T>
struct QuadAlong {
  SumOf<T> pred[kRays], target[kRays], along_pred[kRays], along_target[kRays];
};

template <class T>
__global__ void __launch_bounds__(kThreads, kBackwardBlocks)
    polar_iou_double_backward_kernel(PolarIouDoubleBackwardParams<T> p) {
  using Sum = SumOf<T>;
  const int64_t num_rays = p.in.num_rays;
  const Quads<const T> pred(p.in.pred, num_rays), target(p.in.target, num_rays);
  const Quads<const T> along_pred(p.along_pred, num_rays), along_target(p.along_target, num_rays);
  const Quads<T> grad_pred(p.grad_pred, num_rays), grad_target(p.grad_target, num_rays);
  const auto read_quads = [&](int64_t row, int64_t k) {
    QuadAlong<T> quad;
    pred.read(row, k, quad.pred);
    target.read(row, k, quad.target);
    along_pred.read(row, k, quad.along_pred);
    along_target.read(row, k, quad.along_target);
    return quad;
  };
  for_rows(p.in.rows, [&](int64_t row, bool exists) {
    const bool present = exists && has_gradient(p, row);
    // In double for all: few call this, and its sums are shuffled by whole warps, of plain rows and others.
    double larger = 0, smaller = 0;
    with_options(p.in, [&]<int power, bool log_pred>() {
      for_quads(present ? num_rays : 0, [&](int64_t k) {
        const QuadAlong<T> q = read_quads(row, k);
#pragma unroll
        for (int j = 0; j < kRays; ++j)
          if (k + j < num_rays)
            ray_tangent<power, log_pred, double>(q.pred[j], q.target[j], q.along_pred[j], q.along_target[j], larger,
                                                 smaller);
      });
    });
    larger = row_sum(larger);
    smaller = row_sum(smaller);
    if (!exists) return;
    if (!present) {
      if (is_first_lane()) p.tangent[row] = 0;
      for_quads(num_rays, [&](int64_t k) {
        grad_pred.write(row, k, {});
        grad_target.write(row, k, {});
      });
      return;
    }
    const Derivatives<double> f = derivatives_of(p.sums[row], p.in.log);
    if (is_first_lane()) p.tangent[row] = static_cast<Sum>(f.larger * larger + f.smaller * smaller);
    const auto from = row_second_gradient<double>(f, p.row_scale[row], p.value_scale[row], larger, smaller);
    with_options(p.in, [&]<int power, bool log_pred>() {
      for_quads(num_rays, [&](int64_t k) {  // from cache: a block's rows fit
        Sum to_pred[kRays], to_target[kRays];
        const QuadAlong<T> q = read_quads(row, k);
#pragma unroll
        for (int j = 0; j < kRays; ++j) {
          double by_pred, by_target;
          ray_second_gradients<power, log_pred, double>(from, q.pred[j], q.target[j], q.along_pred[j],
                                                        q.along_target[j], by_pred, by_target);
          to_pred[j] = static_cast<Sum>(by_pred);
          to_target[j] = static_cast<Sum>(by_target);
        }
        grad_pred.write(row, k, to_pred);
        grad_target.write(row, k, to_target);
      });
    });
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads) polar_centerness_kernel(PolarCenternessParams<T> p) {
  using Sum = SumOf<T>;
  const Quads<const T> rays(p.rays, p.num_rays);
  for_rows(p.rows, [&](int64_t row, bool exists) {
    Extent<Sum> extent = no_rays<Sum>();
    for_quads(exists ? p.num_rays : 0, [&](int64_t k) {
      Sum ray[kRays];
      rays.read(row, k, ray);
#pragma unroll
      for (int j = 0; j < kRays; ++j)
        if (k + j < p.num_rays) extent = add_ray(extent, ray[j]);
    });
    for (int by = 1; by < kThreadsPerRow; by *= 2)
      extent = join(extent, {__shfl_xor_sync(~0u, extent.shortest, by), __shfl_xor_sync(~0u, extent.longest, by)});
    if (exists && is_first_lane()) p.centerness[row] = centerness_of(extent);
  });
}

int64_t blocks_for(int64_t rows) { return ceil_div(rows, kRowsPerBlock); }

}  // namespace

template <class T>
cudaError_t launch_polar_iou(const PolarIouParams<T>& p, cudaStream_t stream) {
  const cudaError_t error = launch(polar_iou_kernel<T>, p.num_parts, kThreads, 0, stream, p);
  if (error != cudaSuccess || p.reduction == Reduction::kNone) return error;
  return launch(polar_iou_finish_kernel<T>, 1, kThreads, 0, stream, p);
}

template <class T>
cudaError_t launch_polar_iou_backward(const PolarIouBackwardParams<T>& p, cudaStream_t stream) {
  return launch(polar_iou_backward_kernel<T>, blocks_for(p.in.rows), kThreads, 0, stream, p);
}

template <class T>
cudaError_t launch_polar_iou_double_backward(const PolarIouDoubleBackwardParams<T>& p, cudaStream_t stream) {
  return launch(polar_iou_double_backward_kernel<T>, blocks_for(p.in.rows), kThreads, 0, stream, p);
}

template <class T>
cudaError_t launch_polar_centerness(const PolarCenternessParams<T>& p, cudaStream_t stream) {
  return launch(polar_centerness_kernel<T>, blocks_for(p.rows), kThreads, 0, stream, p);
}

#define POLARMASK_INSTANTIATE(T)                                                                               \
  template cudaError_t launch_polar_iou(const PolarIouParams<T>&, cudaStream_t);                               \
  template cudaError_t launch_polar_iou_backward(const PolarIouBackwardParams<T>&, cudaStream_t);              \
  template cudaError_t launch_polar_iou_double_backward(const PolarIouDoubleBackwardParams<T>&, cudaStream_t); \
  template cudaError_t launch_polar_centerness(const PolarCenternessParams<T>&, cudaStream_t);
POLARMASK_INSTANTIATE(Half)
POLARMASK_INSTANTIATE(BFloat16)
POLARMASK_INSTANTIATE(float)
POLARMASK_INSTANTIATE(double)

}  // namespace polarmask::polar_iou
