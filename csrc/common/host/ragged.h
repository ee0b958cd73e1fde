// Tensors of rows of different lengths, one after the other: row n is data[offsets[n]:offsets[n + 1]]. Checked where
// they come in, built where they go out: on the CPU row by row, on a GPU by counting, summing and writing.
#pragma once

#include <algorithm>
#include <numeric>
#include <tuple>
#include <type_traits>
#include <vector>

#include "common/host/check.h"
#include "common/host/device.h"
#include "common/host/torch.h"
#include "common/rows.h"
#include "common/scan.h"

namespace polarmask {

constexpr int64_t kRowsPerRaggedTask = 8;  // a row is one instance: microseconds, so a task is worth handing out

#ifdef POLARMASK_WITH_CUDA
cudaError_t launch_offsets(const int64_t* lengths, int64_t n, int64_t* offsets, int64_t* scratch, cudaStream_t stream);
#endif

// The two tensors, which the caller keeps contiguous.
template <class T>
Ragged<T> ragged(const char* op, const char* name, const Tensor& data, const Tensor& offsets) {
  check_dim(op, name, data, 1, "(T,)");
  if constexpr (std::is_same_v<T, int32_t>)
    check_dtype(op, name, data, kInt32);
  else
    check_dtype(op, name, data, kUint8);
  check_same_device(op, "offsets", offsets, name, data);
  check_offsets(op, "offsets", offsets, data.size(0));
  return {data.const_data_ptr<T>(), offsets.const_data_ptr<int64_t>(), offsets.size(0) - 1, data.size(0)};
}

// Data and offsets of `size` rows. make_worker() gives each thread its own append(n, row), with its own scratch memory.
// A row has elements of type T: numbers, or arrays of them, which then are the second dimension of the data.
template <class T, class Number = T, class MakeWorker>
std::tuple<Tensor, Tensor> build_ragged(int64_t size, const Tensor& like, ScalarType dtype, MakeWorker&& make_worker,
                                        int64_t rows_per_task = kRowsPerRaggedTask) {
  const int64_t num_tasks = ceil_div(size, rows_per_task);
  std::vector<std::vector<T>> parts(num_tasks);
  const Tensor offsets_out = allocate(like, {size + 1}, ScalarType::Long);
  auto* offsets = offsets_out.mutable_data_ptr<int64_t>();
  offsets[0] = 0;
  parallel_for(0, num_tasks, 1, [&](int64_t first, int64_t last) {
    auto append = make_worker();
    for (int64_t task = first; task < last; ++task) {
      auto& part = parts[task];
      for (int64_t n = task * rows_per_task; n < std::min(size, (task + 1) * rows_per_task); ++n) {
        const size_t before = part.size();
        append(n, part);
        offsets[n + 1] = static_cast<int64_t>(part.size() - before);
      }
    }
  });
  std::partial_sum(offsets, offsets + size + 1, offsets);
  constexpr int64_t kWidth = sizeof(T) / sizeof(Number);
  const int64_t total = offsets[size];
  const Tensor data_out =
      std::is_same_v<T, Number> ? allocate(like, {total}, dtype) : allocate(like, {total, kWidth}, dtype);
  auto* data = reinterpret_cast<T*>(data_out.mutable_data_ptr<Number>());
  for (const auto& part : parts) data = std::copy(part.begin(), part.end(), data);
  return {data_out, offsets_out};
}

// Offsets [rows + 1] of rows whose lengths kernels find, and where the last one ends.
struct CountedRows {
  Tensor offsets;
  int64_t total;
};

// count(lengths [rows], stream) returns a cudaError_t. Waits for the device, to learn the total.
template <class Count>
CountedRows count_by_kernels(const char* op, int64_t rows, const Tensor& like, Count&& count) {
  CountedRows counted{allocate(like, {rows + 1}, ScalarType::Long), 0};
  const Tensor scratch = allocate(like, {kScanScratch}, ScalarType::Long);
  auto* const offsets = counted.offsets.mutable_data_ptr<int64_t>();
  run_kernels(op, like, [&](auto stream) {
    auto error = count(offsets + 1, stream);
    if (error == decltype(error){})
      error = launch_offsets(offsets + 1, rows, offsets, scratch.mutable_data_ptr<int64_t>(), stream);
    return error == decltype(error){} ? read_back(counted.total, offsets + rows, stream) : error;
  });
  return counted;
}

// build_ragged by kernels: count(lengths [size], stream), then emit(data, offsets [size + 1], stream), which writes the
// rows; both return a cudaError_t. `item` is the shape of an element.
template <class Count, class Emit>
std::tuple<Tensor, Tensor> build_ragged_by_kernels(const char* op, int64_t size, const Tensor& like, ScalarType dtype,
                                                   const std::vector<int64_t>& item, Count&& count, Emit&& emit) {
  const CountedRows counted = count_by_kernels(op, size, like, count);
  std::vector<int64_t> shape{counted.total};
  shape.insert(shape.end(), item.begin(), item.end());
  const Tensor data = allocate(like, shape, dtype);
  run_kernels(op, like, [&](auto stream) { return emit(data, counted.offsets.const_data_ptr<int64_t>(), stream); });
  return {data, counted.offsets};
}

}  // namespace polarmask
