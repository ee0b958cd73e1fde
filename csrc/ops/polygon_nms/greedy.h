// Greedy NMS on the CPU: keeps the best living shape, kills the shapes that it suppresses, and so on. Threads share the
// work within a block of ranks; the result does not depend on their number.
#pragma once

#include <atomic>

#include "common/host/torch.h"
#include "common/simd.h"
#include "ops/polygon_iou/cpu/queries.h"
#include "ops/polygon_nms/neighbours.h"
#include "ops/polygon_nms/polygon_nms.h"

namespace polarmask::polygon_nms {

// Shapes are resolved in blocks: their pairs among themselves, then what the kept ones suppress further on, both in
// parallel. Larger blocks compute pairs in vain, with shapes that fall within the block; smaller ones leave threads
// idle.
constexpr int64_t kBlock = 128;
constexpr int64_t kShapesPerTask = 8;  // some 100 µs of intersections where shapes are dense
constexpr int64_t kSummariesPerTask = 1024;

// Indices of the shapes kept, the best first.
template <class Geometry>
std::vector<int64_t> greedy_nms(const Geometry& geometry, const Candidates& in, const NmsRule& rule) {
  const int64_t count = in.count, *order = in.order;
  std::vector<Shape> shapes(count);  // by rank, as everything below
  parallel_for(0, count, kSummariesPerTask, [&](int64_t begin, int64_t end) {
    with_isa([&] {
      for (int64_t rank = begin; rank < end; ++rank) shapes[rank] = candidate_shape(geometry, in, rank);
    });
  });
  std::vector<int64_t> ranked_classes(in.classes ? count : 0);
  for (int64_t rank = 0; rank < std::ssize(ranked_classes); ++rank) ranked_classes[rank] = in.classes[order[rank]];
  const Neighbours neighbours(shapes, in.classes ? ranked_classes.data() : nullptr);

  std::vector<uint8_t> dead(count);
  for (int64_t rank = 0; rank < count; ++rank) dead[rank] = !shapes[rank].finite;
  const auto is_dead = [&](int64_t rank) { return std::atomic_ref(dead[rank]).load(std::memory_order_relaxed) != 0; };
  const auto kill = [&](int64_t rank) { std::atomic_ref(dead[rank]).store(1, std::memory_order_relaxed); };
  // Calls visit(other) for every living shape from `first` to `last` that `rank` suppresses.
  const auto each_suppressed = [&](auto bytes, Query<Geometry>& query, int64_t rank, int64_t first, int64_t last,
                                   const auto& visit) {
    query.start(order[rank], shapes[rank]);
    neighbours.each(rank, first, last, [&](int64_t other) {
      if (is_dead(other) || !may_exceed(shapes[rank], shapes[other], rule.metric, rule.threshold)) return;
      if (query.template exceeds<bytes>(order[other], shapes[other], rule.metric, rule.threshold)) visit(other);
    });
  };

  std::vector<int64_t> kept;
  std::vector<int64_t> block;                        // living shapes
  std::vector<std::vector<int64_t>> within(kBlock);  // what each of them suppresses inside the block
  for (int64_t next = 0; next < count && std::ssize(kept) < rule.max_output;) {
    for (block.clear(); next < count && std::ssize(block) < kBlock; ++next)
      if (!dead[next]) block.push_back(next);
    parallel_for(0, std::ssize(block), kShapesPerTask, [&](int64_t begin, int64_t end) {
      Query<Geometry> query(geometry, geometry);
      with_vectors([&](auto bytes) {
        for (int64_t n = begin; n < end; ++n) {
          within[n].clear();
          const auto visit = [&](int64_t other) { within[n].push_back(other); };
          each_suppressed(bytes, query, block[n], block[n] + 1, next - 1, visit);
        }
      });
    });
    const int64_t first_kept = std::ssize(kept);
    for (int64_t n = 0; n < std::ssize(block); ++n) {
      if (dead[block[n]]) continue;
      kept.push_back(block[n]);
      for (const int64_t other : within[n]) kill(other);
    }
    parallel_for(first_kept, std::ssize(kept), kShapesPerTask, [&](int64_t begin, int64_t end) {
      Query<Geometry> query(geometry, geometry);
      with_vectors([&](auto bytes) {
        for (int64_t n = begin; n < end; ++n) each_suppressed(bytes, query, kept[n], next, count - 1, kill);
      });
    });
  }
  if (std::ssize(kept) > rule.max_output) kept.resize(rule.max_output);
  for (int64_t& rank : kept) rank = order[rank];
  return kept;
}

}  // namespace polarmask::polygon_nms
