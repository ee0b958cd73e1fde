// M masks of H·W bytes, of which S segments of 16 bytes are made. 100 masks of 768 × 1280 are 98 MB: 29 µs at 3.35
// TB/s; where boxes say which pixels count, only words with such pixels are read. What is left when they are packed
// into bits is an eighth, and stays in the L2 cache; an RLE is smaller still.
//
// Design: the first kernel packs, a thread to a word of 32 pixels, and reads every byte once. Then a block has a shape:
// a thread to a line finds its runs, joins runs and gaps with those of the line before by union-find, adds up areas,
// keeps what belongs to the largest component, and follows the sides; a scan over the block gives each line its place,
// so that segments come in the CPU's order. That kernel runs twice, to count and to write: doing the work again costs
// less than keeping what it found for all shapes at once. So the work of a shape lies in shared memory, where the usual
// hundreds of runs fit; shapes with more are left to a second launch, whose blocks work in slots of global memory, for
// as many runs as there can be. Scratch of bitmaps: an eighth of them for the bits, 12 bytes a pixel of one mask for
// its slot, and more slots at once as long as they take no more than the bitmaps. Of RLE: 20 bytes a count, 40 a column
// of each shape.
#include "common/cuda/launch.cuh"
#include "common/cuda/scan.cuh"
#include "ops/outlines/pixel_shapes.h"

namespace polarmask::outlines {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocks = 2;  // blocks per multiprocessor, at least: bounds registers; without it nvcc spills
constexpr int64_t kShapeBytes = 40 * 1024;  // of shared memory: 1,400 runs in 768 lines, on every chip

// body(k) for this thread's share.
template <class Body>
__device__ void for_share(int64_t count, Body&& body) {
  for (int64_t k = threadIdx.x; k < count; k += kThreads) body(k);
}

// ---- bits

// One word a thread: 32 bytes in two accesses.
__global__ void __launch_bounds__(kThreads) pack_words_kernel(const uint8_t* pixels, int64_t num_rows, BitShapes to) {
  const int64_t count = num_rows * to.words(), stride = gridDim.x * int64_t{kThreads};
  for (int64_t word = blockIdx.x * int64_t{kThreads} + threadIdx.x; word < count; word += stride) {
    const uint32_t counting = to.counting(word / to.words(), word % to.words() * 32);
    if (counting == 0) {
      to.bits[word] = 0;
      continue;
    }
    const auto* const bytes = reinterpret_cast<const uint4*>(pixels + 32 * word);
    const uint4 low = bytes[0], high = bytes[1];
    const unsigned fours[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    uint32_t bits = 0;
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      const unsigned ones = ((((fours[k] & 0x7f7f7f7f) + 0x7f7f7f7f) | fours[k]) & 0x80808080) >> 7;
      bits |= (ones * 0x01020408 >> 24) << (4 * k);  // the product brings byte k's 1 to bit 24 + k
    }
    to.bits[word] = bits & counting;
  }
}

// Rows of any width, anywhere in memory: a warp takes 32 words, one after the other, a lane a pixel of each.
__global__ void __launch_bounds__(kThreads) pack_pixels_kernel(const uint8_t* pixels, int64_t num_rows, BitShapes to) {
  const int64_t words = to.words(), count = num_rows * words, stride = gridDim.x * int64_t{kThreads};
  const int lane = threadIdx.x % kWarpSize;
  for (int64_t first = blockIdx.x * int64_t{kThreads} + threadIdx.x - lane; first < count; first += stride) {
    uint32_t bits = 0;
    for (int k = 0; k < kWarpSize && first + k < count; ++k) {
      const int64_t row = (first + k) / words, x = (first + k) % words * 32 + lane;
      const bool counts = x < to.width && to.counting(row, x - lane) >> lane & 1;
      const unsigned inside = __ballot_sync(~0u, counts && pixels[row * to.width + x] != 0);
      if (k == lane) bits = inside;
    }
    if (first + lane < count) to.bits[first + lane] = bits;
  }
}

// ---- where shapes come from
//
// slot_begin(m) and slot_bytes(m) say which part of the slots shape m may use, has_slots() whether no two share one.
// open(m, numbers), with room for num_numbers(m), is called by the whole block; then runs(line, visit) calls
// visit(begin, end) for the runs of a line.

class BitRows {
 public:
  using Params = BitShapes;
  static constexpr bool kColumns = false;

