// Tensors of rows of different lengths, one after the other: row n is data[offsets[n]:offsets[n + 1]].
#pragma once

#include <algorithm>
#include <numeric>
#include <tuple>
#include <vector>

#include "../../common/check.h"
#include "../../common/torch.h"

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

// Data and offsets of `size` rows. make_worker() gives each thread its own append(n, row), with its own scratch memory.
template <class T, class MakeWorker>
std::tuple<Tensor, Tensor> build_ragged(int64_t size, const Tensor& like, ScalarType dtype, MakeWorker&& make_worker) {
  const int64_t num_tasks = ceil_div(size, kRowsPerRaggedTask);
  std::vector<std::vector<T>> parts(num_tasks);
  const Tensor offsets_out = torch::stable::new_empty(like, {size + 1}, ScalarType::Long);
  auto* offsets = offsets_out.mutable_data_ptr<int64_t>();
  offsets[0] = 0;
  parallel_for(0, num_tasks, 1, [&](int64_t first, int64_t last) {
    auto append = make_worker();
    for (int64_t task = first; task < last; ++task) {
      auto& part = parts[task];
      for (int64_t n = task * kRowsPerRaggedTask; n < std::min(size, (task + 1) * kRowsPerRaggedTask); ++n) {
        const size_t before = part.size();
        append(n, part);
        offsets[n + 1] = static_cast<int64_t>(part.size() - before);
      }
    }
  });
  std::partial_sum(offsets, offsets + size + 1, offsets);
  const Tensor data_out = torch::stable::new_empty(like, {offsets[size]}, dtype);
  auto* data = data_out.mutable_data_ptr<T>();
  for (const auto& part : parts) data = std::copy(part.begin(), part.end(), data);
  return {data_out, offsets_out};
}

}  // namespace polarmask
