// The best points of each level by the score of their best class times their centerness.
#pragma once

#include <type_traits>

#include "common/exponential.h"
#include "common/half.h"

namespace polarmask::top_scores {

constexpr int kMaxScoreLevels = 32;  // they travel with the kernels' parameters

struct ScoreLevel {
  int64_t first_point, points;  // of the L points of an image, fewer than 2³¹
  int64_t first_best, count;    // of the S best of an image; count: from 1 to points
};

struct ScoreLevels {
  ScoreLevel level[kMaxScoreLevels];
  int32_t count;
};

// A better score, or an equal one of an earlier point, has the larger key. A double needs 64 bits of its own.
template <class Score>
using KeyOf = std::conditional_t<sizeof(Score) == 4, uint64_t, unsigned __int128>;

// `score` is not negative, so its bits have its order; `point` below 2³¹.
template <class Score>
PM_HD KeyOf<Score> key_of(Score score, int64_t point) {
  const auto bits = __builtin_bit_cast(typename detail::Lane<Score>::Unsigned, score);
  return static_cast<KeyOf<Score>>(bits) << 32 | static_cast<uint32_t>(~point);
}

template <class Score>
PM_HD Score score_of(KeyOf<Score> key) {
  return __builtin_bit_cast(Score, static_cast<typename detail::Lane<Score>::Unsigned>(key >> 32));
}

template <class Key>
PM_HD int64_t point_of_key(Key key) {
  return static_cast<uint32_t>(~key);
}

template <class T>
struct TopScoresParams {
  const T* logits;                                   // [B, L, C]
  int64_t logits_image, logits_point, logits_class;  // strides
  const T* centerness;                               // [B, L] logits
  int64_t centerness_image, centerness_point;        // strides
  int64_t images, points, classes, best;             // B, L, C, S
  ScoreLevels levels;
  SumOf<T>* scores;  // [B, L] scratch
  SumOf<T>* values;  // [B, S]
  int64_t* indices;  // [B, S], of points

  // Scratch of the kernels.
  KeyOf<SumOf<T>>* keys;  // [B, S] of the best of each level, in any order
  int32_t* num_keys;      // [B, levels]
};

template <class Score>
PM_HD constexpr Score lowest_logit() {
  return static_cast<Score>(-__builtin_inf());
}

// NaN is passed over.
template <class V>
PM_HD V larger_logit(V a, V b) {
  return select(b > a, b, a);
}

template <class V>
PM_HD V sigmoid_of(V logit) {
  return 1 / (1 + exp_of(-logit));
}

// Of the largest logit of a point's classes, which is no NaN, and its centerness.
template <class V>
PM_HD V score_of_logits(V largest, V centerness) {
  return sigmoid_of(largest) * sigmoid_of(larger_logit(all<V>(lowest_logit<NumberOf<V>>()), centerness));
}

}  // namespace polarmask::top_scores
