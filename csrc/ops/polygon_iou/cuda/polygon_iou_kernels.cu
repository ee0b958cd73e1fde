// Areas: N polygons of V vertices in float32 are 8NV bytes: 500,000 of 36 are 144 MB, 43 µs at 3.35 TB/s.
//
// IoU of N with M shapes: 4NM bytes are written, 4 MB or 1.2 µs for 1,000 with 1,000; 10 operations a pair for the
// bounds. What counts are the pairs whose bounds leave the question open, each some 40,000 double operations by the
// order-free sum of 36 edges with 36 (1.2 ns at half of 67 TFLOP/s), and 4,000 by the star sweep: 24 µs and 2 µs for
// 20,000 pairs.
//
// Design: see overlap.cuh. Tiles of 64 × 64 pairs, or runs of 256 row by row; whatever the bounds decide is written at
// once. A tile of which all 4,096 pairs overlap is done by one block: dense matrices balance nevertheless, as their
// tiles are alike.
#include "ops/polygon_iou/cuda/overlap.cuh"
#include "ops/polygon_iou/polygon_iou.h"

namespace polarmask::polygon_iou {
namespace {

template <class T>
__global__ void __launch_bounds__(kThreads) areas_kernel(AreasParams<T> p) {
  for (int64_t i = blockIdx.x * int64_t{kTeams} + team(); i < p.count; i += gridDim.x * int64_t{kTeams}) {
    const Shape shape = team_shape(p.polygons, i);
    if (team_lane() == 0) p.areas[i] = static_cast<T>(shape.area);
  }
}

template <class Geometry>
__global__ void __launch_bounds__(kThreads) shapes_kernel(Geometry geometry, int64_t count, Shape* shapes) {
  const Intersector<Geometry> with_directions(geometry, geometry, false);
  for (int64_t i = blockIdx.x * int64_t{kTeams} + team(); i < count; i += gridDim.x * int64_t{kTeams}) {
    const Shape shape = team_shape(with_directions.a, i);
    if (team_lane() == 0) shapes[i] = shape;
  }
}

constexpr int kTile = 64;
constexpr int kPairs = kTile * kTile;

template <class Geometry, class T>
__global__ void __launch_bounds__(kThreads, kExactBlocks) iou_kernel(IouParams<Geometry, T> p, bool in_shared) {
  __shared__ List<kPairs> list;
  const Intersector<Geometry> intersect(p.a, p.b, in_shared);
  const int64_t tiles_along = p.paired ? 1 : ceil_div(p.count_b, kTile);
  const int64_t tiles = p.paired ? ceil_div(p.count_a, kThreads) : ceil_div(p.count_a, kTile) * tiles_along;
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const auto row = [&](int n) { return p.paired ? tile * kThreads + n : tile / tiles_along * kTile + n / kTile; };
    const auto column = [&](int n) { return p.paired ? tile * kThreads + n : tile % tiles_along * kTile + n % kTile; };
    const auto at = [&](int n) { return p.paired ? row(n) : row(n) * p.count_b + column(n); };
    for_listed(
        list, p.paired ? kThreads : kPairs,
        [&](int n) {
          if (row(n) >= p.count_a || column(n) >= p.count_b) return false;
          const bool open = may_exceed(p.shapes_a[row(n)], p.shapes_b[column(n)], p.metric, 0);
          if (!open) p.iou[at(n)] = T(0);
          return open;
        },
        [&](int n) {
          const int64_t i = row(n), j = column(n);
          const Overlap overlap = intersect(i, p.shapes_a[i], j, p.shapes_b[j]);
          if (team_lane() == 0) p.iou[at(n)] = static_cast<T>(overlap_share(overlap, p.metric));
        });
  }
}

template <class Geometry>
cudaError_t launch_shapes(const Geometry& geometry, int64_t count, Shape* shapes, cudaStream_t stream) {
  const size_t shared = Intersector<Geometry>::shape_bytes(geometry);
  return launch(shapes_kernel<Geometry>, ceil_div(count, kTeams), kThreads, shared, stream, geometry, count, shapes);
}

}  // namespace

template <class T>
cudaError_t launch_areas(const AreasParams<T>& p, cudaStream_t stream) {
  return launch(areas_kernel<T>, ceil_div(p.count, kTeams), kThreads, 0, stream, p);
}

template <class Geometry, class T>
cudaError_t launch_iou(const IouParams<Geometry, T>& p, cudaStream_t stream) {
  cudaError_t error = launch_shapes(p.a, p.count_a, p.shapes_a, stream);
  if (error == cudaSuccess) error = launch_shapes(p.b, p.count_b, p.shapes_b, stream);
  if (error != cudaSuccess) return error;
  const int64_t blocks =
      p.paired ? ceil_div(p.count_a, kThreads) : ceil_div(p.count_a, kTile) * ceil_div(p.count_b, kTile);
  const size_t shared = Intersector<Geometry>::pair_bytes(p.a, p.b);
  return launch(iou_kernel<Geometry, T>, blocks, kThreads, shared, stream, p, shared > 0);
}

#define POLARMASK_INSTANTIATE(T)                                                   \
  template cudaError_t launch_areas(const AreasParams<T>&, cudaStream_t);          \
  template cudaError_t launch_iou(const IouParams<Polygons<T>, T>&, cudaStream_t); \
  template cudaError_t launch_iou(const IouParams<Stars<T>, T>&, cudaStream_t);
POLARMASK_INSTANTIATE(float)
POLARMASK_INSTANTIATE(double)

}  // namespace polarmask::polygon_iou
