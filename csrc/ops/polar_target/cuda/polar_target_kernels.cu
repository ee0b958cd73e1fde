// cast_rays, P points that look at outlines of S segments, R rays: reads 16 S bytes a point, from cache where points
// share an outline, and writes 4R. Some 60 operations in float a segment, 40 in double for each ray that it may meet,
// of which there are about R + S / 4. 20,000 points, S = 31, R = 36: 3 MB and 0.1 Gflop, 5 µs with the launch.
//
// encode_targets, B images of L points: writes 36 + 4R bytes a point. 16 images of 20,460 points, R = 36: 59 MB, 18 µs
// at 3.35 TB/s; the rays of some 1,000 positive points (S = 200) are hidden behind that.
//
// Design: a warp casts the rays of a point. Its lanes take the segments in turn; which rays may meet one is found in
// float, where, in double, and the best distance of each ray lies in shared memory, as an integer of the same order, so
// that an atomic maximum keeps it and no order changes a bit. Assignment needs no loop over points × instances: a warp
// takes an instance, its lanes the few points near the centre on each level, and an atomic minimum over (area, index)
// in the place of the result decides between instances. One more launch takes 32 points a warp and writes everything:
// zeros 16 bytes at a time where no point is positive, which is nearly everywhere.
#include <algorithm>

#include "common/centerness.h"
#include "common/cuda/launch.cuh"
#include "common/polygon.h"
#include "ops/polar_target/polar_target.h"

namespace polarmask::polar_target {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kBlocks = 4;  // blocks per multiprocessor, at least: bounds registers; without it nvcc spills
constexpr int64_t kRayBlocks = 1 << 13;       // enough to fill any chip; more would compute the directions more often
constexpr int64_t kPartsOfIgnored = 16;       // blocks for a crowd: it may cover a whole image
constexpr uint64_t kNoKey = ~uint64_t{0};     // as a signed number it is kBackground …
constexpr uint64_t kIgnoredKey = kNoKey - 1;  // … and this is kIgnored
static_assert(static_cast<int64_t>(kNoKey) == kBackground && static_cast<int64_t>(kIgnoredKey) == kIgnored);

__device__ int lane_of() { return threadIdx.x % kWarpSize; }
__device__ int64_t warp_of() { return blockIdx.x * int64_t{kWarps} + threadIdx.x / kWarpSize; }
__device__ int64_t num_warps() { return gridDim.x * int64_t{kWarps}; }

// Integers in the order of the numbers that are not negative.
__device__ unsigned bits_of(float value) { return __float_as_uint(value); }
__device__ unsigned long long bits_of(double value) {
  return static_cast<unsigned long long>(__double_as_longlong(value));
}
__device__ float number_of(unsigned bits) { return __uint_as_float(bits); }
__device__ double number_of(unsigned long long bits) { return __longlong_as_double(static_cast<long long>(bits)); }
template <class T>
using Bits = decltype(bits_of(T{}));

// Shared memory of a block: the directions of the rays or bins, and for each warp the best distance of each of them.
template <Method method>
PM_HD constexpr int directions_for(int num_rays) {
  return method == Method::kBinned ? static_cast<int>(kBins) : num_rays;
}
template <Method method, class T>
PM_HD constexpr size_t bytes_of_row(int num_rays) {
  return directions_for<method>(num_rays) * (method == Method::kBinned ? sizeof(long long) : sizeof(T));
}
template <Method method, class T>
PM_HD constexpr size_t shared_bytes(int num_rays) {
  return directions_for<method>(num_rays) * sizeof(Vec2<double>) + kWarps * bytes_of_row<method, T>(num_rays);
}

template <Method method, class T>
struct WarpCaster {
  const Vec2<double>* directions;  // [R], or of the bins
  unsigned char* row;              // of this warp
  int num_rays;
  T min_distance;  // pixels

  // Must be called by all threads of the block.
  __device__ WarpCaster(int num_rays, T min_distance) : num_rays(num_rays), min_distance(min_distance) {
    constexpr bool binned = method == Method::kBinned;
    auto* const shared = dynamic_shared<Vec2<double>>();
    const int count = directions_for<method>(num_rays);
    for (int k = threadIdx.x; k < count; k += kThreads) {
      const Vec2<double> direction = ray_direction(k, binned ? kBins : num_rays);
      shared[k].x = direction.x, shared[k].y = direction.y;  // the race detector sees no struct that a call returns
    }
    __syncthreads();
    directions = shared;
    row =
        reinterpret_cast<unsigned char*>(shared + count) + threadIdx.x / kWarpSize * bytes_of_row<method, T>(num_rays);
  }

