// N candidates of V vertices in float32, by rank. Bytes: 8NV are read for the summaries, 500,000 of 36 are 144 MB or
// 43 µs at 3.35 TB/s. Operations: 10 for the bounds of each pair that is looked at, some 40,000 in double for each pair
// that they leave open (polygons of 36; 4,000 for stars): of 1,000 candidates 10,000 pairs, 12 µs at 33 TFLOP/s.
// Besides, launches: 2–3 µs each. 1,000 candidates take four, and whatever the sort takes.
//
// Design: greedy NMS is serial by rank, so ranks are resolved in steps of 1,024, three launches each, without a word
// from the host in between:
//
//     conflicts  tiles of 64 × 64 pairs of the step that are still candidates: a bit for each pair that suppresses
//     resolve    one block, 64 ranks at a time: one thread walks the 64 bits, all clear what the kept ones suppress
//     suppress   tiles of 64 later ranks against the kept ones of the step: a bit for each rank that falls
//
// Bits are set in shared memory, and each word is written by one block: results do not depend on the schedule, and
// memory is kStep² bits and some bytes a candidate, never a bit for each of the N² pairs. The bounds of all pairs of
// kept with later candidates are looked at: 500,000 candidates of which a quarter is kept make 3·10¹⁰ of them, some
// 10 ms, less than the exact intersections. Once max_output are kept, launches do nothing.
#include "ops/polygon_iou/cuda/overlap.cuh"
#include "ops/polygon_nms/polygon_nms.h"

