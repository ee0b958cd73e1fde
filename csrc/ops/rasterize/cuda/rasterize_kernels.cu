// N shapes of R edges on H × W pixels. At 3.35 TB/s, 100 shapes of 36 rays on 800 × 1280, sizes as in COCO:
//
//     masks      writes NHW                           102 MB    31 µs
//     labels     writes 4HW, an atomic a pixel drawn    4 MB     2 µs and some 800,000 atomics
//     RLE        reads 4NR, writes some 100 counts a shape, and 16NW of scratch    2 MB    1 µs
//     vertices   reads 4NR, writes 8NR                 43 KB
//
// Arithmetic is next to nothing: 100 × 36 edges, each looked at by the strips of the image, and some 40 operations in
// double for each of the 20,000 crossings. What counts is launches, 2–3 µs each, and the latency of one strip.
//
// Design: a warp takes a strip of 32 columns of a shape (strips.cuh). Its lanes look at an edge each; those that cross
// the strip are then taken one by one by all lanes, each of which toggles the row in its own column, a bit in words
// that it alone reads. So crossings of any number and order cost no sort, no list and no atomic. Strips that no edge
// crosses end there. Up to kRows rows at a time are in shared memory; a taller image is drawn piece by piece. Masks are
// zeroed by the copy engine's fastest way, and only what is inside is written over it: 10 % of the bytes in the case
// above, 16 at once where the width allows. Labels: the maximum of the positions in the order, which no schedule
// changes, and then their numbers. RLE: the changes of each column are counted, summed up, and written as differences;
// the one wait is for the total. Its strips overlap by a column: whether the first pixel of a column is a change
// depends on the last of the column before.
#include "common/cuda/scan.cuh"
#include "ops/rasterize/rasterize.h"
#include "ops/rle/cuda/write_runs.cuh"

namespace polarmask::rasterize {
namespace {

constexpr int kThreads = 256;  // of kernels without strips
constexpr int kWords = 40;     // shared memory of a lane: 1,280 rows, 20 KB a block
constexpr int64_t kRows = kWords * kWordRows;
constexpr int kRunsColumns = kStripColumns - 1;

// Blocks per multiprocessor, at least: bounds the registers of a thread. Without it nvcc spills.
constexpr int kStripBlocks = 4;

using Words = uint32_t[kWords][kWarpSize];

// The columns `first` … `last` − 1 of an image of this height; the lane's is column(). It may lie outside.
struct Strip {
  int64_t first, last, height;

