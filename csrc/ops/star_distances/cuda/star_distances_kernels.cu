// An image of P pixels, R rays: writes 4PR bytes, and reads labels (from cache: neighbours walk side by side) as often
// as rays are long. 1024², R = 32, objects of 16 pixels across: 134 MB, 40 µs at 3.35 TB/s; 17 M walks of some 8 steps
// of about 12 operations are 1.6 G operations, 50 µs of integer arithmetic. One object of 1024² pixels: some 50 looks a
// walk (star_distances.h), 20 G operations, 600 µs; without skipping 340 G.
//
// The reaches of the cells are found first, a thread to a cell in three launches: they read the labels once more, 1 to
// 8 MB, and at most 2 · 255 bytes a cell.
//
// Design: a thread to a pixel, a block to one ray and a share of the image. What its pixels have in common, the steps
// of StarDist's rule or the sides of the exact one, is a table in shared memory; the rare steps beyond it are computed.
// So no step divides, and rays of any length cost no memory.
#include <algorithm>

#include "common/cuda/launch.cuh"
#include "ops/star_distances/star_distances.h"

namespace polarmask::star_distances {
namespace {

constexpr int kThreads = 256;
constexpr int kSteps = 256;                         // in the table
constexpr int64_t kPixelsPerBlock = 16 * kThreads;  // of one ray: the table costs a sixteenth of the walks

// To where a walk of StarDist's rule goes in n steps, n ≥ 1, from an even or odd row and column.
class NearestSteps {
 public:
  // Blocks per multiprocessor, at least: caps registers per thread. Without the bound nvcc 13 spills on sm_120.
  static constexpr int kMinBlocks = 4;

  // Must be called by all threads of the block.
  __device__ explicit NearestSteps(Vec2<double> direction)
      : direction_(direction), ahead_(0.5 / max_of(absolute(direction.x), absolute(direction.y))) {
    __shared__ Offset table[4][kSteps];
    for (int k = threadIdx.x; k < 4 * kSteps; k += kThreads) {
      const Step step = stardist_step(k % kSteps + 1, direction, {k / kSteps & 1, k / kSteps >> 1});
      table[k / kSteps][k % kSteps] = {static_cast<int16_t>(step.dx), static_cast<int16_t>(step.dy)};
    }
    __syncthreads();
    table_ = table;
  }

  template <class IsInside>
  __device__ float walk(int64_t row, int64_t column, const Cells& cells, IsInside&& is_inside) const {
    const Offset* const steps = table_[(row & 1) * 2 + (column & 1)];
    int64_t y = row, x = column;  // after n steps
    const auto leaves_by = [&](int64_t n) {
      if (n <= kSteps) {
        y = row + steps[n - 1].dy, x = column + steps[n - 1].dx;
      } else {
        const Step step = stardist_step(n, direction_, {column & 1, row & 1});
        y = row + step.dy, x = column + step.dx;
      }
      return !is_inside(y, x);
    };
    for (int64_t n = 0;;) {
      for (const int64_t stop = n + kBurst; n < stop;)
        if (leaves_by(++n)) return distance(n);
      for (int64_t room = cells.room(y, x); room > 0; room = cells.room(y, x)) {
        n += room + 1;
        if (leaves_by(n)) return distance(n);
      }
    }
  }

 private:
  struct Offset {
    int16_t dx, dy;  // pixels
  };

  __device__ float distance(int64_t n) const { return static_cast<float>(static_cast<double>(n - 1) + ahead_); }

  Vec2<double> direction_;
  double ahead_;  // pixels, of the last pixel's middle
  const Offset (*table_)[kSteps];
};

class ExactSteps {
 public:
  // As above. With a bound of 4, which leaves 64 registers, nvcc 13 spills on sm_90.
  static constexpr int kMinBlocks = 3;

  // Must be called by all threads of the block.
  __device__ explicit ExactSteps(Vec2<double> direction) : direction_(direction) {
    __shared__ double sides[2][kSteps];
    for (int k = threadIdx.x; k < 2 * kSteps; k += kThreads)
      sides[k / kSteps][k % kSteps] = side_distance(k % kSteps, k < kSteps ? direction.x : direction.y);
    __syncthreads();
    sides_ = sides;
  }

