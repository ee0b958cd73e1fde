// Registers polarmask::outlines_from_masks and outlines_from_rle: the outlines of pixel shapes, along the sides of
// their pixels or through the centres of their border pixels.
#include "ops/outlines/cpu/pixels.h"

#include <algorithm>
#include <vector>

#include "common/simd.h"
#include "ops/outlines/build.h"
#include "ops/outlines/pixel_shapes.h"
#include "ops/rle/checked_runs.h"

namespace polarmask::outlines {

#ifdef POLARMASK_WITH_CUDA
cudaError_t launch_pack(const uint8_t* pixels, int64_t num_rows, const BitShapes&, cudaStream_t);
cudaError_t launch_count_outlines(const BitShapes&, const PixelOutlinesParams&, int64_t* lengths, cudaStream_t);
cudaError_t launch_count_outlines(const RleShapes&, const PixelOutlinesParams&, int64_t* lengths, cudaStream_t);
cudaError_t launch_write_outlines(const BitShapes&, const PixelOutlinesParams&, const int64_t* offsets,
                                  AlignedSegment<float>*, cudaStream_t);
cudaError_t launch_write_outlines(const RleShapes&, const PixelOutlinesParams&, const int64_t* offsets,
                                  AlignedSegment<float>*, cudaStream_t);
#endif

namespace {

// What is made of the pixels of an instance.
struct PixelOptions {
  bool largest;  // only the largest component, its holes filled
  bool border;   // the border pixels' centres in place of the sides
};

// The lines of `shape` are columns or rows.
class PixelTracer {
 public:
  PixelTracer(bool columns, PixelOptions options) : columns_(columns), options_(options) {}

  void append(const Runs& shape, std::vector<AlignedSegment<float>>& segments) {
    const Runs& kept = options_.largest ? components_.find(shape, columns_) : shape;
    if (segments.empty()) segments.reserve(4 * kept.size());  // a run has two sides, and mostly a step at each
    const auto add = [&](auto along0, auto line0, auto along1, auto line1) {
      const auto x0 = static_cast<float>(along0), y0 = static_cast<float>(line0);
      const auto x1 = static_cast<float>(along1), y1 = static_cast<float>(line1);
      segments.push_back(columns_ ? AlignedSegment<float>{y1, x1, y0, x0} : AlignedSegment<float>{x0, y0, x1, y1});
    };
    if (options_.border)
      for (int64_t line = kept.first_line(); line < kept.end_line(); ++line)
        border_pixels(kept.line(line - 1), kept.line(line), kept.line(line + 1), [&](int32_t x) {
          const double along = x + 0.5, across = static_cast<double>(line) + 0.5;
          add(along, across, along, across);
        });
    else
      edges_.trace(kept, [&](int64_t along0, int64_t line0, int64_t along1, int64_t line1) {
        add(along0, kept.position(line0), along1, kept.position(line1));
      });
  }

