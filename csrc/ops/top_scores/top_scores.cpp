#include "ops/top_scores/top_scores.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <tuple>
#include <vector>

#include "common/host/check.h"
#include "common/host/device.h"
#include "common/host/torch.h"

namespace polarmask::top_scores {

#ifdef POLARMASK_WITH_CUDA
template <class T>
cudaError_t launch_top_scores(const TopScoresParams<T>&, cudaStream_t);
#endif

namespace {

// Points of a task. A row of them for each class is long enough for the memory to run ahead, and the largest logits so
// far stay in the first cache.
constexpr int64_t kTile = 2048;

// largest[n] = the largest logit of n points, C rows of neighbours.
template <class T>
void largest_of_rows(const T* logits, int64_t class_stride, int64_t classes, int64_t points, T* largest) {
  std::fill_n(largest, points, lowest_logit<T>());
  const auto row = [&](int64_t c) { return logits + min_of(c, classes - 1) * class_stride; };
  for (int64_t c = 0; c < classes; c += 4) {  // the last of them more than once
    const T *const a = row(c), *const b = row(c + 1), *const d = row(c + 2), *const e = row(c + 3);
    for (int64_t n = 0; n < points; ++n)
      largest[n] = larger_logit(larger_logit(larger_logit(larger_logit(largest[n], a[n]), b[n]), d[n]), e[n]);
  }
}

// Of a point whose classes are neighbours.
template <class T>
T largest_of_neighbours(const T* logits, int64_t classes) {
  using V = Wide<T>;
  V largest = all<V>(lowest_logit<T>());
  for_vectors<V>(classes, [&](int64_t c, auto) { largest = larger_logit(largest, load<V>(logits + c)); });
  largest = larger_logit(largest, __builtin_shufflevector(largest, largest, 4, 5, 6, 7, 0, 1, 2, 3));
  return larger_logit(larger_logit(largest[0], largest[1]), larger_logit(largest[2], largest[3]));
}

template <class T>
T largest_of_any(const T* logits, int64_t class_stride, int64_t classes) {
  T largest = lowest_logit<T>();
  for (int64_t c = 0; c < classes; ++c) largest = larger_logit(largest, logits[c * class_stride]);
  return largest;
}

// The scores of at most kTile points.
template <class T>
void scores_of_tile(const TopScoresParams<T>& p, int64_t image, int64_t first, int64_t points) {
  using V = Wide<T>;
  T largest[kTile], centerness[kTile];
  const T* const logits = p.logits + image * p.logits_image + first * p.logits_point;
  if (p.logits_point == 1) {
    largest_of_rows(logits, p.logits_class, p.classes, points, largest);
  } else if (p.logits_class == 1 && p.classes >= kWidth) {
    for (int64_t n = 0; n < points; ++n) largest[n] = largest_of_neighbours(logits + n * p.logits_point, p.classes);
  } else {
    for (int64_t n = 0; n < points; ++n)
      largest[n] = largest_of_any(logits + n * p.logits_point, p.logits_class, p.classes);
  }
  const T* const given = p.centerness + image * p.centerness_image + first * p.centerness_point;
  for (int64_t n = 0; n < points; ++n) centerness[n] = given[n * p.centerness_point];
  T* const scores = p.scores + image * p.points + first;
  int64_t n = 0;
  for (; n + kWidth <= points; n += kWidth)
    store(scores + n, score_of_logits(load<V>(largest + n), load<V>(centerness + n)));
  for (; n < points; ++n) scores[n] = score_of_logits(largest[n], centerness[n]);
}

// A score by how far it lies below 1, in steps between neighbouring numbers: whole, and the best first.
template <class Score>
struct Distance {
  using Bits = typename detail::Lane<Score>::Unsigned;
  static constexpr Bits kOfOne = __builtin_bit_cast(Bits, Score(1));
  static constexpr int kBits = 8 * sizeof(Bits) - 2;  // the sign, and half of the exponents, are those of all scores

