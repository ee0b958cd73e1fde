// B images of L points of C classes, s bytes each. Bound by memory: a comparison for each logit, some 60 operations for
// each point. At 3.35 TB/s, the five levels of 800 × 1280 pixels (21,330 points) with 80 classes in float32:
//
//     scores   reads BL(C + 1)s   writes 4BL           6.9 MB   2.1 µs
//     choose   reads 4BL for each digit, from the second cache; writes 8BS (S = 4,330 for k = 1,000)
//     rank     compares each of the k best of a level with the others, 4 million times: 0.5 µs
//
// so that launches, 2–3 µs each, and the barriers of `choose` are most of it. torch writes and reads all scores once
// more, and sorts.
//
// Design: in `scores` a block takes 32 points and its eighths the classes by turns, so that a few thousand points fill
// the chip and each warp reads neighbours: points where they are neighbours, else classes. `choose` has a block for
// each level of each image: the k-th largest key is found digit by digit from the top, by counting the keys of each
// value of a digit, until all that share the digits so far are wanted; keys are different, so it is exact. What is not
// below goes to a list in any order: `rank` counts for each key of the list how many are larger, and that is its place,
// whatever the schedule. k² comparisons, but no sort with its barriers, and no limit of shared memory on k.
#include "common/cuda/scan.cuh"
#include "ops/top_scores/top_scores.h"