  __device__ explicit BitRows(const Params& p) : p_(p) {}
  __device__ int64_t slot_begin(int64_t) const { return blockIdx.x * p_.slot_bytes(); }
  __device__ int64_t slot_bytes(int64_t) const { return p_.slot_bytes(); }
  __device__ bool has_slots() const { return true; }
  __device__ int64_t num_lines() const { return p_.height; }
  __device__ int64_t num_numbers(int64_t) const { return 0; }
  __device__ void open(int64_t m, int32_t*) { bits_ = p_.bits + m * p_.height * p_.words(); }

  template <class Visit>
  __device__ void runs(int64_t line, Visit&& visit) const {
    const uint32_t* const words = bits_ + line * p_.words();
    int32_t begin = -1;  // of the run that is open
    for (int64_t k = 0; k < p_.words(); ++k) {
      const uint32_t inside = words[k];
      for (uint32_t changes = inside ^ (inside << 1 | (begin >= 0)); changes != 0; changes &= changes - 1) {
        const int32_t at = static_cast<int32_t>(32 * k) + __ffs(static_cast<int>(changes)) - 1;
        if (begin >= 0) visit(begin, at);
        begin = begin >= 0 ? -1 : at;
      }
    }
    if (begin >= 0) visit(begin, static_cast<int32_t>(p_.width));
  }

 private:
  Params p_;
  const uint32_t* bits_;
};

class RleColumns {
 public:
  using Params = RleShapes;
  static constexpr bool kColumns = true;

  __device__ explicit RleColumns(const Params& p) : p_(p) {}
  __device__ int64_t slot_begin(int64_t m) const { return p_.slot_begin(m, p_.runs.range(m).begin); }
  __device__ int64_t slot_bytes(int64_t m) const { return p_.bytes(p_.runs.length(m)); }
  __device__ bool has_slots() const {
    bool falls = false;
    for_share(p_.runs.size, [&](int64_t m) { falls |= p_.runs.offsets[m] > p_.runs.offsets[m + 1]; });
    return !__syncthreads_or(falls);
  }
  __device__ int64_t num_lines() const { return p_.width; }
  __device__ int64_t num_numbers(int64_t m) const { return p_.runs.length(m) + 1; }

  // The numbers are where each count starts, in pixels counted column by column. Counts that do not sum to the image
  // make no runs.
  __device__ void open(int64_t m, int32_t* starts) {
    const int32_t* const counts = p_.runs.row(m);
    const int64_t length = p_.runs.length(m);
    int64_t position = 0;
    bool negative = false;
    for (int64_t first = 0; first <= length; first += kThreads) {
      const int64_t k = first + threadIdx.x, count = k < length ? counts[k] : 0;
      int64_t total;
      const int64_t end = position + block_scan<kThreads>(count, total);
      negative |= count < 0;
      if (k <= length) starts[k] = static_cast<int32_t>(end - count);
      position += total;
    }
    const bool fits = !__syncthreads_or(negative || position != p_.height * p_.width);
    starts_ = starts;
    length_ = fits ? length : 0;
  }

  template <class Visit>
  __device__ void runs(int64_t line, Visit&& visit) const {
    const int64_t top = line * p_.height, bottom = top + p_.height;
    int64_t k = 0;  // the last count that starts at the top or before
    for (int64_t end = length_; end - k > 1;) (starts_[(k + end) / 2] <= top ? k : end) = (k + end) / 2;
    int64_t begin = 0, end = -1;  // of the run that is open
    for (; k < length_ && starts_[k] < bottom; ++k) {
      if (k % 2 == 0 || starts_[k] == starts_[k + 1] || starts_[k + 1] <= top) continue;
      const int64_t next = max_of<int64_t>(starts_[k], top);
      if (next != end) {
        if (end >= 0) visit(static_cast<int32_t>(begin - top), static_cast<int32_t>(end - top));
        begin = next;
      }
      end = min_of<int64_t>(starts_[k + 1], bottom);
    }
    if (end >= 0) visit(static_cast<int32_t>(begin - top), static_cast<int32_t>(end - top));
  }

 private:
  Params p_;
  const int32_t* starts_;
  int64_t length_;
};

// ---- a shape in the memory of its block

struct Shape {
  int64_t num_lines, num_runs;
  int32_t *begins, *ends;            // [lines] the numbers of the first run of each line, and behind its last
  Run* runs;                         // [runs]
  unsigned long long* first_pixels;  // [runs] of each component of columns: row and column
  int32_t *pieces, *gaps;            // [runs], [runs + 1] union-find
  int32_t *outer_gaps, *areas;       // [runs] of each component
  int32_t* sides;                    // [2 runs] union-find, in place of pieces and gaps