  Bits below_one;
  int32_t point;

  Distance() = default;
  Distance(Score score, int64_t point)
      : below_one(kOfOne - __builtin_bit_cast(Bits, score)), point(static_cast<int32_t>(point)) {}

  Score score() const { return __builtin_bit_cast(Score, static_cast<Bits>(kOfOne - below_one)); }
};

// By rising distance, equal ones in their order, digit by digit from the last. `spare` is as large.
template <class Score>
void sort_distances(std::vector<Distance<Score>>& distances, std::vector<Distance<Score>>& spare) {
  constexpr int kDigit = 10;  // bits; three make a float's distance
  for (int shift = 0; shift < Distance<Score>::kBits; shift += kDigit) {
    const auto digit_of = [&](const Distance<Score>& distance) {
      return static_cast<size_t>(distance.below_one >> shift) % (size_t{1} << kDigit);
    };
    std::array<int32_t, size_t{1} << kDigit> place{};
    for (const auto& distance : distances) ++place[digit_of(distance)];
    std::exclusive_scan(place.begin(), place.end(), place.begin(), 0);
    for (const auto& distance : distances) spare[place[digit_of(distance)]++] = distance;
    distances.swap(spare);
  }
}

// Counts the points in bins of distance, and sorts those in the bins that hold the best.
template <class T>
void best_of_level(const TopScoresParams<T>& p, int64_t image, const ScoreLevel& level) {
  constexpr int kBinBits = 12, kShift = Distance<T>::kBits - kBinBits;
  const T* const scores = p.scores + image * p.points + level.first_point;
  // Neighbours have bins of their own: many are alike, and to add to one number twice in a row takes twice as long.
  std::array<std::array<int32_t, 2>, size_t{1} << kBinBits> bins{};
  for (int64_t n = 0; n < level.points; ++n) ++bins[Distance<T>(scores[n], n).below_one >> kShift][n % 2];
  size_t end = 0;
  int64_t candidates = 0;
  for (; candidates < level.count; ++end) candidates += bins[end][0] + bins[end][1];

  std::vector<Distance<T>> distances(candidates + 1), spare(candidates);  // one more is written, and not kept
  int64_t found = 0;
  for (int64_t n = 0; n < level.points; ++n) {
    distances[found] = Distance<T>(scores[n], n);
    found += distances[found].below_one >> kShift < end;
  }
  distances.resize(candidates);
  sort_distances(distances, spare);
  const int64_t first = image * p.best + level.first_best;
  for (int64_t n = 0; n < level.count; ++n) {
    p.values[first + n] = distances[n].score();
    p.indices[first + n] = level.first_point + distances[n].point;
  }
}

template <class T>
void top_scores_cpu(const TopScoresParams<T>& p) {
  const int64_t tiles = ceil_div(p.points, kTile);
  parallel_for(0, p.images * tiles, 1, [&](int64_t begin, int64_t end) {
    with_isa([&] {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t first = task % tiles * kTile;
        scores_of_tile(p, task / tiles, first, min_of(kTile, p.points - first));
      }
    });
  });
  const int64_t levels = p.levels.count;
  parallel_for(0, p.images * levels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) best_of_level(p, task / levels, p.levels.level[task % levels]);
  });
}

ScoreLevels levels_of(const char* op, const std::vector<int64_t>& lengths, int64_t points, int64_t k) {
  check(std::ssize(lengths) <= kMaxScoreLevels, op, ": expected at most ", kMaxScoreLevels, " lengths, got ",
        lengths.size());
  ScoreLevels levels{};
  int64_t first_point = 0, first_best = 0;
  for (const int64_t length : lengths) {
    check(length >= 0 && length <= INT32_MAX, op, ": expected lengths from 0 to 2**31 - 1, got ", length);
    const int64_t count = min_of(k, length);
    if (count > 0) levels.level[levels.count++] = {first_point, length, first_best, count};
    first_point += length;
    first_best += count;
  }
  check(first_point == points, op, ": expected lengths that add up to the ", points, " points of logits, got ",
        first_point);
  return levels;
}

