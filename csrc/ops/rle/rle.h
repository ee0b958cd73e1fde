// COCO's compressed RLE string of one instance. Counts are written as differences to the count before the last, from
// the fourth on, in groups of five bits: the lowest first, bit 5 set when more follow, the top bit of the last one the
// sign.
//
// No torch here: the CPU loops, the CUDA kernels and the C++ tests share this file.
#pragma once

#include "common/host_device.h"
#include "common/rows.h"
#include "ops/rle/runs.h"

namespace polarmask::rle {

constexpr int64_t kMaxCharsPerCount = 7;  // a difference of two counts below 2³¹: 33 bits with the sign
constexpr uint8_t kFirstChar = 48;

PM_HD int64_t predecessor(const int32_t* counts, int64_t k) { return k > 2 ? counts[k - 2] : 0; }

// Calls put(character) for count k of counts.
template <class Put>
PM_HD void encode_count(const int32_t* counts, int64_t k, Put&& put) {
  int64_t rest = counts[k] - predecessor(counts, k);
  for (bool more = true; more;) {
    const int64_t bits = rest & 31;
    rest >>= 5;
    more = rest != (bits & 16 ? -1 : 0);
    put(static_cast<uint8_t>(kFirstChar + bits + (more ? 32 : 0)));
  }
}

// Writes the counts of a string of `length` characters, at most as many, and returns their number, or −1 when the
// string is malformed: another character, a count below 0 or above `area`, an end in the middle of a count.
PM_HD int64_t decode_counts(const uint8_t* string, int64_t length, int64_t area, int32_t* counts) {
  int64_t num_counts = 0, value = 0, chars = 0;
  for (int64_t p = 0; p < length; ++p) {
    const int64_t code = static_cast<int64_t>(string[p]) - kFirstChar;
    if (code < 0 || code > 63 || chars == kMaxCharsPerCount) return -1;
    value += (code & 31) << (5 * chars++);
    if (code & 32) continue;
    if (code & 16) value -= int64_t{1} << (5 * chars);
    value += predecessor(counts, num_counts);
    if (value < 0 || value > area) return -1;
    counts[num_counts++] = static_cast<int32_t>(value);
    value = chars = 0;
  }
  return chars == 0 ? num_counts : -1;
}

// The same for an image; 0 when the counts do not sum to it, too.
PM_HD int64_t decode_string(const uint8_t* string, int64_t length, int64_t area, int32_t* counts) {
  const int64_t num_counts = decode_counts(string, length, area, counts);
  return num_counts > 0 && fits(counts, num_counts, area) ? num_counts : 0;
}

// The box around no pixel of an image.
PM_HD PixelBox no_pixels(int64_t height, int64_t width) { return {{height, 0}, {width, 0}}; }

PM_HD Interval join(const Interval& a, const Interval& b) { return {min_of(a.begin, b.begin), max_of(a.end, b.end)}; }

PM_HD PixelBox join(const PixelBox& a, const PixelBox& b) { return {join(a.rows, b.rows), join(a.columns, b.columns)}; }

// The box around the pixels begin, …, end - 1, counted column by column.
PM_HD PixelBox box_around_run(int64_t begin, int64_t end, int64_t height) {
  const int64_t first = begin / height, last = (end - 1) / height;  // columns
  const Interval columns{first, last + 1};
  if (first != last) return {{0, height}, columns};
  return {{begin - first * height, end - last * height}, columns};
}

// Writes x0, y0, x1, y1 in pixels; zeros where there is no pixel.
PM_HD void write_box(const PixelBox& pixels, float* box) {
  const bool empty = pixels.columns.end == 0;
  box[0] = static_cast<float>(empty ? 0 : pixels.columns.begin),
  box[1] = static_cast<float>(empty ? 0 : pixels.rows.begin);
  box[2] = static_cast<float>(pixels.columns.end), box[3] = static_cast<float>(pixels.rows.end);
}

// ---- What the kernels are handed ----

// An RLE column by column, those of an image without pixels taken as one: it has a count all the same.
PM_HD int64_t runs_columns(int64_t height, int64_t width) { return height > 0 ? max_of<int64_t>(width, 1) : 1; }

// Column c of image n has the counts begins[n · columns + c] … The last one has that of the rest of the image, too.
struct RunsOut {
  int64_t size, columns;  // N, runs_columns(H, W)
  int64_t height, width;  // pixels
  const int64_t* begins;  // [N · columns + 1]
  int64_t total;          // T
  int32_t* counts;        // [T]
  int64_t* offsets;       // [N + 1]
};

struct MaskRunsParams {
  const uint8_t* masks;  // [N, H, W] any byte but 0 is inside
  int64_t count;         // N
  int64_t height, width;
};

// Runs of ones of images [H, W], and where they end.
struct RlePixelsParams {
  Ragged<int32_t> runs;   // [N] rows of counts
  int64_t height, width;  // pixels
  int64_t* ends;          // [T + 1] Σ of the counts before each
  int64_t* scratch;       // [kScanScratch]
};

struct StringsParams {
  Ragged<uint8_t> strings;  // [N] rows of characters
  int64_t area;             // H · W
  int32_t* decoded;         // [T] row n from where its string begins
};

}  // namespace polarmask::rle