namespace polarmask::top_scores {
namespace {

constexpr int kThreads = 256;
constexpr int kPoints = kWarpSize, kSlices = kThreads / kPoints;  // of a block of `scores`
constexpr int64_t kScoreBlocks = 1024;                            // all that a large chip holds at a time

constexpr int kChooseThreads = 1024;
constexpr int kDigit = 11;  // bits
constexpr int kBins = 1 << kDigit;
static_assert(kBins == 2 * kChooseThreads);

template <class T>
__global__ void __launch_bounds__(kThreads) scores_kernel(TopScoresParams<T> p) {
  using Score = SumOf<T>;
  __shared__ Score parts[kSlices][kPoints + 1];  // one more: slices of a point lie in different banks
  const bool points_are_neighbours = p.logits_point <= p.logits_class;
  const int own = points_are_neighbours ? threadIdx.x % kPoints : threadIdx.x / kSlices;
  const int slice = points_are_neighbours ? threadIdx.x / kPoints : threadIdx.x % kSlices;
  const int64_t total = p.images * p.points;
  for (int64_t first = blockIdx.x * int64_t{kPoints}; first < total; first += gridDim.x * int64_t{kPoints}) {
    Score largest = lowest_logit<Score>();
    if (first + own < total) {
      const int64_t image = (first + own) / p.points, point = (first + own) % p.points;
      const T* const logits = p.logits + image * p.logits_image + point * p.logits_point;
#pragma unroll 5
      for (int64_t c = slice; c < p.classes; c += kSlices)
        largest = larger_logit(largest, static_cast<Score>(logits[c * p.logits_class]));
    }
    parts[slice][own] = largest;
    __syncthreads();
    const int64_t at = first + threadIdx.x;
    if (threadIdx.x < kPoints && at < total) {
      largest = parts[0][threadIdx.x];
      for (int s = 1; s < kSlices; ++s) largest = larger_logit(largest, parts[s][threadIdx.x]);
      const T centerness = p.centerness[at / p.points * p.centerness_image + at % p.points * p.centerness_point];
      p.scores[at] = score_of_logits(largest, static_cast<Score>(centerness));
    }
    __syncthreads();  // before the next points' parts are written
  }
}

// Where the wanted keys end: those with larger digits are in, and of `bin` that have these digits, `wanted`.
template <class Key>
struct Edge {
  Key key;
  int32_t wanted, bin;
};

// A block for each level of each image.
template <class T>
__global__ void __launch_bounds__(kChooseThreads) choose_kernel(TopScoresParams<T> p) {
  using Key = KeyOf<SumOf<T>>;
  __shared__ int32_t bins[kBins];
  __shared__ Edge<Key> found;
  const int64_t levels = p.levels.count;
  for (int64_t task = blockIdx.x; task < p.images * levels; task += gridDim.x) {
    const int64_t image = task / levels;
    const ScoreLevel level = p.levels.level[task % levels];  // by index: a pointer would copy the parameters
    const SumOf<T>* const scores = p.scores + image * p.points + level.first_point;
    Edge<Key> edge{0, static_cast<int32_t>(level.count), static_cast<int32_t>(level.points)};
    for (int above = 8 * sizeof(Key); edge.wanted < edge.bin; above -= kDigit) {
      const int shift = above > kDigit ? above - kDigit : 0;
      const auto digit_of = [&](Key key) { return static_cast<int>(key >> shift) & (kBins - 1); };
      const auto is_open = [&](Key key) { return above == 8 * sizeof(Key) || (key ^ edge.key) >> above == 0; };
      for (int bin = threadIdx.x; bin < kBins; bin += kChooseThreads) bins[bin] = 0;
      __syncthreads();
      for (int64_t n = threadIdx.x; n < level.points; n += kChooseThreads) {
        const Key key = key_of(scores[n], n);
        if (is_open(key)) atomicAdd(&bins[digit_of(key)], 1);
      }
      __syncthreads();
      // Two digits a thread, the largest first.
      const int larger = kBins - 1 - 2 * static_cast<int>(threadIdx.x);
      const int32_t of_larger = bins[larger], of_smaller = bins[larger - 1];
      int32_t total;
      const int32_t before = block_scan<kChooseThreads>(of_larger + of_smaller, total) - of_larger - of_smaller;
      const auto settle = [&](int digit, int32_t rest, int32_t bin) {
        if (0 < rest && rest <= bin) found = {edge.key | static_cast<Key>(digit) << shift, rest, bin};
      };
      settle(larger, edge.wanted - before, of_larger);
      settle(larger - 1, edge.wanted - before - of_larger, of_smaller);
      __syncthreads();
      edge = found;
    }
    Key* const keys = p.keys + image * p.best + level.first_best;
    for (int64_t n = threadIdx.x; n < level.points; n += kChooseThreads) {
      const Key key = key_of(scores[n], n);
      if (key >= edge.key) keys[atomicAdd(p.num_keys + task, 1)] = key;
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) rank_kernel(TopScoresParams<T> p) {
  using Key = KeyOf<SumOf<T>>;
  const int64_t total = p.images * p.best, stride = gridDim.x * int64_t{kThreads};
  for (int64_t n = blockIdx.x * int64_t{kThreads} + threadIdx.x; n < total; n += stride) {
    int k = 0;
    while (k + 1 < p.levels.count && p.levels.level[k + 1].first_best <= n % p.best) ++k;
    const ScoreLevel level = p.levels.level[k];
    const int64_t first = n / p.best * p.best + level.first_best;
    const Key own = p.keys[n];
    int64_t place = first;
    for (int64_t other = first; other < first + level.count; ++other) place += p.keys[other] > own;
    p.values[place] = score_of<SumOf<T>>(own);
    p.indices[place] = level.first_point + point_of_key(own);
  }
}

}  // namespace

template <class T>
cudaError_t launch_top_scores(const TopScoresParams<T>& p, cudaStream_t stream) {
  const int64_t lists = p.images * p.levels.count;
  if (lists == 0) return cudaSuccess;
  cudaError_t error = cudaMemsetAsync(p.num_keys, 0, sizeof *p.num_keys * static_cast<size_t>(lists), stream);
  const auto then = [&](auto kernel, int64_t blocks, unsigned threads) {
    if (error == cudaSuccess) error = launch(kernel, blocks, threads, 0, stream, p);
  };
  then(scores_kernel<T>, std::min(ceil_div(p.images * p.points, kPoints), kScoreBlocks), kThreads);
  then(choose_kernel<T>, lists, kChooseThreads);
  then(rank_kernel<T>, ceil_div(p.images * p.best, kThreads), kThreads);
  return error;
}

template cudaError_t launch_top_scores(const TopScoresParams<float>&, cudaStream_t);
template cudaError_t launch_top_scores(const TopScoresParams<double>&, cudaStream_t);
template cudaError_t launch_top_scores(const TopScoresParams<Half>&, cudaStream_t);
template cudaError_t launch_top_scores(const TopScoresParams<BFloat16>&, cudaStream_t);

}  // namespace polarmask::top_scores