  __device__ int64_t column() const { return first + lane_id(); }
};

__device__ Strip strip_of(int64_t index, int64_t height, int64_t width) {
  const int64_t first = index * kStripColumns;
  return {first, min_of(width, first + kStripColumns), height};
}

__device__ Strip runs_strip_of(int64_t index, int64_t height, int64_t width) {
  const int64_t first = index * kRunsColumns - 1;
  return {first, height > 0 ? min_of(width, first + kStripColumns) : 0, height};
}

// Sets the bits of the rows from `top` on at which shape n toggles the lane's column. False when nothing is toggled in
// the strip, at any height.
template <class Crossings, class Shapes>
__device__ bool draw_toggles(const Shapes& shapes, int64_t n, const Strip& strip, int64_t top, Words& words) {
  const int64_t bottom = min_of(strip.height, top + kRows);
  for (int64_t w = 0; w < ceil_div(bottom - top, kWordRows); ++w) words[w][lane_id()] = 0;
  const int64_t first = max_of<int64_t>(0, strip.first), edges = num_edges(shapes, n);
  bool finite = true, any = false;
  for (int64_t k = 0; k < edges; k += kWarpSize) {
    bool crosses = false;
    if (k + lane_id() < edges) {
      const auto segment = edge_of(shapes, n, k + lane_id());
      if (is_finite(segment)) {
        const Crossings crossings(segment, first, strip.last);
        crosses = crossings.begin < crossings.end;
      } else {
        finite = false;
      }
    }
    for (unsigned rest = __ballot_sync(~0u, crosses); rest != 0; rest &= rest - 1) {
      any = true;
      const Crossings crossings(edge_of(shapes, n, k + __ffs(static_cast<int>(rest)) - 1), first, strip.last);
      if (strip.column() < crossings.begin || strip.column() >= crossings.end) continue;
      const int64_t row = crossings.row(strip.column(), strip.height) - top;
      if (0 <= row && row < bottom - top) words[row / kWordRows][lane_id()] ^= 1u << row % kWordRows;
    }
  }
  return __all_sync(~0u, finite) && any;
}

// visit(first row, toggles) for the words of the strip, from the top down; false when there are none.
template <class Crossings, class Shapes, class Visit>
__device__ bool visit_words(const Shapes& shapes, int64_t n, const Strip& strip, Words& words, Visit&& visit) {
  for (int64_t top = 0; top < strip.height; top += kRows) {
    if (!draw_toggles<Crossings>(shapes, n, strip, top, words)) return false;
    const int64_t rows = min_of(kRows, strip.height - top);
    for (int64_t row = 0; row < rows; row += kWordRows) visit(top + row, words[row / kWordRows][lane_id()]);
  }
  return strip.height > 0;
}

// paint(first row, bits) for the words where any lane's column is inside.
template <class Shapes, class Paint>
__device__ void visit_inside(const Shapes& shapes, int64_t n, const Strip& strip, Words& words, Paint&& paint) {
  uint32_t above = 0;
  visit_words<CenterCrossings>(shapes, n, strip, words, [&](int64_t row, uint32_t toggles) {
    const uint32_t inside = inside_of(toggles, above);
    if (__any_sync(~0u, inside != 0)) paint(row, inside);
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads) polygons_kernel(PolygonsParams<T> p) {
  const int64_t total = p.shapes.num_shapes * p.shapes.num_vertices;
  for (int64_t at = blockIdx.x * int64_t{kThreads} + threadIdx.x; at < total; at += gridDim.x * int64_t{kThreads})
    p.vertices[at] = p.shapes.vertex(at / p.shapes.num_vertices, at % p.shapes.num_vertices);
}

template <class Shapes>
__global__ void __launch_bounds__(kStripThreads, kStripBlocks) masks_kernel(MasksParams<Shapes> p) {
  __shared__ Words words[kStripWarps];
  for_strips(p.shapes.size(), ceil_div(p.width, kStripColumns), [&](int64_t n, int64_t index) {
    const Strip strip = strip_of(index, p.height, p.width);
    uint8_t* const mask = p.masks + n * p.height * p.width;
    visit_inside(p.shapes, n, strip, words[threadIdx.x / kWarpSize],
                 [&](int64_t row, uint32_t inside) { paint_mask(mask, p.height, p.width, row, strip.first, inside); });
  });
}

// Each pixel becomes one more than the last position of a shape that covers it.
template <class Shapes>
__global__ void __launch_bounds__(kStripThreads, kStripBlocks) labels_kernel(LabelsParams<Shapes> p) {
  __shared__ Words words[kStripWarps];
  for_strips(p.count, ceil_div(p.width, kStripColumns), [&](int64_t position, int64_t index) {
    const int64_t n = p.order ? p.order[position] : position;
    if (n < 0 || n >= p.shapes.size()) return;
    const Strip strip = strip_of(index, p.height, p.width);
    visit_inside(p.shapes, n, strip, words[threadIdx.x / kWarpSize], [&](int64_t row, uint32_t inside) {
      const int64_t rows = min_of<int64_t>(kWordRows, p.height - row);
      for (int r = 0; r < rows; ++r)
        if (inside >> r & 1)
          atomicMax(&p.labels[(row + r) * p.width + strip.column()], static_cast<int32_t>(position + 1));
    });
  });
}

__global__ void __launch_bounds__(kThreads) relabel_kernel(const int64_t* order, int32_t* labels, int64_t pixels) {
  for (int64_t at = blockIdx.x * int64_t{kThreads} + threadIdx.x; at < pixels; at += gridDim.x * int64_t{kThreads})
    if (labels[at] > 0) labels[at] = static_cast<int32_t>(order[labels[at] - 1] + 1);
}

// Whether the lane's column changes in its first pixel, from the last one of the column before: that of the lane
// before.
__device__ bool first_changes(bool first_inside, int64_t toggles) {
  return first_inside != (__shfl_up_sync(~0u, static_cast<int>(toggles & 1), 1) != 0);
}

template <class Crossings, class Shapes>
__global__ void __launch_bounds__(kStripThreads, kStripBlocks)
    count_runs_kernel(RunsParams<Shapes> p, int64_t columns, int64_t* lengths) {
  __shared__ Words words[kStripWarps];
  for_strips(p.shapes.size(), ceil_div(columns, kRunsColumns), [&](int64_t n, int64_t index) {
    const Strip strip = runs_strip_of(index, p.height, p.width);
    int64_t toggles = 0;
    bool first_inside = false;
    const bool any =
        visit_words<Crossings>(p.shapes, n, strip, words[threadIdx.x / kWarpSize], [&](int64_t row, uint32_t word) {
          if (row == 0) first_inside = word & 1;
          toggles += __popc(word);
        });
    if (!any) toggles = 0, first_inside = false;
    const int64_t changes = toggles - first_inside + first_changes(first_inside, toggles);
    if (lane_id() > 0 && strip.column() < columns)
      lengths[n * columns + strip.column()] = changes + (strip.column() == columns - 1);
  });
}

template <class Crossings, class Shapes>
__global__ void __launch_bounds__(kStripThreads, kStripBlocks)
    emit_runs_kernel(RunsParams<Shapes> p, rle::RunsOut out) {
  __shared__ Words words[kStripWarps];
  write_offsets(out);
  Words& mine = words[threadIdx.x / kWarpSize];
  for_strips(p.shapes.size(), ceil_div(out.columns, kRunsColumns), [&](int64_t n, int64_t index) {
    const Strip strip = runs_strip_of(index, p.height, p.width);
    const int64_t column = strip.column(), top = column * p.height;
    const bool owned = lane_id() > 0 && column < out.columns;
    if (owned) finish_column(out, n, column);
    if (!__any_sync(~0u, owned && has_changes(out, n, column))) return;
    int64_t toggles = 0;
    bool first_inside = false;
    visit_words<Crossings>(p.shapes, n, strip, mine, [&](int64_t row, uint32_t word) {
      if (row == 0) first_inside = word & 1;
      toggles += __popc(word);
    });
    const bool first_is_change = first_changes(first_inside, toggles);
    int64_t at = owned ? out.begins[n * out.columns + column] : 0;
    if (owned && first_is_change) write_change(out, at++, top);
    visit_words<Crossings>(p.shapes, n, strip, mine, [&](int64_t row, uint32_t word) {
      if (row == 0) word &= ~1u;
      for (; owned && word != 0; word &= word - 1)
        write_change(out, at++, top + row + __ffs(static_cast<int>(word)) - 1);
    });
  });
}

}  // namespace

template <class T>
cudaError_t launch_polygons(const PolygonsParams<T>& p, cudaStream_t stream) {
  const int64_t blocks = ceil_div(p.shapes.num_shapes * p.shapes.num_vertices, kThreads);
  return launch(polygons_kernel<T>, blocks, kThreads, 0, stream, p);
}

template <class Shapes>
cudaError_t launch_masks(const MasksParams<Shapes>& p, cudaStream_t stream) {
  const cudaError_t error = cudaMemsetAsync(p.masks, 0, p.shapes.size() * p.height * p.width, stream);
  if (error != cudaSuccess) return error;
  const int64_t blocks = blocks_for_strips(p.shapes.size(), ceil_div(p.width, kStripColumns));
  return launch(masks_kernel<Shapes>, blocks, kStripThreads, 0, stream, p);
}

template <class Shapes>
cudaError_t launch_labels(const LabelsParams<Shapes>& p, cudaStream_t stream) {
  const int64_t pixels = p.height * p.width;
  cudaError_t error = cudaMemsetAsync(p.labels, 0, pixels * sizeof(int32_t), stream);
  if (error != cudaSuccess) return error;
  const int64_t blocks = blocks_for_strips(p.count, ceil_div(p.width, kStripColumns));
  error = launch(labels_kernel<Shapes>, blocks, kStripThreads, 0, stream, p);
  if (error != cudaSuccess || !p.order) return error;
  return launch(relabel_kernel, ceil_div(pixels, kThreads), kThreads, 0, stream, p.order, p.labels, pixels);
}

// lengths [N · columns], columns = rle::runs_columns(H, W)
template <class Shapes>
cudaError_t launch_count_runs(const RunsParams<Shapes>& p, int64_t* lengths, cudaStream_t stream) {
  const int64_t columns = rle::runs_columns(p.height, p.width);
  const int64_t blocks = blocks_for_strips(p.shapes.size(), ceil_div(columns, kRunsColumns));
  const auto kernel = p.coco ? count_runs_kernel<CocoCrossings, Shapes> : count_runs_kernel<CenterCrossings, Shapes>;
  return launch(kernel, blocks, kStripThreads, 0, stream, p, columns, lengths);
}

template <class Shapes>
cudaError_t launch_emit_runs(const RunsParams<Shapes>& p, const rle::RunsOut& out, cudaStream_t stream) {
  const auto kernel = p.coco ? emit_runs_kernel<CocoCrossings, Shapes> : emit_runs_kernel<CenterCrossings, Shapes>;
  return launch_emit(kernel, ceil_div(out.columns, kRunsColumns), out, stream, p);
}

#define POLARMASK_INSTANTIATE(...)                                                                \
  template cudaError_t launch_masks(const MasksParams<__VA_ARGS__>&, cudaStream_t);               \
  template cudaError_t launch_labels(const LabelsParams<__VA_ARGS__>&, cudaStream_t);             \
  template cudaError_t launch_count_runs(const RunsParams<__VA_ARGS__>&, int64_t*, cudaStream_t); \
  template cudaError_t launch_emit_runs(const RunsParams<__VA_ARGS__>&, const rle::RunsOut&, cudaStream_t);
POLARMASK_INSTANTIATE(PolygonShapes<float>)
POLARMASK_INSTANTIATE(PolygonShapes<double>)
POLARMASK_INSTANTIATE(RayShapes<float>)
POLARMASK_INSTANTIATE(RayShapes<double>)
POLARMASK_INSTANTIATE(OutlineShapes<float>)
POLARMASK_INSTANTIATE(OutlineShapes<double>)
template cudaError_t launch_polygons(const PolygonsParams<float>&, cudaStream_t);
template cudaError_t launch_polygons(const PolygonsParams<double>&, cudaStream_t);

}  // namespace polarmask::rasterize
