// What the host functions that make outlines have in common.
#pragma once

#include <type_traits>

#include "common/host/ragged.h"
#include "ops/outlines/outlines.h"

namespace polarmask::outlines {

using OutlinesTensors = std::tuple<Tensor, Tensor>;  // segments (S, 4), offsets (M + 1,)

constexpr int64_t kOutlinesPerTask = 16;  // of some 100 segments, a few ns each: above the cost of handing out a task

template <class T>
constexpr ScalarType kDtypeOf = std::is_same_v<T, double> ? ScalarType::Double : ScalarType::Float;

// make_worker() gives each thread its own append(m, segments), with its own scratch memory.
template <class T, class MakeWorker>
OutlinesTensors build_outlines(int64_t count, const Tensor& like, int64_t per_task, MakeWorker&& make_worker) {
  return build_ragged<AlignedSegment<T>, T>(count, like, kDtypeOf<T>, make_worker, per_task);
}

// The same by kernels: count(lengths [M], stream), write(offsets [M + 1], segments, stream).
template <class T, class Count, class Write>
OutlinesTensors build_outlines_by_kernels(const char* op, int64_t count, const Tensor& like, Count&& count_segments,
                                          Write&& write) {
  return build_ragged_by_kernels(
      op, count, like, kDtypeOf<T>, {4}, count_segments,
      [&](const Tensor& segments, const int64_t* offsets, auto stream) {
        return write(offsets, reinterpret_cast<AlignedSegment<T>*>(segments.mutable_data_ptr<T>()), stream);
      });
}

template <class T>
OutlineRows<T> rows_of(const Tensor& segments, const Tensor& offsets) {
  return {segments.const_data_ptr<T>(), offsets.const_data_ptr<int64_t>(), segments.size(0), offsets.size(0) - 1};
}

}  // namespace polarmask::outlines