  template <class IsInside>
  __device__ float walk(int64_t row, int64_t column, const Cells& cells, IsInside&& is_inside) const {
    Step step{0, 0, 0};
    const auto room = [&] { return cells.room(row + step.dy, column + step.dx); };
    const auto leaves = [&] {
      const int64_t x = absolute(step.dx), y = absolute(step.dy);
      step = exact_step(step, direction_, x < kSteps ? sides_[0][x] : side_distance(x, direction_.x),
                        y < kSteps ? sides_[1][y] : side_distance(y, direction_.y));
      return !is_inside(row + step.dy, column + step.dx);
    };
    for (;;) {
      for (int64_t n = 0; n < kBurst; ++n)
        if (leaves()) return static_cast<float>(step.distance);
      for (int64_t free = room(); free > 0; free = room()) {
        step = exact_jump(step, direction_, free);
        if (leaves()) return static_cast<float>(step.distance);
      }
    }
  }

 private:
  Vec2<double> direction_;
  const double (*sides_)[kSteps];
};

enum class Pass { kUniform, kWidth, kReach };

template <Pass pass, class T>
__global__ void __launch_bounds__(kThreads) cells_kernel(StarDistancesParams<T> p) {
  const int64_t first = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  for (int64_t cell = first; cell < p.cells.count(); cell += gridDim.x * int64_t{kThreads}) {
    if constexpr (pass == Pass::kUniform) find_uniform(p, cell);
    if constexpr (pass == Pass::kWidth) find_width(p, cell);
    if constexpr (pass == Pass::kReach) find_reach(p, cell);
  }
}

template <class Steps, class T>
__global__ void __launch_bounds__(kThreads, Steps::kMinBlocks)
    star_distances_kernel(StarDistancesParams<T> p, int64_t blocks_per_ray) {
  const int64_t pixels = p.height * p.width;
  for (int64_t task = blockIdx.x; task < p.num_rays * blocks_per_ray; task += gridDim.x) {
    const int64_t ray = task / blocks_per_ray;
    const Steps steps(ray_direction(ray, p.num_rays));
    for (int64_t k = task % blocks_per_ray * kThreads + threadIdx.x; k < pixels; k += blocks_per_ray * kThreads) {
      const int64_t row = k / p.width, column = k % p.width;
      const T label = p.labels[k];
      const auto is_inside = [&](int64_t y, int64_t x) {
        return 0 <= y && y < p.height && 0 <= x && x < p.width && p.labels[y * p.width + x] == label;
      };
      p.distances[ray * pixels + k] = label == 0 ? 0.0f : steps.walk(row, column, p.cells, is_inside);
    }
    __syncthreads();  // before the table of the next ray
  }
}

}  // namespace

template <class T>
cudaError_t launch_star_distances(const StarDistancesParams<T>& p, cudaStream_t stream) {
  const int64_t cell_blocks = ceil_div(p.cells.count(), kThreads);
  cudaError_t error = launch(cells_kernel<Pass::kUniform, T>, cell_blocks, kThreads, 0, stream, p);
  if (error == cudaSuccess) error = launch(cells_kernel<Pass::kWidth, T>, cell_blocks, kThreads, 0, stream, p);
  if (error == cudaSuccess) error = launch(cells_kernel<Pass::kReach, T>, cell_blocks, kThreads, 0, stream, p);
  if (error != cudaSuccess) return error;
  const int64_t blocks_per_ray = ceil_div(p.height * p.width, kPixelsPerBlock), blocks = p.num_rays * blocks_per_ray;
  return p.exact ? launch(star_distances_kernel<ExactSteps, T>, blocks, kThreads, 0, stream, p, blocks_per_ray)
                 : launch(star_distances_kernel<NearestSteps, T>, blocks, kThreads, 0, stream, p, blocks_per_ray);
}

template cudaError_t launch_star_distances(const StarDistancesParams<uint8_t>&, cudaStream_t);
template cudaError_t launch_star_distances(const StarDistancesParams<uint16_t>&, cudaStream_t);
template cudaError_t launch_star_distances(const StarDistancesParams<uint32_t>&, cudaStream_t);
template cudaError_t launch_star_distances(const StarDistancesParams<uint64_t>&, cudaStream_t);

}  // namespace polarmask::star_distances
