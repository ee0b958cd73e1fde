// Tensors of rows of different lengths, one after the other: row n is data[offsets[n]:offsets[n + 1]].
#pragma once

#include <algorithm>
#include <numeric>
#include <tuple>
#include <type_traits>
#include <vector>

#include "check.h"
#include "rle.h"
#include "torch.h"

namespace polarmask {

constexpr int64_t kRowsPerRaggedTask = 8;  // a row is one instance: microseconds, so a task is worth handing out

template <class T>
struct Ragged {
  const T* data;
  const int64_t* offsets;  // [N + 1]
  int64_t size;            // N

  const T* row(int64_t n) const { return data + offsets[n]; }
  int64_t length(int64_t n) const { return offsets[n + 1] - offsets[n]; }
};

// The two tensors, which the caller keeps contiguous.
template <class T>
Ragged<T> ragged(const char* op, const char* name, const Tensor& data, const Tensor& offsets) {
  check_dim(op, name, data, 1, "(T,)");
  check_same_device(op, "offsets", offsets, name, data);
  check_offsets(op, "offsets", offsets, data.size(0));
  if (data.is_cuda()) no_cuda_kernel(op);
  return {data.const_data_ptr<T>(), offsets.const_data_ptr<int64_t>(), offsets.size(0) - 1};
}

// The tensors of polarmask_ops.RLE, which the caller keeps contiguous: run lengths of images of any size …
inline Ragged<int32_t> checked_runs(const char* op, const Tensor& counts, const Tensor& offsets) {
  check(counts.scalar_type() == ScalarType::Int, op, ": expected counts of dtype int32");
  const auto runs = ragged<int32_t>(op, "counts", counts, offsets);
  for (int64_t k = 0; k < counts.size(0); ++k)
    check(runs.data[k] >= 0, op, ": expected counts not to be negative, got ", runs.data[k], " at index ", k);
  return runs;
}

// … and of this one.
inline Ragged<int32_t> checked_runs(const char* op, const Tensor& counts, const Tensor& offsets, ImageSize size) {
  const auto runs = checked_runs(op, counts, offsets);
  for (int64_t n = 0; n < runs.size; ++n)
    check(fits(runs.row(n), runs.length(n), size.height * size.width), op, ": expected the counts of instance ", n,
          " to sum to ", size.height, " * ", size.width);
  return runs;
}

// Data and offsets of `size` rows. make_worker() gives each thread its own append(n, row), with its own scratch memory.
// A row has elements of type T: numbers, or arrays of them, which then are the second dimension of the data.
template <class T, class Number = T, class MakeWorker>
std::tuple<Tensor, Tensor> build_ragged(int64_t size, const Tensor& like, ScalarType dtype, MakeWorker&& make_worker,
                                        int64_t rows_per_task = kRowsPerRaggedTask) {
  const int64_t num_tasks = ceil_div(size, rows_per_task);
  std::vector<std::vector<T>> parts(num_tasks);
  const Tensor offsets_out = torch::stable::new_empty(like, {size + 1}, ScalarType::Long);
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
  const Tensor data_out = std::is_same_v<T, Number> ? torch::stable::new_empty(like, {total}, dtype)
                                                    : torch::stable::new_empty(like, {total, kWidth}, dtype);
  auto* data = reinterpret_cast<T*>(data_out.mutable_data_ptr<Number>());
  for (const auto& part : parts) data = std::copy(part.begin(), part.end(), data);
  return {data_out, offsets_out};
}

}  // namespace polarmask
