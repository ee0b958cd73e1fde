// What the kernels of IoU and NMS share. A team of eight lanes takes a shape or a pair: each lane one part of the sums
// over edges, see shapes.h. A block lists the pairs of a tile whose bounds leave the question open, in shared memory,
// and its teams then take them one by one: so the exact intersections, some hundred times as dear as the bounds, find
// all lanes at work.
#pragma once

#include "common/cuda/launch.cuh"
#include "ops/polygon_iou/polygons_and_stars.h"

namespace polarmask::polygon_iou {

constexpr int kThreads = 256;
constexpr int kTeam = kParts;
constexpr int kTeams = kThreads / kTeam;  // of a block

// Blocks a multiprocessor shall hold at least: two, so that 128 registers are left to a thread.
constexpr int kExactBlocks = 2;

__device__ inline int team() { return static_cast<int>(threadIdx.x) / kTeam; }
__device__ inline int team_lane() { return static_cast<int>(threadIdx.x) % kTeam; }
__device__ inline unsigned team_mask() { return 0xffu << (threadIdx.x % kWarpSize / kTeam * kTeam); }

// As sum_of_parts(); all lanes get it.
__device__ inline double team_sum(double value) {
  for (int by = 1; by < kTeam; by *= 2) value += __shfl_xor_sync(team_mask(), value, by);
  return value;
}

__device__ inline Box<double> team_join(Box<double> box) {
  for (int by = 1; by < kTeam; by *= 2) {
    const unsigned mask = team_mask();
    box = join(box, {__shfl_xor_sync(mask, box.x0, by), __shfl_xor_sync(mask, box.y0, by),
                     __shfl_xor_sync(mask, box.x1, by), __shfl_xor_sync(mask, box.y1, by)});
  }
  return box;
}

// shape_of() by a team; all lanes get it.
template <class Geometry>
__device__ Shape team_shape(const Geometry& geometry, int64_t i) {
  const int64_t count = geometry.size();
  if (count == 0) return {{}, 0, true};
  const PartOfShape part = part_of_shape(count, geometry.ring(i), geometry.anchor(i), team_lane());
  return finish_shape(count, team_join(part.box), team_sum(part.doubled), geometry.origin(i));
}

// Some of the numbers 0, …, size - 1 of a tile.
template <int kSize>
struct List {
  unsigned size;
  uint16_t numbers[kSize];
};

// Lists the numbers below `size` for which test(n) holds; each goes to a team, visit(n).
template <int kSize, class Test, class Visit>
__device__ void for_listed(List<kSize>& list, int size, Test&& test, Visit&& visit) {
  if (threadIdx.x == 0) list.size = 0;
  __syncthreads();
  for (int n = threadIdx.x; n < size; n += kThreads)
    if (test(n)) list.numbers[atomicAdd(&list.size, 1u)] = static_cast<uint16_t>(n);
  __syncthreads();
  for (unsigned k = team(); k < list.size; k += kTeams) visit(list.numbers[k]);
  __syncthreads();
}

// ---- polygons

// A ring on the grid of a pair: from shared memory, …
struct SharedRing {
  const Vec2<float>* vertices;
  __device__ Vec2<double> operator()(int64_t j) const { return {vertices[j].x, vertices[j].y}; }
};

// … or, where that is too small for it, snapped anew for every use.
template <class T>
struct SnappingRing {
  SnapGrid grid;
  typename Polygons<T>::Ring ring;
  __device__ Vec2<double> operator()(int64_t j) const {
    const Vec2<float> v = snap(grid, ring(j));
    return {v.x, v.y};
  }
};

// A lane's part of twice the area of a ring.
template <class Ring>
__device__ double part_of_area(int64_t count, const Ring& ring) {
  const Interval edges = edges_of_part(count, team_lane());
  double sum = 0;
  for (int64_t j = edges.begin; j < edges.end; ++j) sum += cross(ring(j), ring(next_of(j, count)));
  return sum;
}

// Adds to `sum` a lane's part of the order-free sum over the edges of `own`, which is A (kShift 1) or B (-1).
template <int kShift, class Ring>
__device__ void add_part(int64_t count, const Ring& own, int64_t other_count, const Ring& other, double& sum) {
  const Interval edges = edges_of_part(count, team_lane());
  if (edges.begin == edges.end) return;
  Vec2<double> p = own(edges.begin);
  double inside = winding<kShift>(p, other_count, other);
  for (int64_t i = edges.begin; i < edges.end; ++i) {
    const Vec2<double> q = own(next_of(i, count));
    const Box<double> box = box_around(p, q);
    double share = 0, step = 0;
    Vec2<double> r = other(0);
    for (int64_t j = 0; j < other_count; ++j) {
      const Vec2<double> s = other(next_of(j, other_count));
      if (!are_apart(box, box_around(r, s))) {
        const Crossing found = kShift > 0 ? cross_edges(p, q, r, s) : cross_edges(r, s, p, q);
        if (found.sign != 0) {
          share += kShift > 0 ? found.share_of_a() : found.share_of_b();
          step += kShift * found.sign;
        }
      }
      r = s;
    }
    sum += cross(p, q) * (inside + share);
    inside += step;
    p = q;
  }
}

template <class Ring>
__device__ Overlap team_order_free(int64_t count_a, const Ring& a, int64_t count_b, const Ring& b) {
  double sum = 0;
  add_part<1>(count_a, a, count_b, b, sum);
  add_part<-1>(count_b, b, count_a, a, sum);
  return finish_order_free(team_sum(sum), team_sum(part_of_area(count_a, a)), team_sum(part_of_area(count_b, b)));
}

// ---- what a block knows of the shapes, and how a team intersects two of them

template <class Geometry>
struct Intersector;

// Bytes of shared memory for the rings of all teams of a block; above this, rings are snapped anew for every use.
constexpr size_t kRingBytes = 32 * 1024;

template <class T>
struct Intersector<Polygons<T>> {
  Polygons<T> a, b;
  Vec2<float>* rings;  // [V of A + V of B] for this team; null: none