 private:
  bool columns_;
  PixelOptions options_;
  LargestComponent components_;
  EdgeTracer edges_;
};

// `num_slots` and `bytes`: of the memory for shapes that are too large for a block's own.
template <class Shapes>
OutlinesTensors from_pixels_by_kernels(const char* op, const Shapes& shapes, int64_t count, int64_t num_slots,
                                       int64_t bytes, PixelOptions options, const Tensor& like) {
  const Tensor needs_slot = allocate(like, {count}, ScalarType::Int);
  const Tensor slots = allocate(like, {bytes}, ScalarType::Byte);
  const PixelOutlinesParams params{
      .count = count,
      .largest = options.largest,
      .border = options.border,
      .needs_slot = needs_slot.mutable_data_ptr<int32_t>(),
      .slots = slots.mutable_data_ptr<uint8_t>(),
      .num_slots = num_slots,
  };
  return build_outlines_by_kernels<float>(
      op, count, like,
      [&](int64_t* lengths, auto stream) { return launch_count_outlines(shapes, params, lengths, stream); },
      [&](const int64_t* offsets, AlignedSegment<float>* to, auto stream) {
        return launch_write_outlines(shapes, params, offsets, to, stream);
      });
}

OutlinesTensors from_masks_by_kernels(const char* op, const Tensor& masks, const float* boxes, ImageSize size,
                                      PixelOptions options) {
  const int64_t count = masks.size(0);
  BitShapes shapes{.bits = nullptr, .boxes = boxes, .height = size.height, .width = size.width};
  const int64_t num_rows = count * size.height;
  const Tensor bits = allocate(masks, {num_rows * shapes.words()}, ScalarType::Int);
  shapes.bits = reinterpret_cast<uint32_t*>(bits.mutable_data_ptr<int32_t>());
  const auto* pixels = static_cast<const uint8_t*>(masks.const_data_ptr());
  run_kernels(op, masks, [&](auto stream) { return launch_pack(pixels, num_rows, shapes, stream); });
  // One at least, and more as long as they take no more memory than the masks.
  const int64_t num_slots =
      std::clamp<int64_t>(num_rows * size.width / shapes.slot_bytes(), 1, std::max(count, int64_t{1}));
  return from_pixels_by_kernels(op, shapes, count, num_slots, num_slots * shapes.slot_bytes(), options, masks);
}

OutlinesTensors from_rle_by_kernels(const char* op, const Ragged<int32_t>& runs, ImageSize size, bool largest,
                                    const Tensor& counts) {
  const RleShapes shapes{.runs = runs, .height = size.height, .width = size.width};
  return from_pixels_by_kernels(op, shapes, runs.size, runs.size, shapes.slot_begin(runs.size, runs.total),
                                {largest, false}, counts);
}

// -> segments (S, 4), offsets (M + 1,)
OutlinesTensors outlines_from_masks(const Tensor& masks_in, const std::optional<Tensor>& boxes_in, bool largest,
                                    bool border) {
  const char* op = "outlines_from_masks";
  check_dim(op, "masks", masks_in, 3, "(M, H, W)");
  check_dtype(op, "masks", masks_in, kMask);
  const ImageSize size = checked_size(op, masks_in.size(1), masks_in.size(2));
  const Tensor masks = as_contiguous(masks_in);
  std::optional<Tensor> boxes;
  if (boxes_in) {
    check_dim(op, "boxes", *boxes_in, 2, "(M, 4)");
    check_size(op, "boxes", *boxes_in, 0, masks.size(0), "(M, 4)");
    check_size(op, "boxes", *boxes_in, 1, 4, "(M, 4)");
    check_same_device(op, "boxes", *boxes_in, "masks", masks);
    check_dtype(op, "boxes", *boxes_in, kFloat32);
    boxes = as_contiguous(*boxes_in);
  }
  const float* const box = boxes ? boxes->const_data_ptr<float>() : nullptr;
  if (by_kernels(masks)) return from_masks_by_kernels(op, masks, box, size, {largest, border});
  const auto* pixels = static_cast<const uint8_t*>(masks.const_data_ptr());
  return build_outlines<float>(masks.size(0), masks, 1, [&] {
    return [=, tracer = PixelTracer(false, {largest, border}), shape = Runs()](
               int64_t m, std::vector<AlignedSegment<float>>& segments) mutable {
      const PixelBox window =
          box ? pixels_touching(box + 4 * m, size.height, size.width) : whole_image(size.height, size.width);
      shape.clear();
      with_isa([&] { shape.add_bitmap(pixels + m * size.height * size.width, size.height, size.width, window); });
      tracer.append(shape, segments);
    };
  });
}

// -> segments (S, 4), offsets (M + 1,)
OutlinesTensors outlines_from_rle(const Tensor& counts_in, const Tensor& offsets_in, int64_t height_in,
                                  int64_t width_in, bool largest) {
  const char* op = "outlines_from_rle";
  const ImageSize size = checked_size(op, height_in, width_in);
  const Tensor counts = as_contiguous(counts_in), offsets = as_contiguous(offsets_in);
  const auto rle = rle::checked_runs(op, counts, offsets, size);
  if (by_kernels(counts)) return from_rle_by_kernels(op, rle, size, largest, counts);
  return build_outlines<float>(rle.size, counts, kOutlinesPerTask, [&] {
    return [=, tracer = PixelTracer(true, {largest, false}), shape = Runs()](
               int64_t m, std::vector<AlignedSegment<float>>& segments) mutable {
      shape.clear();
      rle::visit_runs(rle.row(m), rle.length(m),
                      [&](int64_t begin, int64_t end) { shape.add_pixels(begin, end, size.height); });
      tracer.append(shape, segments);
    };
  });
}

}  // namespace
}  // namespace polarmask::outlines

STABLE_TORCH_LIBRARY_FRAGMENT(polarmask, m) {
  m.set_python_module("polarmask_ops.outlines");
  m.def("outlines_from_masks(Tensor masks, Tensor? boxes, bool largest, bool border) -> (Tensor, Tensor)");
  m.def(
      "outlines_from_rle(Tensor counts, Tensor offsets, SymInt height, SymInt width, bool largest) "
      "-> (Tensor, Tensor)");
}

#define POLARMASK_IMPLEMENT(device)                                                      \
  STABLE_TORCH_LIBRARY_IMPL(polarmask, device, m) {                                      \
    m.impl("outlines_from_masks", TORCH_BOX(&polarmask::outlines::outlines_from_masks)); \
    m.impl("outlines_from_rle", TORCH_BOX(&polarmask::outlines::outlines_from_rle));     \
  }
POLARMASK_IMPLEMENT(CPU)
POLARMASK_IMPLEMENT(CUDA)