  // Any line at all; none where there is nothing.
  __device__ Line line(int64_t k) const {
    if (k < 0 || k >= num_lines) return {};
    return {runs + begins[k], begins[k], ends[k] - begins[k]};
  }

  __device__ int64_t line_of(int32_t run) const {
    int64_t k = 0;  // the last line that begins with the run or before
    for (int64_t end = num_lines; end - k > 1;) (begins[(k + end) / 2] <= run ? k : end) = (k + end) / 2;
    return k;
  }
};

// Union-find by all threads at once. Others may be changing what is read: as a plain load it could come from a register
// or a stale line of the cache.
__device__ int32_t load(int32_t* at) { return atomicOr(at, 0); }

__device__ int32_t root(int32_t* parents, int32_t k) {
  for (int32_t next = load(parents + k); next != k;) {
    const int32_t after = load(parents + next);
    if (after != next) atomicMin(parents + k, after);  // half the way for who comes next
    k = next, next = after;
  }
  return k;
}

// The smaller number stays, whatever the order.
__device__ void join(int32_t* parents, int64_t a_in, int64_t b_in) {
  auto a = static_cast<int32_t>(a_in), b = static_cast<int32_t>(b_in);
  for (;;) {
    a = root(parents, a), b = root(parents, b);
    if (a == b) return;
    const int32_t smaller = min_of(a, b), larger = max_of(a, b);
    if (atomicCAS(parents + larger, larger, smaller) == larger) return;
  }
}

// Lays out the shape and fills in its runs; false where the memory is too small for it. The first write comes after a
// barrier, so that no thread is still at the shape before.
template <class Source>
__device__ bool find_runs(Source& source, int64_t m, unsigned char* memory, int64_t bytes, Shape& shape) {
  const int64_t lines = source.num_lines(), numbers = source.num_numbers(m);
  if (shape_bytes(lines, numbers, 0, Source::kColumns) > bytes) return false;
  auto* at = reinterpret_cast<int32_t*>(memory);
  shape.num_lines = lines;
  shape.begins = at, at += lines;
  shape.ends = at, at += lines;
  source.open(m, at), at += numbers + numbers % 2;
  int32_t before = 0;
  for (int64_t first = 0; first < lines; first += kThreads) {
    const int64_t line = first + threadIdx.x;
    int32_t count = 0, total;
    if (line < lines) source.runs(line, [&](int32_t, int32_t) { ++count; });
    const int32_t end = before + block_scan<kThreads>(count, total);
    if (line < lines) shape.begins[line] = end - count, shape.ends[line] = end;
    before += total;
  }
  const int64_t runs = shape.num_runs = before;
  if (shape_bytes(lines, numbers, runs, Source::kColumns) > bytes) return false;
  shape.runs = reinterpret_cast<Run*>(at), at += 2 * runs;
  shape.first_pixels = reinterpret_cast<unsigned long long*>(at), at += Source::kColumns ? 2 * runs : 0;
  shape.sides = shape.pieces = at, at += runs;
  shape.gaps = at, at += runs + 1;
  shape.outer_gaps = at, at += runs;
  shape.areas = at;
  for_share(lines, [&](int64_t line) {
    Run* run = shape.runs + shape.begins[line];
    source.runs(line, [&](int32_t begin, int32_t end) { *run++ = {begin, end}; });
  });
  __syncthreads();
  return true;
}

// Leaves the largest component, its holes filled: pixels.h says how.
template <bool kColumns>
__device__ void keep_largest(Shape& shape) {
  __shared__ int32_t largest_area, best;
  __shared__ unsigned long long best_pixel;
  if (shape.num_runs == 0) return;
  const auto first_pixel = [&](int64_t piece) {  // of rows: the order of the runs
    return kColumns ? shape.first_pixels[piece] : static_cast<unsigned long long>(piece);
  };
  for_share(shape.num_runs + 1, [&](int64_t k) {
    shape.gaps[k] = static_cast<int32_t>(k);
    if (k == shape.num_runs) return;
    shape.pieces[k] = static_cast<int32_t>(k);
    shape.areas[k] = 0;
    if (kColumns) shape.first_pixels[k] = ~0ull;
  });
  if (threadIdx.x == 0) largest_area = 0, best_pixel = ~0ull;
  __syncthreads();
  for_share(shape.num_lines + 1, [&](int64_t k) {
    const Line above = shape.line(k - 1), here = shape.line(k);
    touching_runs(above, here, [&](int64_t a, int64_t h) { join(shape.pieces, a, h); });
    touching_gaps(above, here, [&](int64_t a, int64_t h) { join(shape.gaps, a, h); });
  });
  __syncthreads();
  for_share(shape.num_lines, [&](int64_t at) {
    const Line line = shape.line(at);
    for (int64_t k = 0; k < line.count; ++k) {
      const int64_t run = line.first + k;
      if (root(shape.pieces, static_cast<int32_t>(run)) == run)
        shape.outer_gaps[run] = root(shape.gaps, static_cast<int32_t>(line.gap(k)));
    }
  });
  __syncthreads();
  const auto is_outside = [&](int32_t piece, int64_t gap) {
    return root(shape.gaps, static_cast<int32_t>(gap)) == shape.outer_gaps[piece];
  };
  for_share(shape.num_lines, [&](int64_t at) {
    const Line line = shape.line(at);
    for (int64_t k = 0; k < line.count; ++k) {
      const int32_t piece = root(shape.pieces, static_cast<int32_t>(line.first + k));
      const int32_t area =
          (is_outside(piece, line.gap(k + 1)) ? line[k].end : 0) - (is_outside(piece, line.gap(k)) ? line[k].begin : 0);
      atomicAdd(shape.areas + piece, area);
      if (kColumns) atomicMin(shape.first_pixels + piece, static_cast<unsigned long long>(line[k].begin) << 32 | at);
    }
  });
  __syncthreads();
  for_share(shape.num_runs, [&](int64_t piece) {
    if (shape.areas[piece] > 0) atomicMax(&largest_area, shape.areas[piece]);  // components, and no other run
  });
  __syncthreads();
  for_share(shape.num_runs, [&](int64_t piece) {
    if (shape.areas[piece] == largest_area) atomicMin(&best_pixel, first_pixel(piece));
  });
  __syncthreads();
  for_share(shape.num_runs, [&](int64_t piece) {
    if (shape.areas[piece] == largest_area && first_pixel(piece) == best_pixel) best = static_cast<int32_t>(piece);
  });
  __syncthreads();
  for_share(shape.num_lines, [&](int64_t at) {
    const Line line = shape.line(at);
    Run* kept = shape.runs + line.first;  // never ahead of what is read
    fill_line(
        line, [&](int64_t run) { return root(shape.pieces, static_cast<int32_t>(run)) == best; },
        [&](int64_t gap) { return is_outside(best, gap); },
        [&](int32_t begin, int32_t end) { *kept++ = {begin, end}; });
    shape.ends[at] = static_cast<int32_t>(kept - shape.runs);
  });
  __syncthreads();
}

// Joins each side across the lines with that which it goes on with: the root is the one where it begins.
__device__ void join_sides(Shape& shape) {
  for_share(shape.num_lines, [&](int64_t k) {
    const Line above = shape.line(k - 1), here = shape.line(k);
    sweep_sides(
        above, here, [](int64_t, int64_t) {}, [](int64_t) {},
        [&](int64_t h, int64_t a) {
          const int64_t side = 2 * here.first + h;
          shape.sides[side] = static_cast<int32_t>(a < 0 ? side : 2 * above.first + a);
        });
  });
  __syncthreads();
  for_share(shape.num_lines, [&](int64_t k) {  // all at once: a long way is halved many times before someone needs it
    const Line line = shape.line(k);
    for (int64_t side = 2 * line.first; side < 2 * line.first + line.num_sides(); ++side)
      root(shape.sides, static_cast<int32_t>(side));
  });
}

// Calls add(along0, line0, along1, line1) for the segments between the line before and this one, or for its border
// pixels, where begun(side) says in which line a side across began.
template <class Begun, class Add>
__device__ void for_segments(const Shape& shape, bool border, int64_t k, Begun&& begun, Add&& add) {
  const Line above = shape.line(k - 1), here = shape.line(k);
  const auto line = static_cast<float>(k);
  if (border)
    return border_pixels(above, here, shape.line(k + 1), [&](int32_t x) {
      const float along = static_cast<float>(x + 0.5), across = static_cast<float>(static_cast<double>(k) + 0.5);
      add(along, across, along, across);
    });
  sweep_sides(
      above, here, [&](int64_t x0, int64_t x1) { add(static_cast<float>(x0), line, static_cast<float>(x1), line); },
      [&](int64_t a) {
        const auto x = static_cast<float>(above.side(a)), other = static_cast<float>(begun(2 * above.first + a));
        a % 2 == 0 ? add(x, line, x, other) : add(x, other, x, line);
      },
      [](int64_t, int64_t) {});
}

// Without `offsets` it counts.
template <class Source>
__global__ void __launch_bounds__(kThreads, kBlocks)
    pixel_outlines_kernel(typename Source::Params from, PixelOutlinesParams p, bool by_slots, int64_t* lengths,
                          const int64_t* offsets, AlignedSegment<float>* segments) {
  for (int64_t m = blockIdx.x; m < p.count; m += gridDim.x) {
    if ((by_slots || offsets) && p.needs_slot[m] != by_slots) continue;
    Source source(from);
    Shape shape;
    unsigned char* const memory = by_slots ? p.slots + source.slot_begin(m) : dynamic_shared<unsigned char>();
    const bool fits = (!by_slots || source.has_slots()) &&
                      find_runs(source, m, memory, by_slots ? source.slot_bytes(m) : kShapeBytes, shape);
    if (!offsets && !by_slots && threadIdx.x == 0) p.needs_slot[m] = !fits;
    if (fits && p.largest) keep_largest<Source::kColumns>(shape);
    if (fits && offsets && !p.border) join_sides(shape);
    const int64_t num_seams = fits ? shape.num_lines + !p.border : 0;
    int64_t at = offsets ? offsets[m] : 0;
    for (int64_t first = 0; first < num_seams; first += kThreads) {
      const int64_t k = first + threadIdx.x;
      int32_t count = 0, total;
      if (k < num_seams)
        for_segments(
            shape, p.border, k, [](int64_t) { return int64_t{0}; }, [&](float, float, float, float) { ++count; });
      const int64_t end = at + block_scan<kThreads>(count, total);
      at += total;
      if (!offsets || k >= num_seams) continue;
      AlignedSegment<float>* to = segments + end - count;
      for_segments(
          shape, p.border, k,
          [&](int64_t side) { return shape.line_of(root(shape.sides, static_cast<int32_t>(side)) / 2); },
          [&](float along0, float line0, float along1, float line1) {
            *to++ = Source::kColumns ? AlignedSegment<float>{line1, along1, line0, along0}
                                     : AlignedSegment<float>{along0, line0, along1, line1};
          });
    }
    if (!offsets && threadIdx.x == 0) lengths[m] = at;  // 0 until a slot has it
  }
}

}  // namespace