// -> values (B, S), indices (B, S)
std::tuple<Tensor, Tensor> top_scores(const Tensor& logits_in, const Tensor& centerness_in,
                                      const std::vector<int64_t>& lengths, int64_t k) {
  const char* op = "top_scores";
  check_dim(op, "logits", logits_in, 3, "(B, L, C)");
  check(logits_in.size(2) >= 1, op, ": expected logits of shape (B, L, C) with at least 1 class, got ",
        shape_of(logits_in));
  check_dim(op, "centerness", centerness_in, 2, "(B, L)");
  check_size(op, "centerness", centerness_in, 0, logits_in.size(0), "(B, L)");
  check_size(op, "centerness", centerness_in, 1, logits_in.size(1), "(B, L)");
  check_same_device(op, "centerness", centerness_in, "logits", logits_in);
  check_dtype(op, "logits", logits_in, kAnyFloat);
  check_same_dtype(op, "centerness", centerness_in, "logits", logits_in);
  check(k >= 0, op, ": expected k of at least 0, got ", k);
  const ScoreLevels levels = levels_of(op, lengths, logits_in.size(1), k);

  const Tensor logits = widened(logits_in), centerness = widened(centerness_in);
  const int64_t images = logits.size(0), points = logits.size(1);
  int64_t best = 0;
  for (int32_t n = 0; n < levels.count; ++n) best += levels.level[n].count;
  const ScalarType dtype = sum_dtype(logits);
  const int64_t keys_of_kernels = by_kernels(logits) ? images * best : 0;
  Tensor values = allocate(logits, {images, best}, dtype);
  Tensor indices = allocate(logits, {images, best}, ScalarType::Long);
  const Tensor scores = allocate(logits, {images, points}, dtype);
  const Tensor num_keys = allocate(logits, {images, levels.count}, ScalarType::Int);
  dispatch_any_float(logits.scalar_type(), [&]<class T>() {
    using Key = KeyOf<SumOf<T>>;
    const Tensor keys = allocate(logits, {keys_of_kernels, static_cast<int64_t>(sizeof(Key))}, ScalarType::Byte);
    const TopScoresParams<T> params{
        .logits = static_cast<const T*>(logits.const_data_ptr()),
        .logits_image = logits.stride(0),
        .logits_point = logits.stride(1),
        .logits_class = logits.stride(2),
        .centerness = static_cast<const T*>(centerness.const_data_ptr()),
        .centerness_image = centerness.stride(0),
        .centerness_point = centerness.stride(1),
        .images = images,
        .points = points,
        .classes = logits.size(2),
        .best = best,
        .levels = levels,
        .scores = mutable_data_of<SumOf<T>>(scores),
        .values = mutable_data_of<SumOf<T>>(values),
        .indices = mutable_data_of<int64_t>(indices),
        .keys = mutable_data_of<Key>(keys),
        .num_keys = mutable_data_of<int32_t>(num_keys),
    };
    const auto cpu = [&] {
      if constexpr (kHasLoops<T>) top_scores_cpu(params);
    };
    run_on(op, logits, cpu, [&](auto stream) { return launch_top_scores(params, stream); });
  });
  return {values, indices};
}

}  // namespace
}  // namespace polarmask::top_scores

STABLE_TORCH_LIBRARY_FRAGMENT(polarmask, m) {
  m.set_python_module("polarmask_ops.top_scores");
  m.def("top_scores(Tensor logits, Tensor centerness, SymInt[] lengths, SymInt k) -> (Tensor values, Tensor indices)");
}

#define POLARMASK_IMPLEMENT(device)                                      \
  STABLE_TORCH_LIBRARY_IMPL(polarmask, device, m) {                      \
    m.impl("top_scores", TORCH_BOX(&polarmask::top_scores::top_scores)); \
  }
POLARMASK_IMPLEMENT(CPU)
POLARMASK_IMPLEMENT(CUDA)
