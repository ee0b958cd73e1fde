// Rows of different lengths, one after the other, as the CPU loops and the kernels see them.
#pragma once

#include "common/geometry.h"

namespace polarmask {

// Row n of offsets [N + 1] into `total` elements. The values of offsets are not checked on a GPU: whatever they are,
// the range lies within the data.
PM_HD Interval row_range(const int64_t* offsets, int64_t n, int64_t total) {
  const int64_t begin = max_of<int64_t>(0, min_of(offsets[n], total));
  return {begin, max_of(begin, min_of(offsets[n + 1], total))};
}

template <class T>
struct Ragged {
  const T* data;           // [total]
  const int64_t* offsets;  // [N + 1]
  int64_t size;            // N
  int64_t total;

  PM_HD Interval range(int64_t n) const { return row_range(offsets, n, total); }
  PM_HD const T* row(int64_t n) const { return data + range(n).begin; }
  PM_HD int64_t length(int64_t n) const { return range(n).size(); }
};

}  // namespace polarmask
