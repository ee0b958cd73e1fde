#include "rle.h"

#include <algorithm>
#include <limits>
#include <tuple>
#include <vector>

#include "../../common/check.h"
#include "../../common/ragged.h"
#include "../../common/rle.h"
#include "../../common/torch.h"
#include "runs.h"

namespace polarmask {
namespace {

constexpr int64_t kInstancesPerTask = 64;  // of a few hundred counts: some 10 µs

std::tuple<Tensor, Tensor> masks_to_rle(const Tensor& masks_in) {
  constexpr auto op = "masks_to_rle";
  check_dim(op, "masks", masks_in, 3, "(N, H, W)");
  const auto [height, width] = checked_size(op, masks_in.size(1), masks_in.size(2));
  if (masks_in.is_cuda()) no_cuda_kernel(op);
  const Tensor masks = torch::stable::contiguous(masks_in);
  const auto* pixels = masks.const_data_ptr<bool>();
  return build_ragged<int32_t>(masks.size(0), masks, ScalarType::Int, [&, height = height, width = width] {
    return [=, rows = ColumnRows()](int64_t n, std::vector<int32_t>& counts) mutable {
      rows.collect(pixels + n * height * width, height, height > 0 ? width : 0);
      rows.append_runs(height, width, counts);
    };
  });
}

Tensor rle_to_masks(const Tensor& counts_in, const Tensor& offsets_in, int64_t height, int64_t width) {
  constexpr auto op = "rle_to_masks";
  const ImageSize size = checked_size(op, height, width);
  const Tensor counts = torch::stable::contiguous(counts_in), offsets = torch::stable::contiguous(offsets_in);
  const auto runs = checked_runs(op, counts, offsets, size);
  if (counts.is_cuda()) no_cuda_kernel(op);
  const Tensor masks_out = torch::stable::new_empty(counts, {runs.size, height, width}, ScalarType::Bool);
  auto* masks = masks_out.mutable_data_ptr<bool>();
  parallel_for(0, runs.size, 1, [&](int64_t first, int64_t last) {
    for (int64_t n = first; n < last; ++n) {
      bool* mask = masks + n * height * width;
      std::fill_n(mask, height * width, false);
      visit_runs(runs.row(n), runs.length(n), [&](int64_t begin, int64_t end) {
        int64_t column = begin / height, row = begin % height;
        for (int64_t pixel = begin; pixel < end; ++pixel) {
          mask[row * width + column] = true;
          if (++row == height) ++column, row = 0;
        }
      });
    }
  });
  return masks_out;
}

Tensor rle_areas(const Tensor& counts_in, const Tensor& offsets_in) {
  const Tensor counts = torch::stable::contiguous(counts_in), offsets = torch::stable::contiguous(offsets_in);
  const auto runs = checked_runs("rle_areas", counts, offsets);
  if (counts.is_cuda()) no_cuda_kernel("rle_areas");
  const Tensor areas_out = torch::stable::new_empty(counts, {runs.size}, ScalarType::Long);
  auto* areas = areas_out.mutable_data_ptr<int64_t>();
  parallel_for(0, runs.size, kInstancesPerTask, [&](int64_t first, int64_t last) {
    for (int64_t n = first; n < last; ++n) {
      areas[n] = 0;
      visit_runs(runs.row(n), runs.length(n), [&](int64_t begin, int64_t end) { areas[n] += end - begin; });
    }
  });
  return areas_out;
}

Tensor rle_boxes(const Tensor& counts_in, const Tensor& offsets_in, int64_t height, int64_t width) {
  constexpr auto op = "rle_boxes";
  const ImageSize size = checked_size(op, height, width);
  const Tensor counts = torch::stable::contiguous(counts_in), offsets = torch::stable::contiguous(offsets_in);
  const auto runs = checked_runs(op, counts, offsets, size);
  if (counts.is_cuda()) no_cuda_kernel(op);
  const Tensor boxes_out = torch::stable::new_empty(counts, {runs.size, 4}, ScalarType::Float);
  auto* boxes = boxes_out.mutable_data_ptr<float>();
  parallel_for(0, runs.size, kInstancesPerTask, [&](int64_t first, int64_t last) {
    for (int64_t n = first; n < last; ++n) {
      int64_t left = width, top = height, right = 0, bottom = 0;
      visit_runs(runs.row(n), runs.length(n), [&](int64_t begin, int64_t end) {
        const int64_t begin_column = begin / height, end_column = (end - 1) / height;
        const bool one_column = begin_column == end_column;
        left = std::min(left, begin_column);
        right = std::max(right, end_column + 1);
        top = std::min(top, one_column ? begin % height : 0);
        bottom = std::max(bottom, one_column ? (end - 1) % height + 1 : height);
      });
      if (right == 0) left = top = 0;
      const int64_t box[4] = {left, top, right, bottom};
      std::copy(box, box + 4, boxes + 4 * n);
    }
  });
  return boxes_out;
}

std::tuple<Tensor, Tensor> rle_to_strings(const Tensor& counts_in, const Tensor& offsets_in) {
  const Tensor counts = torch::stable::contiguous(counts_in), offsets = torch::stable::contiguous(offsets_in);
  const auto runs = checked_runs("rle_to_strings", counts, offsets);
  if (counts.is_cuda()) no_cuda_kernel("rle_to_strings");
  return build_ragged<uint8_t>(runs.size, counts, ScalarType::Byte, [&] {
    return [&](int64_t n, std::vector<uint8_t>& string) {
      encode_counts(runs.row(n), runs.length(n), [&](uint8_t character) { string.push_back(character); });
    };
  });
}

std::tuple<Tensor, Tensor> rle_from_strings(const Tensor& strings_in, const Tensor& offsets_in, int64_t height,
                                            int64_t width) {
  constexpr auto op = "rle_from_strings";
  const ImageSize size = checked_size(op, height, width);
  const Tensor text = torch::stable::contiguous(strings_in), offsets = torch::stable::contiguous(offsets_in);
  const auto strings = ragged<uint8_t>(op, "strings", text, offsets);
  if (text.is_cuda()) no_cuda_kernel(op);
  std::vector<uint8_t> bad(strings.size);
  auto runs = build_ragged<int32_t>(strings.size, text, ScalarType::Int, [&] {
    return [&](int64_t n, std::vector<int32_t>& counts) {
      const size_t before = counts.size();
      counts.resize(before + strings.length(n));
      const int64_t area = size.height * size.width;
      const int64_t num_counts = decode_counts(strings.row(n), strings.length(n), area, counts.data() + before);
      bad[n] = num_counts < 0 || !fits(counts.data() + before, num_counts, area);
      counts.resize(bad[n] ? before : before + num_counts);
    };
  });
  const auto first_bad = std::find(bad.begin(), bad.end(), 1);
  check(first_bad == bad.end(), op, ": expected counts of instance ", first_bad - bad.begin(),
        " to be a COCO RLE string whose counts sum to ", height, " * ", width);
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
}  // namespace polarmask

STABLE_TORCH_LIBRARY_FRAGMENT(polarmask, m) {
  m.set_python_module("polarmask_ops.rle");
  m.def("masks_to_rle(Tensor masks) -> (Tensor, Tensor)");
  m.def("rle_to_masks(Tensor counts, Tensor offsets, SymInt height, SymInt width) -> Tensor");
  m.def("rle_areas(Tensor counts, Tensor offsets) -> Tensor");
  m.def("rle_boxes(Tensor counts, Tensor offsets, SymInt height, SymInt width) -> Tensor");
  m.def("rle_to_strings(Tensor counts, Tensor offsets) -> (Tensor, Tensor)");
  m.def("rle_from_strings(Tensor strings, Tensor offsets, SymInt height, SymInt width) -> (Tensor, Tensor)");
}
STABLE_TORCH_LIBRARY_IMPL(polarmask, CPU, m) { polarmask::implement(m); }
STABLE_TORCH_LIBRARY_IMPL(polarmask, CUDA, m) { polarmask::implement(m); }
