// RLE made by kernels: the lengths of columns, their sums, the counts.
#pragma once

#include <tuple>

#include "common/host/ragged.h"
#include "ops/rle/rle.h"

namespace polarmask::rle {

// count(lengths [N · columns], stream) finds how many counts each column has, emit(out, stream) writes them; both
// return a cudaError_t. Waits for the device once.
template <class Count, class Emit>
std::tuple<Tensor, Tensor> build_runs_by_kernels(const char* op, int64_t size, ImageSize image, const Tensor& like,
                                                 Count&& count, Emit&& emit) {
  const int64_t columns = runs_columns(image.height, image.width);
  const CountedRows counted = count_by_kernels(op, size * columns, like, count);
  const Tensor counts = allocate(like, {counted.total}, ScalarType::Int);
  const Tensor offsets = allocate(like, {size + 1}, ScalarType::Long);
  const RunsOut out{
      .size = size,
      .columns = columns,
      .height = image.height,
      .width = image.width,
      .begins = counted.offsets.const_data_ptr<int64_t>(),
      .total = counted.total,
      .counts = counts.mutable_data_ptr<int32_t>(),
      .offsets = offsets.mutable_data_ptr<int64_t>(),
  };
  run_kernels(op, like, [&](auto stream) { return emit(out, stream); });
  return {counts, offsets};
}

}  // namespace polarmask::rle