  // Calls write(ray, length) for each ray, each from one lane. Must be called by all lanes of the warp.
  template <class Write>
  __device__ void cast(const Segment<T>* segments, int64_t count, Vec2<T> origin, Write&& write) const {
    if constexpr (method == Method::kBinned)
      cast_binned(segments, count, origin, write);
    else
      cast_exactly(segments, count, origin, write);
    __syncwarp();  // before the next point starts anew
  }

 private:
  template <class Write>
  __device__ void cast_exactly(const Segment<T>* segments, int64_t count, Vec2<T> origin, Write&& write) const {
    constexpr bool last = method == Method::kLast;
    auto* const best = reinterpret_cast<Bits<T>*>(row);
    for (int ray = lane_of(); ray < num_rays; ray += kWarpSize) best[ray] = bits_of(static_cast<T>(kNothing<method>));
    __syncwarp();
    for (int64_t s = lane_of(); s < count; s += kWarpSize) {
      const Segment<T> segment = segments[s];
      const auto from_origin = [&](Vec2<T> p) {
        return Vec2<float>{static_cast<float>(p.x - origin.x), static_cast<float>(p.y - origin.y)};
      };
      const auto span = rays_between(known_turn(from_origin(segment.from)), known_turn(from_origin(segment.to)),
                                     static_cast<float>(num_rays));
      const Vec2<double> a = start_from(segment, origin), b = end_from(segment, origin);
      const int below = static_cast<int>(span.below), end = static_cast<int>(span.last) - below;
      const bool touches = !last && end == num_rays && holds_origin(a, b);
      for (int k = 0; k < end; ++k) {
        const int unwrapped = below + 1 + k;  // from 0 to 3R
        const int ray = unwrapped % num_rays;
        const auto distance = touches ? T(0) : static_cast<T>(distance_to<method>(a, b, directions[ray]));
        if (last && distance > 0) atomicMax(&best[ray], bits_of(distance));
        if (!last && distance < static_cast<T>(kNothing<method>)) atomicMin(&best[ray], bits_of(distance));
      }
    }
    __syncwarp();
    for (int ray = lane_of(); ray < num_rays; ray += kWarpSize)
      write(ray, ray_length<method>(number_of(best[ray]), min_distance));
  }

  template <class Write>
  __device__ void cast_binned(const Segment<T>* segments, int64_t count, Vec2<T> origin, Write&& write) const {
    auto* const farthest = reinterpret_cast<long long*>(row);  // squared distances as integers, −1: none
    for (int bin = lane_of(); bin < kBins; bin += kWarpSize) farthest[bin] = -1;
    __syncwarp();
    for (int64_t s = lane_of(); s < count; s += kWarpSize) {
      const Vec2<double> a = start_from(segments[s], origin), b = end_from(segments[s], origin);
      const double distance = dot(a, a);
      if (all_finite(a, b) && is_finite(distance))
        atomicMax(&farthest[bin_of(a, directions)], __double_as_longlong(distance));
    }
    __syncwarp();
    for (int ray = lane_of(); ray < num_rays; ray += kWarpSize) {
      const long long found = squared_distance_at(bin_of_ray(ray, num_rays), farthest);
      write(ray, found < 0 ? min_distance : static_cast<T>(sqrt(__longlong_as_double(found))));
    }
  }
};

template <Method method, class T>
__global__ void __launch_bounds__(kThreads, kBlocks) cast_rays_kernel(CastRaysParams<T> p) {
  const WarpCaster<method, T> caster(p.num_rays, p.min_distance);
  for (int64_t row = warp_of(); row < p.rows; row += num_warps()) {
    const int64_t m = p.instance[row];
    const bool exists = 0 <= m && m < p.outlines.size;
    caster.cast(exists ? p.outlines.row(m) : nullptr, exists ? p.outlines.length(m) : 0,
                {p.origins[2 * row], p.origins[2 * row + 1]},
                [&](int ray, T length) { p.distances[row * p.num_rays + ray] = length; });
  }
}

// The image that owns an instance, −1 where the offsets are nonsense.
__device__ int64_t image_of(const EncodeTargetsParams& p, int64_t m) {
  int64_t low = 0, high = p.images;  // the last image whose offset is not above m
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (p.image_offsets[middle] <= m ? low : high) = middle;
  }
  return low < p.images && p.image_offsets[low] <= m && m < p.image_offsets[low + 1] ? low : -1;
}

__device__ void claim(const EncodeTargetsParams& p, int64_t image, int64_t point, uint64_t key) {
  auto* const keys = reinterpret_cast<unsigned long long*>(p.targets.instance);
  atomicMin(&keys[image * p.points + point], static_cast<unsigned long long>(key));
}