namespace polarmask::polygon_nms {
namespace {

constexpr int kTilePairs = kTile * kTile;
constexpr int64_t kWords = kStep / kTile;

template <class Geometry>
__device__ bool is_full(const NmsParams<Geometry>& p) {
  return *p.scratch.num_kept >= p.rule.max_output;
}

// Whether the pair of ranks is left open by its bounds; a is the better rank.
template <class Geometry>
__device__ bool may_suppress(const NmsParams<Geometry>& p, int64_t a, int64_t b) {
  if (!boxes_overlap(p.scratch.boxes[a], p.scratch.boxes[b])) return false;
  if (p.in.classes && p.in.classes[p.in.order[a]] != p.in.classes[p.in.order[b]]) return false;
  return may_exceed(p.scratch.shapes[a], p.scratch.shapes[b], p.rule.metric, p.rule.threshold);
}

// The same for the intersection, by a team.
template <class Geometry>
__device__ bool suppresses(const NmsParams<Geometry>& p, const Intersector<Geometry>& intersect, int64_t a, int64_t b) {
  const Overlap overlap = intersect(p.in.order[a], p.scratch.shapes[a], p.in.order[b], p.scratch.shapes[b]);
  return exceeds(overlap, p.rule.metric, p.rule.threshold);
}

__device__ bool has(Word word, int bit) { return (word >> bit & 1) != 0; }

// A block for each word of `dead`.
template <class Geometry>
__global__ void __launch_bounds__(kThreads) candidates_kernel(NmsParams<Geometry> p) {
  __shared__ Word dead;
  const Intersector<Geometry> with_directions(p.geometry, p.geometry, false);
  for (int64_t first = blockIdx.x * kTile; first < p.in.count; first += gridDim.x * kTile) {
    if (threadIdx.x == 0) dead = 0;
    __syncthreads();
    for (int n = team(); n < kTile; n += kTeams) {
      const int64_t rank = first + n;
      Shape shape{};
      if (rank < p.in.count && !p.in.scores.is_nan(rank)) shape = team_shape(with_directions.a, p.in.order[rank]);
      if (team_lane() != 0) continue;
      if (!shape.finite) atomicOr(&dead, Word{1} << n);
      if (rank >= p.in.count) continue;
      p.scratch.shapes[rank] = shape;
      p.scratch.boxes[rank] = outer_box(shape.box);
    }
    __syncthreads();
    if (threadIdx.x == 0) p.scratch.dead[first / kTile] = dead;
  }
}

// A block for each tile at or above the diagonal of the step that begins at rank `begin`.
template <class Geometry>
__global__ void __launch_bounds__(kThreads, kExactBlocks)
    conflicts_kernel(NmsParams<Geometry> p, int64_t begin, bool in_shared) {
  __shared__ List<kTilePairs> list;
  __shared__ Word found[kTile];
  if (is_full(p)) return;
  const Intersector<Geometry> intersect(p.geometry, p.geometry, in_shared);
  int64_t column = 0;
  while ((column + 1) * (column + 2) / 2 <= blockIdx.x) ++column;  // in column c there are c + 1 tiles
  const int64_t row = blockIdx.x - column * (column + 1) / 2;
  const int64_t first_row = begin + row * kTile, first_column = begin + column * kTile;
  const Word dead_rows = p.scratch.dead[first_row / kTile], dead_columns = p.scratch.dead[first_column / kTile];
  if (threadIdx.x < kTile) found[threadIdx.x] = 0;
  for_listed(
      list, kTilePairs,
      [&](int n) {
        const int r = n / kTile, c = n % kTile;
        if (has(dead_rows, r) || has(dead_columns, c) || first_row + r >= first_column + c) return false;
        return may_suppress(p, first_row + r, first_column + c);
      },
      [&](int n) {
        const int r = n / kTile, c = n % kTile;
        if (suppresses(p, intersect, first_row + r, first_column + c) && team_lane() == 0)
          atomicOr(&found[r], Word{1} << c);
      });
  if (threadIdx.x < kTile) p.scratch.conflicts[(row * kTile + threadIdx.x) * kWords + column] = found[threadIdx.x];
}

// One block.
template <class Geometry>
__global__ void __launch_bounds__(kThreads) resolve_kernel(NmsParams<Geometry> p, int64_t begin) {
  __shared__ Word removed[kWords], diagonal[kTile], kept_of_tile;
  const int64_t before = *p.scratch.num_kept;
  const int64_t words = min_of(ceil_div(p.in.count - begin, kTile), kWords);
  if (threadIdx.x < words) removed[threadIdx.x] = p.scratch.dead[begin / kTile + threadIdx.x];
  __syncthreads();  // where nothing is left to keep: before the new number kept
  int64_t total = before;
  for (int64_t word = 0; word < words && total < p.rule.max_output; ++word) {
    const Word* const rows = p.scratch.conflicts + word * kTile * kWords;
    if (threadIdx.x < kTile) diagonal[threadIdx.x] = rows[threadIdx.x * kWords + word];
    __syncthreads();
    if (threadIdx.x == 0) {
      Word kept = 0;
      for (Word alive = ~removed[word]; alive;) {
        const int best = __ffsll(static_cast<long long>(alive)) - 1;
        kept |= Word{1} << best;
        alive &= ~(Word{1} << best | diagonal[best]);
      }
      kept_of_tile = kept;
    }
    __syncthreads();
    const Word kept = kept_of_tile;
    if (threadIdx.x < kTile && has(kept, threadIdx.x)) {
      const int64_t rank = begin + word * kTile + threadIdx.x;
      const int64_t at = total + __popcll(kept & ((Word{1} << threadIdx.x) - 1));
      if (at < p.rule.max_output) {
        p.kept[at] = p.in.order[rank];
        p.scratch.step_kept[at - before] = rank;
      }
    }
    for (int64_t n = threadIdx.x; n < kTile * kWords; n += kThreads)
      if (n % kWords > word && n % kWords < words && has(kept, static_cast<int>(n / kWords)))
        atomicOr(&removed[n % kWords], rows[n]);
    total += __popcll(kept);
  }
  if (threadIdx.x != 0) return;
  total = min_of(total, p.rule.max_output);
  *p.scratch.num_kept = total;
  *p.scratch.num_step_kept = total - before;
}

// A block for each word of `dead` from rank `begin` on.
template <class Geometry>
__global__ void __launch_bounds__(kThreads, kExactBlocks)
    suppress_kernel(NmsParams<Geometry> p, int64_t begin, bool in_shared) {
  __shared__ List<kTilePairs> list;
  __shared__ Word dead;
  if (is_full(p)) return;
  const Intersector<Geometry> intersect(p.geometry, p.geometry, in_shared);
  const int64_t num_kept = *p.scratch.num_step_kept;
  for (int64_t first = begin + blockIdx.x * kTile; first < p.in.count; first += gridDim.x * kTile) {
    if (threadIdx.x == 0) dead = p.scratch.dead[first / kTile];
    __syncthreads();
    for (int64_t k = 0; k < num_kept; k += kTile) {
      const Word dead_before = dead;
      for_listed(
          list, kTilePairs,
          [&](int n) {
            if (k + n / kTile >= num_kept || has(dead_before, n % kTile)) return false;
            return may_suppress(p, p.scratch.step_kept[k + n / kTile], first + n % kTile);
          },
          [&](int n) {
            if (suppresses(p, intersect, p.scratch.step_kept[k + n / kTile], first + n % kTile) && team_lane() == 0)
              atomicOr(&dead, Word{1} << n % kTile);
          });
    }
    if (threadIdx.x == 0) p.scratch.dead[first / kTile] = dead;
  }
}

}  // namespace

template <class Geometry>
cudaError_t launch_nms(const NmsParams<Geometry>& p, cudaStream_t stream) {
  cudaError_t error = cudaMemsetAsync(p.scratch.num_kept, 0, sizeof *p.scratch.num_kept, stream);
  if (error == cudaSuccess && p.rule.max_output > 0)
    error = cudaMemsetAsync(p.kept, 0xff, sizeof *p.kept * static_cast<size_t>(p.rule.max_output), stream);
  const auto then = [&](auto kernel, int64_t blocks, size_t bytes, auto... args) {
    if (error == cudaSuccess) error = launch(kernel, blocks, kThreads, bytes, stream, p, args...);
  };
  const size_t shared = Intersector<Geometry>::pair_bytes(p.geometry, p.geometry);
  then(candidates_kernel<Geometry>, ceil_div(p.in.count, kTile), Intersector<Geometry>::shape_bytes(p.geometry));
  for (int64_t begin = 0; begin < p.in.count; begin += kStep) {
    const int64_t tiles = ceil_div(min_of(p.in.count - begin, kStep), kTile);
    const int64_t later = ceil_div(max_of<int64_t>(p.in.count - begin - kStep, 0), kTile);
    then(conflicts_kernel<Geometry>, tiles * (tiles + 1) / 2, shared, begin, shared > 0);
    then(resolve_kernel<Geometry>, 1, 0, begin);
    then(suppress_kernel<Geometry>, later, shared, begin + kStep, shared > 0);
  }
  return error;
}

template cudaError_t launch_nms(const NmsParams<Polygons<float>>&, cudaStream_t);
template cudaError_t launch_nms(const NmsParams<Polygons<double>>&, cudaStream_t);
template cudaError_t launch_nms(const NmsParams<Stars<float>>&, cudaStream_t);
template cudaError_t launch_nms(const NmsParams<Stars<double>>&, cudaStream_t);

}  // namespace polarmask::polygon_nms
