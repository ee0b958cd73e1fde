// Registers polarmask::masks_to_rle, rle_to_masks, rle_areas, rle_boxes, rle_to_strings and rle_from_strings.
// COCO's strings are in rle.h, runs in runs.h.
#include "ops/rle/rle.h"

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "common/host/check.h"
#include "common/host/device.h"
#include "common/host/ragged.h"
#include "common/host/torch.h"
#include "common/host/zero_masks.h"
#include "common/simd.h"
#include "ops/rle/build_runs.h"
#include "ops/rle/checked_runs.h"
#include "ops/rle/cpu/encode.h"
#include "ops/rle/cpu/runs.h"
#include "ops/rle/runs.h"

namespace polarmask::rle {

#ifdef POLARMASK_WITH_CUDA
cudaError_t launch_count_mask_runs(const MaskRunsParams&, int64_t* lengths, cudaStream_t);
cudaError_t launch_emit_mask_runs(const MaskRunsParams&, const RunsOut&, cudaStream_t);
cudaError_t launch_masks_of_runs(const RlePixelsParams&, uint8_t* masks, cudaStream_t);
cudaError_t launch_areas(const RlePixelsParams&, int64_t* areas, cudaStream_t);
cudaError_t launch_boxes(const RlePixelsParams&, float* boxes, cudaStream_t);
cudaError_t launch_count_chars(const Ragged<int32_t>& runs, int64_t* lengths, cudaStream_t);
cudaError_t launch_emit_chars(const Ragged<int32_t>& runs, const int64_t* offsets, uint8_t* strings, cudaStream_t);
cudaError_t launch_decode(const StringsParams&, int64_t* lengths, cudaStream_t);
cudaError_t launch_emit_counts(const StringsParams&, const int64_t* offsets, int32_t* counts, cudaStream_t);
#endif

namespace {

constexpr int64_t kInstancesPerTask = 64;  // of a few hundred counts: some 10 µs
constexpr int64_t kCountsPerTask = 65536;  // to strings: some 100 µs

template <class Body>
void for_instances(int64_t size, int64_t per_task, Body&& body) {
  parallel_for(0, size, per_task, [&](int64_t first, int64_t last) {
    for (int64_t n = first; n < last; ++n) body(n);
  });
}

std::tuple<Tensor, Tensor> masks_to_rle(const Tensor& masks_in) {
  constexpr auto op = "RLE.from_masks";
  check_dim(op, "masks", masks_in, 3, "(N, H, W)");
  check_dtype(op, "masks", masks_in, kMask);
  const ImageSize size = checked_size(op, masks_in.size(1), masks_in.size(2));
  const Tensor masks = as_contiguous(masks_in);
  const MaskRunsParams params{static_cast<const uint8_t*>(masks.const_data_ptr()), masks.size(0), size.height,
                              size.width};
  if (by_kernels(masks))
    return build_runs_by_kernels(
        op, params.count, size, masks,
        [&](auto* lengths, auto stream) { return launch_count_mask_runs(params, lengths, stream); },
        [&](const RunsOut& out, auto stream) { return launch_emit_mask_runs(params, out, stream); });
  return build_ragged<int32_t>(params.count, masks, ScalarType::Int, [&] {
    return [=, rows = ColumnRows()](int64_t n, std::vector<int32_t>& counts) mutable {
      const uint8_t* const mask = params.masks + n * size.height * size.width;
      with_isa([&] { rows.collect(mask, size.height, size.height > 0 ? size.width : 0); });
      rows.append_to(counts, size.height, size.width);
    };
  });
}

void draw_runs(const RlePixelsParams& p, uint8_t* masks) {
  for_instances(p.runs.size, 1, [&](int64_t n) {
    uint8_t* const mask = masks + n * p.height * p.width;
    visit_runs(p.runs.row(n), p.runs.length(n), [&](int64_t begin, int64_t end) {
      int64_t column = begin / p.height, row = begin % p.height;
      for (int64_t pixel = begin; pixel < end; ++pixel) {
        mask[row * p.width + column] = 1;
        if (++row == p.height) ++column, row = 0;
      }
    });
  });
}

void find_boxes(const RlePixelsParams& p, float* boxes) {
  for_instances(p.runs.size, kInstancesPerTask, [&](int64_t n) {
    PixelBox box = no_pixels(p.height, p.width);
    visit_runs(p.runs.row(n), p.runs.length(n),
               [&](int64_t begin, int64_t end) { box = join(box, box_around_run(begin, end, p.height)); });
    write_box(box, boxes + 4 * n);
  });
}

// Calls body(counts, params), the counts contiguous; the kernels fill the sums in the params.
template <class Body>
void with_runs(const char* op, const Tensor& counts_in, const Tensor& offsets_in, ImageSize size, Body&& body) {
  const Tensor counts = as_contiguous(counts_in), offsets = as_contiguous(offsets_in);
  const auto runs = checked_runs(op, counts, offsets, size);
  const bool sums = by_kernels(counts);
  const Tensor ends = allocate(counts, {sums ? runs.total + 1 : 0}, ScalarType::Long);
  const Tensor scratch = allocate(counts, {sums ? kScanScratch : 0}, ScalarType::Long);
  body(counts, RlePixelsParams{
                   .runs = runs,
                   .height = size.height,
                   .width = size.width,
                   .ends = ends.mutable_data_ptr<int64_t>(),
                   .scratch = scratch.mutable_data_ptr<int64_t>(),
               });
}

Tensor rle_to_masks(const Tensor& counts, const Tensor& offsets, int64_t height, int64_t width) {
  constexpr auto op = "RLE.to_masks";
  std::optional<Tensor> masks;
  with_runs(op, counts, offsets, checked_size(op, height, width), [&](const Tensor& like, const RlePixelsParams& p) {
    masks = empty_masks(like, p.runs.size, height, width);
    auto* const pixels = mutable_data_of<uint8_t>(*masks);
    if (masks->numel() == 0) return;
    run_on(
        op, like, [&] { draw_runs(p, pixels); }, [&](auto stream) { return launch_masks_of_runs(p, pixels, stream); });
  });
  return *masks;
}

void find_areas(const Ragged<int32_t>& runs, int64_t* areas) {
  for_instances(runs.size, kInstancesPerTask, [&](int64_t n) {
    areas[n] = 0;
    visit_runs(runs.row(n), runs.length(n), [&](int64_t begin, int64_t end) { areas[n] += end - begin; });
  });
}

Tensor rle_areas(const Tensor& counts, const Tensor& offsets, int64_t height, int64_t width) {
  constexpr auto op = "RLE.areas";
  std::optional<Tensor> areas;
  with_runs(op, counts, offsets, checked_size(op, height, width), [&](const Tensor& like, const RlePixelsParams& p) {
    areas = allocate(like, {p.runs.size}, ScalarType::Long);
    auto* const pixels = areas->mutable_data_ptr<int64_t>();
    run_on(op, like, [&] { find_areas(p.runs, pixels); }, [&](auto stream) { return launch_areas(p, pixels, stream); });
  });
  return *areas;
}

Tensor rle_boxes(const Tensor& counts, const Tensor& offsets, int64_t height, int64_t width) {
  constexpr auto op = "RLE.boxes";
  std::optional<Tensor> boxes;
  with_runs(op, counts, offsets, checked_size(op, height, width), [&](const Tensor& like, const RlePixelsParams& p) {
    boxes = allocate(like, {p.runs.size, 4}, ScalarType::Float);
    auto* const sides = boxes->mutable_data_ptr<float>();
    run_on(op, like, [&] { find_boxes(p, sides); }, [&](auto stream) { return launch_boxes(p, sides, stream); });
  });
  return *boxes;
}

std::tuple<Tensor, Tensor> rle_to_strings(const Tensor& counts_in, const Tensor& offsets_in, int64_t height,
                                          int64_t width) {
  constexpr auto op = "RLE.to_coco";
  const Tensor counts = as_contiguous(counts_in), offsets = as_contiguous(offsets_in);
  const auto runs = checked_runs(op, counts, offsets, checked_size(op, height, width));
  if (by_kernels(counts))
    return build_ragged_by_kernels(
        op, runs.size, counts, ScalarType::Byte, {},
        [&](auto* lengths, auto stream) { return launch_count_chars(runs, lengths, stream); },
        [&](const Tensor& strings, const auto* begins, auto stream) {
          return launch_emit_chars(runs, begins, strings.mutable_data_ptr<uint8_t>(), stream);
        });
  const int64_t instances_per_task =
      std::max<int64_t>(1, kCountsPerTask * runs.size / std::max<int64_t>(1, runs.total));
  return build_ragged<uint8_t>(
      runs.size, counts, ScalarType::Byte,
      [&] {
        return [&](int64_t n, std::vector<uint8_t>& string) {
          const size_t before = string.size();
          string.resize(before + runs.length(n) * kMaxCharsPerCount);
          uint8_t* end = nullptr;
          with_isa([&] { end = encode_counts(runs.row(n), runs.length(n), string.data() + before); });
          string.resize(end - string.data());
        };
      },
      instances_per_task);
}

[[noreturn]] void refuse_string(const char* op, int64_t n, ImageSize size) {
  fail(op, ": expected counts of instance ", n, " to be a COCO RLE string whose counts sum to ", size.height, " * ",
       size.width);
}

std::tuple<Tensor, Tensor> decode_by_kernels(const char* op, const Ragged<uint8_t>& strings, const Tensor& text,
                                             ImageSize size) {
  const Tensor decoded = allocate(text, {strings.total}, ScalarType::Int);
  const StringsParams params{strings, size.height * size.width, decoded.mutable_data_ptr<int32_t>()};
  auto runs = build_ragged_by_kernels(
      op, strings.size, text, ScalarType::Int, {},
      [&](auto* lengths, auto stream) { return launch_decode(params, lengths, stream); },
      [&](const Tensor& counts, const auto* begins, auto stream) {
        return launch_emit_counts(params, begins, counts.mutable_data_ptr<int32_t>(), stream);
      });
  if (const auto values = values_to_check(std::get<1>(runs))) {  // what is malformed has become empty
    const int64_t* const begins = values->const_data_ptr<int64_t>();
    for (int64_t n = 0; n < strings.size; ++n)
      if (begins[n] == begins[n + 1]) refuse_string(op, n, size);
  }
  return runs;
}

std::tuple<Tensor, Tensor> rle_from_strings(const Tensor& strings_in, const Tensor& offsets_in, int64_t height,
                                            int64_t width) {
  constexpr auto op = "RLE.from_coco";
  const ImageSize size = checked_size(op, height, width);
  const Tensor text = as_contiguous(strings_in), offsets = as_contiguous(offsets_in);
  const auto strings = ragged<uint8_t>(op, "strings", text, offsets);
  if (by_kernels(text)) return decode_by_kernels(op, strings, text, size);
  std::vector<uint8_t> bad(strings.size);
  auto runs = build_ragged<int32_t>(strings.size, text, ScalarType::Int, [&] {
    return [&](int64_t n, std::vector<int32_t>& counts) {
      const size_t before = counts.size();
      counts.resize(before + strings.length(n));
      const int64_t num_counts =
          decode_string(strings.row(n), strings.length(n), size.height * size.width, counts.data() + before);
      bad[n] = num_counts == 0;
      counts.resize(before + num_counts);
    };
  });
  const auto first_bad = std::find(bad.begin(), bad.end(), 1);
  if (first_bad != bad.end()) refuse_string(op, first_bad - bad.begin(), size);
  return runs;
}

template <class Library>
void implement(Library& m) {
  m.impl("masks_to_rle", TORCH_BOX(&masks_to_rle));
  m.impl("rle_to_masks", TORCH_BOX(&rle_to_masks));
  m.impl("rle_areas", TORCH_BOX(&rle_areas));
  m.impl("rle_boxes", TORCH_BOX(&rle_boxes));
  m.impl("rle_to_strings", TORCH_BOX(&rle_to_strings));
  m.impl("rle_from_strings", TORCH_BOX(&rle_from_strings));
}

}  // namespace
}  // namespace polarmask::rle

STABLE_TORCH_LIBRARY_FRAGMENT(polarmask, m) {
  m.set_python_module("polarmask_ops.rle");
  m.def("masks_to_rle(Tensor masks) -> (Tensor, Tensor)");
  m.def("rle_to_masks(Tensor counts, Tensor offsets, SymInt height, SymInt width) -> Tensor");
  m.def("rle_areas(Tensor counts, Tensor offsets, SymInt height, SymInt width) -> Tensor");
  m.def("rle_boxes(Tensor counts, Tensor offsets, SymInt height, SymInt width) -> Tensor");
  m.def("rle_to_strings(Tensor counts, Tensor offsets, SymInt height, SymInt width) -> (Tensor, Tensor)");
  m.def("rle_from_strings(Tensor strings, Tensor offsets, SymInt height, SymInt width) -> (Tensor, Tensor)");
}
STABLE_TORCH_LIBRARY_IMPL(polarmask, CPU, m) { polarmask::rle::implement(m); }
STABLE_TORCH_LIBRARY_IMPL(polarmask, CUDA, m) { polarmask::rle::implement(m); }