// Every point gets the least key of the instances that want it.
__global__ void __launch_bounds__(kThreads, kBlocks) claim_kernel(EncodeTargetsParams p) {
  for (int64_t m = warp_of(); m < p.instances.outlines.size; m += num_warps()) {
    const int64_t image = image_of(p, m);
    if (image < 0 || !p.instances.may_be_positive(m)) continue;
    const Box<float> box = p.instances.boxes[m];
    const uint64_t key = uint64_t{__float_as_uint(p.instances.area(m) + 0.0f)} << 32 | static_cast<uint64_t>(m);
    for (int l = 0; l < p.levels.count; ++l) {
      const Level level = p.levels.level[l];  // by index: a pointer would copy the parameters
      const Box<float> inner = inner_box(box, p.instances.centers[m], p.center_radius, level);
      const PointRange range(level, inner);
      for (int64_t k = lane_of(); k < range.size(); k += kWarpSize) {
        const int64_t row = range.row(k), column = range.column(k);
        const Vec2<float> at = point_of(level, row, column);
        if (is_inside(inner, at) && is_assigned_on(level, box_distances(box, at)))
          claim(p, image, level.first_point + row * level.width + column, key);
      }
    }
  }
}

// The box around all segments; `finite` is whether all of them are. Must be called by all lanes of the warp.
__device__ Box<float> bounds_of(const Segment<float>* segments, int64_t count, bool& finite) {
  Box<float> bounds = empty_box<float>();
  finite = true;
  for (int64_t s = lane_of(); s < count; s += kWarpSize) {
    finite = finite && is_finite(segments[s]);
    bounds = join(bounds, box_around(segments[s].from, segments[s].to));
  }
  finite = __all_sync(~0u, finite);
  for (int by = 1; by < kWarpSize; by *= 2)
    bounds = join(bounds, {__shfl_xor_sync(~0u, bounds.x0, by), __shfl_xor_sync(~0u, bounds.y0, by),
                           __shfl_xor_sync(~0u, bounds.x1, by), __shfl_xor_sync(~0u, bounds.y1, by)});
  return bounds;
}

__device__ bool is_within(const Segment<float>* segments, int64_t count, const Vec2<float>& at) {
  bool inside = false;
  for (int64_t s = 0; s < count; ++s) {
    const auto [from, to] = segments[s];
    const Edge edge = make_edge(from.x, from.y, to.x, to.y);
    if (owns(edge, at.x) && crossing(edge, at.x) <= at.y) inside = !inside;
  }
  return inside;
}

// Ignored instances want what is in them with a key above all others.
__global__ void __launch_bounds__(kThreads, kBlocks) ignore_kernel(EncodeTargetsParams p) {
  for (int64_t task = blockIdx.x; task < p.instances.outlines.size * kPartsOfIgnored; task += gridDim.x) {
    const int64_t m = task / kPartsOfIgnored, image = image_of(p, m);
    if (image < 0 || !p.instances.is_ignored(m)) continue;
    const Segment<float>* const segments = p.instances.outlines.row(m);
    const int64_t count = p.instances.outlines.length(m);
    bool finite = is_finite(p.instances.boxes[m]);
    const Box<float> box = count > 0 ? bounds_of(segments, count, finite) : p.instances.boxes[m];
    if (!finite) continue;
    for (int l = 0; l < p.levels.count; ++l) {
      const Level level = p.levels.level[l];  // by index: a pointer would copy the parameters
      const PointRange range(level, box);
      for (int64_t k = task % kPartsOfIgnored * kThreads + threadIdx.x; k < range.size();
           k += kPartsOfIgnored * kThreads) {
        const int64_t row = range.row(k), column = range.column(k);
        const Vec2<float> at = point_of(level, row, column);
        if (count > 0 ? is_within(segments, count, at) : is_inside(box, at))
          claim(p, image, level.first_point + row * level.width + column, kIgnoredKey);
      }
    }
  }
}

// Where one of the L points of an image lies.
__device__ Vec2<float> locate(const Levels& levels, int64_t point) {
  int k = 0;
  while (k + 1 < levels.count && levels.level[k + 1].first_point <= point) ++k;
  const Level& level = levels.level[k];
  const int64_t of_level = point - level.first_point;
  return point_of(level, of_level / level.width, of_level % level.width);
}

