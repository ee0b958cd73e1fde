// Run lengths of a mask, column by column, zeros first: what every op that reads RLE needs.
#pragma once

#include "common/host_device.h"

namespace polarmask::rle {

// Whether the counts are not negative and sum to the image, so that every run lies in it.
PM_HD bool fits(const int32_t* counts, int64_t num_counts, int64_t area) {
  int64_t sum = 0;
  for (int64_t k = 0; k < num_counts; ++k) {
    if (counts[k] < 0) return false;
    sum += counts[k];
  }
  return sum == area;
}

// Calls visit(begin, end) for the runs of ones of counts [num_counts], in pixels counted column by column.
template <class Visit>
PM_HD void visit_runs(const int32_t* counts, int64_t num_counts, Visit&& visit) {
  int64_t pixel = 0;
  for (int64_t k = 0; k < num_counts; ++k) {
    if (k % 2 == 1 && counts[k] > 0) visit(pixel, pixel + counts[k]);
    pixel += counts[k];
  }
}

}  // namespace polarmask::rle
