// Greedy NMS of polygons and stars: the rule, its input, and the memory of the kernels.
//
// Shapes are taken by rank, the best score first. A shape that is not suppressed is kept, and suppresses every later
// shape of its class that overlaps it by more than the threshold: exceeds(overlap, metric, threshold) of polygon_iou.
// To see why two shapes were both kept, compute their polygon_iou or rays_iou: it comes from the same overlap.
// greedy.h has the pass on the CPU, neighbours.h the search for pairs that can overlap at all.
#pragma once

#include "ops/polygon_iou/polygons_and_stars.h"

namespace polarmask::polygon_nms {

using namespace polygon_iou;  // NMS compares shapes by their overlap

// [N] in the dtype of the scores.
struct Scores {
  const void* data;
  bool is_double;

  PM_HD bool is_nan(int64_t n) const {
    if (is_double) return static_cast<const double*>(data)[n] != static_cast<const double*>(data)[n];
    return static_cast<const float*>(data)[n] != static_cast<const float*>(data)[n];
  }
};

// By rank: the best score first.
struct Candidates {
  const int64_t* order;    // [N] index of the shape
  Scores scores;           // [N] falling; NaN, wherever they stand, are never kept
  const int64_t* classes;  // [N] by index, not by rank; null: one class
  int64_t count;           // N
};

struct NmsRule {
  Metric metric;
  double threshold;
  int64_t max_output;  // stop when so many are kept
};

// The kernels resolve so many ranks at a time: a bit for each pair of them, and what is kept, before the rest is looked
// at. Their memory is 128 KiB for that, and 64 bytes a candidate.
constexpr int64_t kTile = 64;
constexpr int64_t kStep = 1024;
using Word = unsigned long long;  // of a bit set over kTile ranks, of the type that atomics take

// Memory of the kernels.
struct NmsScratch {
  Shape* shapes;           // [N] by rank
  Box<float>* boxes;       // [N]
  Word* dead;              // [N / kTile, rounded up] bit r of word w: rank kTile w + r is no candidate any more
  Word* conflicts;         // [kStep, kStep / kTile] what the ranks of a step would suppress within it
  int64_t* step_kept;      // [kStep] ranks kept in this step
  int64_t* num_step_kept;  // []
  int64_t* num_kept;       // [] in all steps so far
};

template <class Geometry>
struct NmsParams {
  Geometry geometry;  // for the kernels without directions
  Candidates in;
  NmsRule rule;
  int64_t* kept;  // [max_output] indices, the best first, then -1
  NmsScratch scratch;
};

template <class Geometry>
PM_HD Shape candidate_shape(const Geometry& geometry, const Candidates& in, int64_t rank) {
  return in.scores.is_nan(rank) ? Shape{} : shape_of(geometry, in.order[rank]);
}

}  // namespace polarmask::polygon_nms
