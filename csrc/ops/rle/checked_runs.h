// Checks of RLE arguments, for every op that reads them.
#pragma once

#include <algorithm>

#include "common/host/ragged.h"
#include "ops/rle/runs.h"

namespace polarmask::rle {

// The tensors of polarmask_ops.RLE, which the caller keeps contiguous: run lengths of images of any size …
inline Ragged<int32_t> checked_runs(const char* op, const Tensor& counts, const Tensor& offsets) {
  const auto runs = ragged<int32_t>(op, "counts", counts, offsets);
  if (const auto values = values_to_check(counts)) {
    const int32_t* const at = values->const_data_ptr<int32_t>();
    int32_t least = 0;  // by vectors, which a search would not use
    for (int64_t k = 0; k < runs.total; ++k) least = std::min(least, at[k]);
    for (int64_t k = 0; least < 0; ++k)  // ends at the first of them
      check(at[k] >= 0, op, ": expected counts not to be negative, got ", at[k], " at index ", k);
  }
  return runs;
}

// … and of this one.
inline Ragged<int32_t> checked_runs(const char* op, const Tensor& counts, const Tensor& offsets, ImageSize size) {
  const auto runs = checked_runs(op, counts, offsets);
  const auto values = values_to_check(counts), begins = values_to_check(offsets);
  if (!values || !begins) return runs;
  const Ragged<int32_t> here{values->const_data_ptr<int32_t>(), begins->const_data_ptr<int64_t>(), runs.size,
                             runs.total};
  for (int64_t n = 0; n < here.size; ++n)
    check(fits(here.row(n), here.length(n), size.height * size.width), op, ": expected the counts of instance ", n,
          " to sum to ", size.height, " * ", size.width);
  return runs;
}

}  // namespace polarmask::rle