  // Bytes of dynamic shared memory for summaries, and for pairs.
  static size_t shape_bytes(const Polygons<T>&) { return 0; }
  static size_t pair_bytes(const Polygons<T>& a, const Polygons<T>& b) {
    const size_t bytes = kTeams * sizeof(Vec2<float>) * static_cast<size_t>(a.num_vertices + b.num_vertices);
    return bytes <= kRingBytes ? bytes : 0;
  }

  // Called by all threads of a block.
  __device__ Intersector(const Polygons<T>& a, const Polygons<T>& b, bool in_shared) : a(a), b(b), rings(nullptr) {
    if (in_shared) rings = dynamic_shared<Vec2<float>>() + team() * (a.num_vertices + b.num_vertices);
  }

  __device__ Overlap operator()(int64_t i, const Shape& shape_a, int64_t j, const Shape& shape_b) const {
    const SnapGrid grid = make_grid(shape_a.box, shape_b.box);
    const int64_t count_a = a.num_vertices, count_b = b.num_vertices;
    const SnappingRing<T> ring_a{grid, a.ring(i)}, ring_b{grid, b.ring(j)};
    if (!rings) return team_order_free(count_a, ring_a, count_b, ring_b);
    __syncwarp(team_mask());  // the last pair's readers are done
    for (int64_t k = team_lane(); k < count_a; k += kTeam) rings[k] = snap(grid, ring_a.ring(k));
    for (int64_t k = team_lane(); k < count_b; k += kTeam) rings[count_a + k] = snap(grid, ring_b.ring(k));
    __syncwarp(team_mask());
    return team_order_free(count_a, SharedRing{rings}, count_b, SharedRing{rings + count_a});
  }
};

template <class T>
struct Intersector<Stars<T>> {
  Stars<T> a, b;

  static size_t shape_bytes(const Stars<T>& a) { return pair_bytes(a, a); }
  static size_t pair_bytes(const Stars<T>& a, const Stars<T>& b) {
    return sizeof(Vec2<double>) * static_cast<size_t>(a.num_rays == b.num_rays ? a.num_rays : a.num_rays + b.num_rays);
  }

  // Called by all threads of a block: it computes the directions.
  __device__ Intersector(const Stars<T>& a, const Stars<T>& b, bool) : a(a), b(b) {
    auto* const directions = dynamic_shared<Vec2<double>>();
    const int64_t other = a.num_rays == b.num_rays ? 0 : a.num_rays;  // where those of B begin
    for (int64_t k = threadIdx.x; k < other + b.num_rays; k += kThreads) {
      const Vec2<double> u = k < a.num_rays ? ray_direction(k, a.num_rays) : ray_direction(k - other, b.num_rays);
      directions[k] = u;
    }
    __syncthreads();
    this->a.directions = directions;
    this->b.directions = directions + other;
  }

  __device__ Overlap operator()(int64_t i, const Shape& shape_a, int64_t j, const Shape& shape_b) const {
    const int64_t first = edges_of_part(b.num_rays, team_lane()).begin;
    int64_t near = min_of(first * a.num_rays / b.num_rays, a.num_rays - 1);  // as if their centres were the same
    const auto ring = b.ring(j, b.origin(j) - a.origin(i));
    const Turns turns = sweep_part(a.star(i), b.num_rays, ring, team_lane(), near);
    return make_overlap(finish_sweep({team_sum(turns.left), team_sum(turns.right)}), shape_a.area, shape_b.area);
  }
};

}  // namespace polarmask::polygon_iou