// A warp writes 32 points.
template <Method method>
__global__ void __launch_bounds__(kThreads, kBlocks) write_kernel(EncodeTargetsParams p) {
  const WarpCaster<method, float> caster(p.num_rays, p.min_distance);
  const int64_t total = p.images * p.points;
  for (int64_t first = warp_of() * kWarpSize; first < total; first += num_warps() * kWarpSize) {
    const int64_t point = first + lane_of();
    const int present = static_cast<int>(min_of<int64_t>(kWarpSize, total - first));
    int64_t instance = kBackground;
    Vec2<float> at{0, 0};
    if (lane_of() < present) {
      instance = p.targets.instance[point];  // a key
      if (instance >= 0) instance &= UINT32_MAX;
      BoxDistances distances{0, 0, 0, 0};
      if (instance >= 0) {
        at = locate(p.levels, point % p.points);
        distances = box_distances(p.instances.boxes[instance], at);
      }
      p.targets.instance[point] = instance;
      p.targets.labels[point] = instance >= 0 ? p.instances.labels[instance] : instance;
      p.targets.boxes[point] = distances;
      if (instance < 0) p.targets.centerness[point] = 0;
    }
    float* const rays = p.targets.rays + first * p.num_rays;
    const unsigned positive = __ballot_sync(~0u, instance >= 0);
    if (positive == 0) {  // 32 rows begin at a multiple of 128 bytes
      const int64_t count = int64_t{present} * p.num_rays, quads = count / 4;
      for (int64_t k = lane_of(); k < quads; k += kWarpSize)
        reinterpret_cast<float4*>(rays)[k] = make_float4(0, 0, 0, 0);
      for (int64_t k = 4 * quads + lane_of(); k < count; k += kWarpSize) rays[k] = 0;
      continue;
    }
    for (int k = 0; k < present; ++k) {
      float* const row = rays + int64_t{k} * p.num_rays;
      if (!(positive >> k & 1)) {
        for (int ray = lane_of(); ray < p.num_rays; ray += kWarpSize) row[ray] = 0;
        continue;
      }
      const int64_t m = __shfl_sync(~0u, instance, k);
      const Vec2<float> origin{__shfl_sync(~0u, at.x, k), __shfl_sync(~0u, at.y, k)};
      Extent<float> extent = no_rays<float>();
      caster.cast(p.instances.outlines.row(m), p.instances.outlines.length(m), origin, [&](int ray, float length) {
        row[ray] = length;
        extent = add_ray(extent, length);
      });
      for (int by = 1; by < kWarpSize; by *= 2)
        extent = join(extent, {__shfl_xor_sync(~0u, extent.shortest, by), __shfl_xor_sync(~0u, extent.longest, by)});
      if (lane_of() == 0) p.targets.centerness[first + k] = centerness_of(extent);
    }
  }
}

// body<method>(), so that the loops over segments have no branches on it.
template <class Body>
cudaError_t with_method(Method method, Body&& body) {
  switch (method) {
    case Method::kLast: return body.template operator()<Method::kLast>();
    case Method::kFirst: return body.template operator()<Method::kFirst>();
    default: return body.template operator()<Method::kBinned>();
  }
}

int64_t blocks_for(int64_t warps) { return ceil_div(warps, kWarps); }

}  // namespace

template <class T>
cudaError_t launch_cast_rays(const CastRaysParams<T>& p, cudaStream_t stream) {
  return with_method(p.method, [&]<Method method>() {
    return launch(cast_rays_kernel<method, T>, std::min(blocks_for(p.rows), kRayBlocks), kThreads,
                  shared_bytes<method, T>(p.num_rays), stream, p);
  });
}

cudaError_t launch_encode_targets(const EncodeTargetsParams& p, cudaStream_t stream) {
  const int64_t total = p.images * p.points, instances = p.instances.outlines.size;
  if (total == 0) return cudaSuccess;
  cudaError_t error = cudaMemsetAsync(p.targets.instance, 0xff, total * sizeof(int64_t), stream);
  if (error == cudaSuccess) error = launch(claim_kernel, blocks_for(instances), kThreads, 0, stream, p);
  if (error == cudaSuccess && p.instances.ignore)
    error = launch(ignore_kernel, instances * kPartsOfIgnored, kThreads, 0, stream, p);
  if (error != cudaSuccess) return error;
  return with_method(p.method, [&]<Method method>() {
    return launch(write_kernel<method>, std::min(blocks_for(ceil_div(total, kWarpSize)), kRayBlocks), kThreads,
                  shared_bytes<method, float>(p.num_rays), stream, p);
  });
}

template cudaError_t launch_cast_rays(const CastRaysParams<float>&, cudaStream_t);
template cudaError_t launch_cast_rays(const CastRaysParams<double>&, cudaStream_t);

}  // namespace polarmask::polar_target
