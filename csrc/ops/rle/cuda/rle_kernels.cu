// N images of H × W pixels, T run lengths in all. At 3.35 TB/s, 100 of 800 × 1280, each of some 200 runs:
//
//     masks to RLE      reads NHW three times, here    307 MB    92 µs (31 if the changes were kept)
//     RLE to masks      writes NHW                     102 MB    31 µs
//     areas, boxes      read 4T, and 16T for sums      0.4 MB
//     strings           read 8T, write some 2T         0.2 MB
//
// The last two take as long as their launches, 2–3 µs each.
//
// Design: bitmaps by strips of 32 columns, a lane each (strips.cuh), rows as they lie in memory. From masks: a column's
// changes are counted, summed up over all columns, and written as differences; the one wait is for the total. To masks:
// the counts are summed up, each lane finds the run in which its column begins by bisection, and walks down. What is
// per run takes a warp a row, 32 runs at a time. Strings are read by one thread each: a count depends on the ones
// before, and strings come from files, through the CPU.
//
// Values are not checked: a negative count counts as 0, and an image whose counts do not sum to H · W is empty, like
// one whose string is malformed.
#include "common/cuda/scan.cuh"
#include "ops/rle/cuda/write_runs.cuh"
#include "ops/rle/rle.h"
#include "ops/rle/runs.h"

namespace polarmask::rle {
namespace {

// The lane's column of image n, and the last pixel of the column before.
struct MaskColumn {
  const uint8_t* pixels;  // from the first row on, W apart
  bool before;
};

__device__ MaskColumn column_of(const MaskRunsParams& p, int64_t n, int64_t column) {
  const uint8_t* const pixels = p.masks + n * p.height * p.width + column;
  return {pixels, p.height > 0 && column > 0 && pixels[(p.height - 1) * p.width - 1] != 0};
}

// change(row) for each pixel that differs from the one before it.
template <class Change>
__device__ void visit_changes(const MaskRunsParams& p, const MaskColumn& column, Change&& change) {
  bool before = column.before;
#pragma unroll 8
  for (int64_t row = 0; row < p.height; ++row) {
    const bool inside = column.pixels[row * p.width] != 0;
    if (inside != before) change(row);
    before = inside;
  }
}

__global__ void __launch_bounds__(kStripThreads)
    count_mask_runs_kernel(MaskRunsParams p, int64_t columns, int64_t* lengths) {
  for_strips(p.count, ceil_div(columns, kStripColumns), [&](int64_t n, int64_t index) {
    const int64_t column = index * kStripColumns + lane_id();
    if (column >= columns) return;
    int64_t changes = 0;
    if (column < p.width) visit_changes(p, column_of(p, n, column), [&](int64_t) { ++changes; });
    lengths[n * columns + column] = changes + (column == columns - 1);
  });
}

__global__ void __launch_bounds__(kStripThreads) emit_mask_runs_kernel(MaskRunsParams p, RunsOut out) {
  write_offsets(out);
  for_strips(p.count, ceil_div(out.columns, kStripColumns), [&](int64_t n, int64_t index) {
    const int64_t column = index * kStripColumns + lane_id();
    if (column >= out.columns) return;
    finish_column(out, n, column);
    if (!has_changes(out, n, column)) return;
    int64_t at = out.begins[n * out.columns + column];
    visit_changes(p, column_of(p, n, column), [&](int64_t row) { write_change(out, at++, column * p.height + row); });
  });
}

// An image's runs, by where they end.
struct Ends {
  const int64_t* ends;  // [length + 1]
  int64_t length, start;

