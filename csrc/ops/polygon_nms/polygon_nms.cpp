#include <algorithm>
#include <array>

#include "../../common/check.h"
#include "../../common/directions.h"
#include "../../common/torch.h"
#include "greedy.h"

namespace polarmask {
namespace {

struct Sorted {
  Tensor scores;   // [N] falling, NaN first
  Tensor indices;  // [N] where they were; equal scores in their first order
};

Sorted stable_sort(const Tensor& scores) {
  std::array<StableIValue, 4> stack{torch::stable::detail::from(scores),
                                    torch::stable::detail::from(std::optional<bool>(true)),
                                    torch::stable::detail::from(int64_t{0}), torch::stable::detail::from(true)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
  return {torch::stable::contiguous(torch::stable::detail::to<Tensor>(stack[0])),
          torch::stable::contiguous(torch::stable::detail::to<Tensor>(stack[1]))};
}

int64_t count_nan(const Tensor& sorted_scores) {
  return dispatch_float(sorted_scores.scalar_type(), [&]<class T>() -> int64_t {
    const T* const scores = sorted_scores.const_data_ptr<T>();
    return std::find_if(scores, scores + sorted_scores.numel(), [](T score) { return score == score; }) - scores;
  });
}

// The keep list of `shapes`, the argument that scores and idxs belong to. Calls make_geometry.operator()<T>().
template <class MakeGeometry>
Tensor nms(const char* op, const char* name, const Tensor& shapes, const Tensor& scores,
           const std::optional<Tensor>& idxs, double threshold, bool iomin, std::optional<int64_t> max_output,
           const MakeGeometry& keep_list) {
  const int64_t count = shapes.size(0);
  check_dim(op, "scores", scores, 1, "(N,)");
  check_size(op, "scores", scores, 0, count, "(N,)");
  check_same_device(op, "scores", scores, name, shapes);
  if (idxs) {
    check_dim(op, "idxs", *idxs, 1, "(N,)");
    check_size(op, "idxs", *idxs, 0, count, "(N,)");
    check_same_device(op, "idxs", *idxs, name, shapes);
  }
  check(threshold >= 0 && threshold <= 1, op, ": expected iou_threshold from 0 to 1, got ", threshold);
  check(!max_output || *max_output >= 0, op, ": expected max_output of at least 0, got ", max_output.value_or(0));
  if (shapes.is_cuda()) no_cuda_kernel(op);

  const Sorted sorted = stable_sort(scores);
  const int64_t nan = count_nan(sorted.scores);
  const Tensor classes = idxs ? torch::stable::contiguous(*idxs) : sorted.indices;
  const NmsRule rule{iomin ? Metric::kIomin : Metric::kIou, threshold, max_output.value_or(count)};
  const std::vector<int64_t> kept = keep_list(sorted.indices.const_data_ptr<int64_t>() + nan, count - nan,
                                              idxs ? classes.const_data_ptr<int64_t>() : nullptr, rule);
  Tensor result = torch::stable::new_empty(shapes, {max_output.value_or(std::ssize(kept))}, ScalarType::Long);
  int64_t* const out = result.mutable_data_ptr<int64_t>();
  std::fill(std::copy(kept.begin(), kept.end(), out), out + result.numel(), -1);
  return result;
}

Tensor nms_of_polygons(const char* op, const Tensor& polygons_in, const Tensor& scores,
                       const std::optional<Tensor>& idxs, double threshold, bool iomin,
                       std::optional<int64_t> max_output) {
  check_dim(op, "polygons", polygons_in, 3, "(N, V, 2)");
  check_size(op, "polygons", polygons_in, 2, 2, "(N, V, 2)");
  const Tensor polygons = torch::stable::contiguous(polygons_in);
  return nms(op, "polygons", polygons, scores, idxs, threshold, iomin, max_output,
             [&](const int64_t* order, int64_t count, const int64_t* classes, const NmsRule& rule) {
               return dispatch_float(polygons.scalar_type(), [&]<class T>() {
                 return greedy_nms(Polygons<T>{polygons.const_data_ptr<T>(), polygons.size(1)}, order, count, classes,
                                   rule);
               });
             });
}

Tensor nms_of_rays(const char* op, const Tensor& centers_in, const Tensor& rays_in, const Tensor& scores,
                   const std::optional<Tensor>& idxs, double threshold, bool iomin, std::optional<int64_t> max_output) {
  check_dim(op, "centers", centers_in, 2, "(N, 2)");
  check_size(op, "centers", centers_in, 1, 2, "(N, 2)");
  check_dim(op, "rays", rays_in, 2, "(N, R)");
  check_size(op, "rays", rays_in, 0, centers_in.size(0), "(N, R)");
  check_num_rays(op, rays_in.size(1));
  check_same_device(op, "rays", rays_in, "centers", centers_in);
  const Tensor centers = torch::stable::contiguous(centers_in), rays = torch::stable::contiguous(rays_in);
  return nms(op, "centers", centers, scores, idxs, threshold, iomin, max_output,
             [&](const int64_t* order, int64_t count, const int64_t* classes, const NmsRule& rule) {
               const auto directions = ray_directions(rays.size(1));
               return dispatch_float(rays.scalar_type(), [&]<class T>() {
                 return greedy_nms(
                     Stars<T>{centers.const_data_ptr<T>(), rays.const_data_ptr<T>(), directions.data(), rays.size(1)},
                     order, count, classes, rule);
               });
             });
}

Tensor polygon_nms(const Tensor& polygons, const Tensor& scores, double threshold, bool iomin,
                   std::optional<int64_t> max_output) {
  return nms_of_polygons("polygon_nms", polygons, scores, std::nullopt, threshold, iomin, max_output);
}

Tensor batched_polygon_nms(const Tensor& polygons, const Tensor& scores, const Tensor& idxs, double threshold,
                           bool iomin, std::optional<int64_t> max_output) {
  return nms_of_polygons("batched_polygon_nms", polygons, scores, idxs, threshold, iomin, max_output);
}

Tensor rays_nms(const Tensor& centers, const Tensor& rays, const Tensor& scores, double threshold, bool iomin,
                std::optional<int64_t> max_output) {
  return nms_of_rays("rays_nms", centers, rays, scores, std::nullopt, threshold, iomin, max_output);
}

Tensor batched_rays_nms(const Tensor& centers, const Tensor& rays, const Tensor& scores, const Tensor& idxs,
                        double threshold, bool iomin, std::optional<int64_t> max_output) {
  return nms_of_rays("batched_rays_nms", centers, rays, scores, idxs, threshold, iomin, max_output);
}

}  // namespace
}  // namespace polarmask

STABLE_TORCH_LIBRARY_FRAGMENT(polarmask, m) {
  m.set_python_module("polarmask_ops.polygon_nms");
  m.def("polygon_nms(Tensor polygons, Tensor scores, float iou_threshold, bool iomin, SymInt? max_output) -> Tensor");
  m.def(
      "batched_polygon_nms(Tensor polygons, Tensor scores, Tensor idxs, float iou_threshold, bool iomin, SymInt? "
      "max_output) -> Tensor");
  m.def(
      "rays_nms(Tensor centers, Tensor rays, Tensor scores, float iou_threshold, bool iomin, SymInt? max_output) -> "
      "Tensor");
  m.def(
      "batched_rays_nms(Tensor centers, Tensor rays, Tensor scores, Tensor idxs, float iou_threshold, bool iomin, "
      "SymInt? max_output) -> Tensor");
}

#define POLARMASK_IMPLEMENT(device)                                            \
  STABLE_TORCH_LIBRARY_IMPL(polarmask, device, m) {                            \
    m.impl("polygon_nms", TORCH_BOX(&polarmask::polygon_nms));                 \
    m.impl("batched_polygon_nms", TORCH_BOX(&polarmask::batched_polygon_nms)); \
    m.impl("rays_nms", TORCH_BOX(&polarmask::rays_nms));                       \
    m.impl("batched_rays_nms", TORCH_BOX(&polarmask::batched_rays_nms));       \
  }
POLARMASK_IMPLEMENT(CPU)
POLARMASK_IMPLEMENT(CUDA)