cudaError_t launch_pack(const uint8_t* pixels, int64_t num_rows, const BitShapes& to, cudaStream_t stream) {
  const bool whole = to.width % 32 == 0 && reinterpret_cast<uintptr_t>(pixels) % sizeof(uint4) == 0;
  const int64_t blocks = ceil_div(num_rows * to.words(), kThreads);
  return launch(whole ? pack_words_kernel : pack_pixels_kernel, blocks, kThreads, 0, stream, pixels, num_rows, to);
}

template <class Source>
cudaError_t launch_outlines(const typename Source::Params& from, const PixelOutlinesParams& p, int64_t* lengths,
                            const int64_t* offsets, AlignedSegment<float>* segments, cudaStream_t stream) {
  const cudaError_t error = launch(pixel_outlines_kernel<Source>, p.count, kThreads, kShapeBytes, stream, from, p,
                                   false, lengths, offsets, segments);
  if (error != cudaSuccess) return error;
  return launch(pixel_outlines_kernel<Source>, p.num_slots, kThreads, 0, stream, from, p, true, lengths, offsets,
                segments);
}

cudaError_t launch_count_outlines(const BitShapes& from, const PixelOutlinesParams& p, int64_t* lengths,
                                  cudaStream_t stream) {
  return launch_outlines<BitRows>(from, p, lengths, nullptr, nullptr, stream);
}

cudaError_t launch_count_outlines(const RleShapes& from, const PixelOutlinesParams& p, int64_t* lengths,
                                  cudaStream_t stream) {
  return launch_outlines<RleColumns>(from, p, lengths, nullptr, nullptr, stream);
}

cudaError_t launch_write_outlines(const BitShapes& from, const PixelOutlinesParams& p, const int64_t* offsets,
                                  AlignedSegment<float>* segments, cudaStream_t stream) {
  return launch_outlines<BitRows>(from, p, nullptr, offsets, segments, stream);
}

cudaError_t launch_write_outlines(const RleShapes& from, const PixelOutlinesParams& p, const int64_t* offsets,
                                  AlignedSegment<float>* segments, cudaStream_t stream) {
  return launch_outlines<RleColumns>(from, p, nullptr, offsets, segments, stream);
}

}  // namespace polarmask::outlines