  __device__ int64_t operator[](int64_t k) const { return ends[k] - start; }  // where run k begins, and run k − 1 ends
};

__device__ Ends ends_of(const RlePixelsParams& p, int64_t n) {
  const Interval range = p.runs.range(n);
  return {p.ends + range.begin, range.size(), p.ends[range.begin]};
}

__device__ bool fits(const RlePixelsParams& p, const Ends& ends) { return ends[ends.length] == p.height * p.width; }

// The last run that begins at or before a pixel of the image.
__device__ int64_t run_at(const Ends& ends, int64_t pixel) {
  int64_t low = 0, high = ends.length - 1;
  while (low < high) {
    const int64_t middle = (low + high + 1) / 2;
    if (ends[middle] <= pixel) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

__global__ void __launch_bounds__(kStripThreads) masks_of_runs_kernel(RlePixelsParams p, uint8_t* masks) {
  for_strips(p.runs.size, ceil_div(p.width, kStripColumns), [&](int64_t n, int64_t index) {
    const Ends ends = ends_of(p, n);
    if (!fits(p, ends)) return;
    const int64_t first = index * kStripColumns, column = first + lane_id();
    const int64_t top = column * p.height;
    int64_t run = column < p.width ? run_at(ends, top) : 0;
    uint32_t above = 0u - static_cast<uint32_t>(column < p.width && run % 2 == 1);
    for (int64_t row = 0; row < p.height; row += kWordRows) {
      const int64_t stop = top + min_of(p.height, row + kWordRows);
      uint32_t toggles = 0;
      while (column < p.width && ends[run + 1] < stop) toggles ^= 1u << (ends[++run] - top - row);
      const uint32_t inside = inside_of(toggles, above);
      if (__any_sync(~0u, inside != 0))
        paint_mask(masks + n * p.height * p.width, p.height, p.width, row, first, inside);
    }
  });
}

// body(n), a warp to each of `count` rows.
template <class Body>
__device__ void for_rows(int64_t count, Body&& body) {
  for_strips(count, 1, [&](int64_t n, int64_t) { body(n); });
}

__device__ int64_t warp_sum(int64_t value) {
  for (int by = 1; by < kWarpSize; by *= 2) value += __shfl_xor_sync(~0u, value, by);
  return value;
}

__global__ void __launch_bounds__(kStripThreads) areas_kernel(RlePixelsParams p, int64_t* areas) {
  for_rows(p.runs.size, [&](int64_t n) {
    const Interval range = p.runs.range(n);
    int64_t all = 0, inside = 0;  // pixels
    for (int64_t k = range.begin + lane_id(); k < range.end; k += kWarpSize) {
      const int64_t count = max_of(0, p.runs.data[k]);
      all += count;
      inside += (k - range.begin) % 2 == 1 ? count : 0;
    }
    all = warp_sum(all);
    inside = warp_sum(inside);
    if (lane_id() == 0) areas[n] = all == p.height * p.width ? inside : 0;
  });
}

__global__ void __launch_bounds__(kStripThreads) boxes_kernel(RlePixelsParams p, float* boxes) {
  for_rows(p.runs.size, [&](int64_t n) {
    const Ends ends = ends_of(p, n);
    PixelBox box = no_pixels(p.height, p.width);
    if (fits(p, ends))
      for (int64_t k = 1 + 2 * lane_id(); k < ends.length; k += 2 * kWarpSize)
        if (ends[k] < ends[k + 1]) box = join(box, box_around_run(ends[k], ends[k + 1], p.height));
    for (int by = 1; by < kWarpSize; by *= 2) {
      box.columns.begin = min_of(box.columns.begin, __shfl_xor_sync(~0u, box.columns.begin, by));
      box.rows.begin = min_of(box.rows.begin, __shfl_xor_sync(~0u, box.rows.begin, by));
      box.columns.end = max_of(box.columns.end, __shfl_xor_sync(~0u, box.columns.end, by));
      box.rows.end = max_of(box.rows.end, __shfl_xor_sync(~0u, box.rows.end, by));
    }
    if (lane_id() == 0) write_box(box, boxes + 4 * n);
  });
}

__device__ int64_t num_chars(const int32_t* counts, int64_t k) {
  int64_t chars = 0;
  encode_count(counts, k, [&](uint8_t) { ++chars; });
  return chars;
}

__global__ void __launch_bounds__(kStripThreads) count_chars_kernel(Ragged<int32_t> runs, int64_t* lengths) {
  for_rows(runs.size, [&](int64_t n) {
    int64_t chars = 0;
    for (int64_t k = lane_id(); k < runs.length(n); k += kWarpSize) chars += num_chars(runs.row(n), k);
    chars = warp_sum(chars);
    if (lane_id() == 0) lengths[n] = chars;
  });
}

__global__ void __launch_bounds__(kStripThreads)
    emit_chars_kernel(Ragged<int32_t> runs, const int64_t* offsets, uint8_t* strings) {
  for_rows(runs.size, [&](int64_t n) {
    const int32_t* const counts = runs.row(n);
    uint8_t* string = strings + offsets[n];
    for (int64_t first = 0; first < runs.length(n); first += kWarpSize) {
      const int64_t k = first + lane_id();
      const int64_t chars = k < runs.length(n) ? num_chars(counts, k) : 0;
      const int64_t through = warp_scan(chars);
      uint8_t* to = string + through - chars;
      if (chars > 0) encode_count(counts, k, [&](uint8_t character) { *to++ = character; });
      string += __shfl_sync(~0u, through, kWarpSize - 1);
    }
  });
}

// A thread to each string; one that is malformed has no counts.
__global__ void __launch_bounds__(kStripThreads) decode_kernel(StringsParams p, int64_t* lengths) {
  const int64_t first = blockIdx.x * int64_t{kStripThreads} + threadIdx.x;
  for (int64_t n = first; n < p.strings.size; n += gridDim.x * int64_t{kStripThreads}) {
    int32_t* const counts = p.decoded + p.strings.range(n).begin;
    lengths[n] = decode_string(p.strings.row(n), p.strings.length(n), p.area, counts);
  }
}

__global__ void __launch_bounds__(kStripThreads)
    emit_counts_kernel(StringsParams p, const int64_t* offsets, int32_t* counts) {
  for_rows(p.strings.size, [&](int64_t n) {
    const int32_t* const from = p.decoded + p.strings.range(n).begin;
    for (int64_t k = lane_id(); k < offsets[n + 1] - offsets[n]; k += kWarpSize) counts[offsets[n] + k] = from[k];
  });
}

cudaError_t sum_counts(const RlePixelsParams& p, cudaStream_t stream) {
  return launch_offsets(p.runs.data, p.runs.total, p.ends, p.scratch, stream);
}

}  // namespace

// lengths [N · columns], columns = runs_columns(H, W)
cudaError_t launch_count_mask_runs(const MaskRunsParams& p, int64_t* lengths, cudaStream_t stream) {
  const int64_t columns = runs_columns(p.height, p.width);
  const int64_t blocks = blocks_for_strips(p.count, ceil_div(columns, kStripColumns));
  return launch(count_mask_runs_kernel, blocks, kStripThreads, 0, stream, p, columns, lengths);
}

cudaError_t launch_emit_mask_runs(const MaskRunsParams& p, const RunsOut& out, cudaStream_t stream) {
  return launch_emit(emit_mask_runs_kernel, ceil_div(out.columns, kStripColumns), out, stream, p);
}

cudaError_t launch_masks_of_runs(const RlePixelsParams& p, uint8_t* masks, cudaStream_t stream) {
  cudaError_t error = cudaMemsetAsync(masks, 0, p.runs.size * p.height * p.width, stream);
  if (error == cudaSuccess) error = sum_counts(p, stream);
  if (error != cudaSuccess) return error;
  const int64_t blocks = blocks_for_strips(p.runs.size, ceil_div(p.width, kStripColumns));
  return launch(masks_of_runs_kernel, blocks, kStripThreads, 0, stream, p, masks);
}

cudaError_t launch_areas(const RlePixelsParams& p, int64_t* areas, cudaStream_t stream) {
  return launch(areas_kernel, blocks_for_strips(p.runs.size, 1), kStripThreads, 0, stream, p, areas);
}

cudaError_t launch_boxes(const RlePixelsParams& p, float* boxes, cudaStream_t stream) {
  const cudaError_t error = sum_counts(p, stream);
  if (error != cudaSuccess) return error;
  return launch(boxes_kernel, blocks_for_strips(p.runs.size, 1), kStripThreads, 0, stream, p, boxes);
}

cudaError_t launch_count_chars(const Ragged<int32_t>& runs, int64_t* lengths, cudaStream_t stream) {
  return launch(count_chars_kernel, blocks_for_strips(runs.size, 1), kStripThreads, 0, stream, runs, lengths);
}

cudaError_t launch_emit_chars(const Ragged<int32_t>& runs, const int64_t* offsets, uint8_t* strings,
                              cudaStream_t stream) {
  return launch(emit_chars_kernel, blocks_for_strips(runs.size, 1), kStripThreads, 0, stream, runs, offsets, strings);
}

cudaError_t launch_decode(const StringsParams& p, int64_t* lengths, cudaStream_t stream) {
  return launch(decode_kernel, ceil_div(p.strings.size, kStripThreads), kStripThreads, 0, stream, p, lengths);
}

cudaError_t launch_emit_counts(const StringsParams& p, const int64_t* offsets, int32_t* counts, cudaStream_t stream) {
  return launch(emit_counts_kernel, blocks_for_strips(p.strings.size, 1), kStripThreads, 0, stream, p, offsets, counts);
}

}  // namespace polarmask::rle
