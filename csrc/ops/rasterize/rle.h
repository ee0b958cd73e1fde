// COCO's compressed RLE string of one instance. Counts are written as differences to the count before the last, from
// the fourth on, in groups of five bits: the lowest first, bit 5 set when more follow, the top bit of the last one the
// sign.
//
// No torch here: the CPU loops, the CUDA kernels and the C++ tests share this file.
#pragma once

#include "../../common/host_device.h"

namespace polarmask {

constexpr int64_t kMaxCharsPerCount = 7;  // a difference of two counts below 2³¹: 33 bits with the sign
constexpr uint8_t kFirstChar = 48;

PM_HD int64_t predecessor(const int32_t* counts, int64_t k) { return k > 2 ? counts[k - 2] : 0; }

// Calls put(character) for the string of counts [num_counts].
template <class Put>
PM_HD void encode_counts(const int32_t* counts, int64_t num_counts, Put&& put) {
  for (int64_t k = 0; k < num_counts; ++k) {
    int64_t rest = counts[k] - predecessor(counts, k);
    for (bool more = true; more;) {
      const int64_t bits = rest & 31;
      rest >>= 5;
      more = rest != (bits & 16 ? -1 : 0);
      put(static_cast<uint8_t>(kFirstChar + bits + (more ? 32 : 0)));
    }
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

}  // namespace polarmask
