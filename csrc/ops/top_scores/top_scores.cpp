// Registers polarmask::top_scores: the best points of each level by class score times centerness.
// Scores and keys are in top_scores.h, the CPU loops in cpu/loops.h.
#include "ops/top_scores/top_scores.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include "common/host/check.h"
#include "common/host/device.h"
#include "common/host/torch.h"
#include "ops/top_scores/cpu/loops.h"

namespace polarmask::top_scores {

#ifdef POLARMASK_WITH_CUDA
template <class T>
cudaError_t launch_top_scores(const TopScoresParams<T>&, cudaStream_t);
#endif

namespace {

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
