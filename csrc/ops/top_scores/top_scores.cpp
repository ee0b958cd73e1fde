#include "top_scores.h"

#include <algorithm>
#include <functional>
#include <tuple>
#include <vector>

#include "../../common/check.h"
#include "../../common/device.h"
#include "../../common/torch.h"

namespace polarmask {

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
  for (int64_t c = 0; c < classes; ++c) {
    const T* const row = logits + c * class_stride;
    for (int64_t n = 0; n < points; ++n) largest[n] = larger_logit(largest[n], row[n]);
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
  static_assert(kTile % kWidth == 0);
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
  const int64_t whole = ceil_div(points, kWidth) * kWidth;  // what is beyond is computed, and not read
  std::fill(largest + points, largest + whole, T(0));
  std::fill(centerness + points, centerness + whole, T(0));
  for (int64_t n = 0; n < whole; n += kWidth)
    store(largest + n, score_of_logits(load<V>(largest + n), load<V>(centerness + n)));
  std::copy_n(largest, points, p.scores + image * p.points + first);
}

// Keeps the best `count` of what it is offered, in memory for twice as many: when that is full, the worse half goes, and
// its best is the bar from then on. So most points are compared with one number and forgotten.
template <class Score>
class Best {
 public:
  using Key = KeyOf<Score>;

  explicit Best(int64_t count) : count_(count) {}

  // Points come in rising order: one that only reaches the bar loses to those that set it.
  void offer(Score score, int64_t point) {
    if (!(score > bar_)) return;
    keys_.push_back(key_of(score, point));
    if (std::ssize(keys_) < 2 * count_) return;
    drop_worse();
    bar_ = score_of<Score>(keys_.back());
  }

  std::vector<Key> sorted() && {
    drop_worse();
    std::sort(keys_.begin(), keys_.end(), std::greater<Key>());
    return std::move(keys_);
  }

 private:
  void drop_worse() {
    if (std::ssize(keys_) <= count_) return;
    std::nth_element(keys_.begin(), keys_.begin() + (count_ - 1), keys_.end(), std::greater<Key>());
    keys_.resize(count_);
  }

  int64_t count_;
  Score bar_ = -1;
  std::vector<Key> keys_;
};

template <class T>
void best_of_level(const TopScoresParams<T>& p, int64_t image, const ScoreLevel& level) {
  const T* const scores = p.scores + image * p.points + level.first_point;
  Best<T> best(level.count);
  for (int64_t n = 0; n < level.points; ++n) best.offer(scores[n], n);
  int64_t at = image * p.best + level.first_best;
  for (const auto key : std::move(best).sorted()) {
    p.values[at] = score_of<T>(key);
    p.indices[at++] = level.first_point + point_of_key(key);
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
  check(centerness_in.scalar_type() == logits_in.scalar_type(), op, ": expected centerness of the dtype of logits");
  check(k >= 0, op, ": expected k of at least 0, got ", k);
  const ScoreLevels levels = levels_of(op, lengths, logits_in.size(1), k);

  const Tensor logits = widened(logits_in), centerness = widened(centerness_in);
  const int64_t images = logits.size(0), points = logits.size(1);
  int64_t best = 0;
  for (int32_t n = 0; n < levels.count; ++n) best += levels.level[n].count;
  const ScalarType dtype = sum_dtype(logits);
  const int64_t keys_of_kernels = by_kernels(logits) ? images * best : 0;
  Tensor values = torch::stable::new_empty(logits, {images, best}, dtype);
  Tensor indices = torch::stable::new_empty(logits, {images, best}, ScalarType::Long);
  const Tensor scores = torch::stable::new_empty(logits, {images, points}, dtype);
  const Tensor num_keys = torch::stable::new_empty(logits, {images, levels.count}, ScalarType::Int);
  dispatch_any_float(logits.scalar_type(), [&]<class T>() {
    using Key = KeyOf<SumOf<T>>;
    const Tensor keys =
        torch::stable::new_empty(logits, {keys_of_kernels, static_cast<int64_t>(sizeof(Key))}, ScalarType::Byte);
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
}  // namespace polarmask

STABLE_TORCH_LIBRARY_FRAGMENT(polarmask, m) {
  m.set_python_module("polarmask_ops.top_scores");
  m.def("top_scores(Tensor logits, Tensor centerness, SymInt[] lengths, SymInt k) -> (Tensor values, Tensor indices)");
}

#define POLARMASK_IMPLEMENT(device)                          \
  STABLE_TORCH_LIBRARY_IMPL(polarmask, device, m) {          \
    m.impl("top_scores", TORCH_BOX(&polarmask::top_scores)); \
  }
POLARMASK_IMPLEMENT(CPU)
POLARMASK_IMPLEMENT(CUDA)
