// Registers polarmask::polygon_nms, rays_nms and their batched forms. Read polygon_nms.h (the rule), greedy.h (the
// pass) and neighbours.h (the search) in this order; overlaps come from ops/polygon_iou.
#include <algorithm>
#include <array>

#include "common/host/check.h"
#include "common/host/device.h"
#include "common/host/directions.h"
#include "common/host/torch.h"
#include "ops/polygon_nms/greedy.h"

namespace polarmask::polygon_nms {

#ifdef POLARMASK_WITH_CUDA
template <class Geometry>
cudaError_t launch_nms(const NmsParams<Geometry>&, cudaStream_t);
#endif

namespace {

struct Sorted {
  Tensor scores;   // [N] falling
  Tensor indices;  // [N] where they were; equal scores in their first order
};

Sorted stable_sort(const Tensor& scores) {
  std::array<StableIValue, 4> stack{torch::stable::detail::from(scores),
                                    torch::stable::detail::from(std::optional<bool>(true)),
                                    torch::stable::detail::from(int64_t{0}), torch::stable::detail::from(true)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
  return {as_contiguous(torch::stable::detail::to<Tensor>(stack[0])),
          as_contiguous(torch::stable::detail::to<Tensor>(stack[1]))};
}

// How many are kept.
template <class Geometry>
int64_t nms_cpu(const NmsParams<Geometry>& p) {
  const std::vector<int64_t> kept = greedy_nms(p.geometry, p.in, p.rule);
  std::fill(std::copy(kept.begin(), kept.end(), p.kept), p.kept + p.rule.max_output, -1);
  return std::ssize(kept);
}

// What the scratch memory points to.
struct NmsMemory {
  Tensor shapes, boxes, dead, conflicts, step_kept, num_step_kept, num_kept;

  NmsMemory(const Tensor& like, int64_t count)
      : shapes(allocate(like, {count, int64_t{sizeof(Shape)}}, ScalarType::Byte)),
        boxes(allocate(like, {count, 4}, ScalarType::Float)),
        dead(allocate(like, {ceil_div(count, kTile)}, ScalarType::Long)),
        conflicts(allocate(like, {kStep, kStep / kTile}, ScalarType::Long)),
        step_kept(allocate(like, {kStep}, ScalarType::Long)),
        num_step_kept(allocate(like, {}, ScalarType::Long)),
        num_kept(allocate(like, {}, ScalarType::Long)) {}

  NmsScratch pointers() const {
    return {
        .shapes = mutable_data_of<Shape>(shapes),
        .boxes = mutable_data_of<Box<float>>(boxes),
        .dead = mutable_data_of<Word>(dead),
        .conflicts = mutable_data_of<Word>(conflicts),
        .step_kept = mutable_data_of<int64_t>(step_kept),
        .num_step_kept = mutable_data_of<int64_t>(num_step_kept),
        .num_kept = mutable_data_of<int64_t>(num_kept),
    };
  }
};

// The keep list of `shapes`, the argument that scores and idxs belong to. geometry.operator()<T>() gives them as
// Polygons<T> or Stars<T>.
template <class MakeGeometry>
Tensor nms(const char* op, const char* name, const Tensor& shapes, const Tensor& scores,
           const std::optional<Tensor>& idxs_in, double threshold, bool iomin, std::optional<int64_t> max_output,
           const MakeGeometry& geometry) {
  const int64_t count = shapes.size(0);
  check_dim(op, "scores", scores, 1, "(N,)");
  check_size(op, "scores", scores, 0, count, "(N,)");
  check_dtype(op, "scores", scores, kGeometry);
  check_same_device(op, "scores", scores, name, shapes);
  if (idxs_in) {
    check_dim(op, "idxs", *idxs_in, 1, "(N,)");
    check_size(op, "idxs", *idxs_in, 0, count, "(N,)");
    check_dtype(op, "idxs", *idxs_in, kInt64);
    check_same_device(op, "idxs", *idxs_in, name, shapes);
  }
  check(count <= INT32_MAX, op, ": expected fewer than 2**31 shapes, got ", count);
  check(threshold >= 0 && threshold <= 1, op, ": expected iou_threshold from 0 to 1, got ", threshold);
  check(!max_output || *max_output >= 0, op, ": expected max_output of at least 0, got ", max_output.value_or(0));

  const Sorted sorted = stable_sort(scores);
  const std::optional<Tensor> idxs = as_contiguous(idxs_in);
  const int64_t length = max_output.value_or(count);
  Tensor kept = allocate(shapes, {length}, ScalarType::Long);
  int64_t num_kept = 0;
  const NmsMemory memory(shapes, by_kernels(shapes) ? count : 0);
  dispatch_float(shapes.scalar_type(), [&]<class T>() {
    using Geometry = decltype(geometry.template operator()<T>());
    const NmsParams<Geometry> params{
        .geometry = geometry.template operator()<T>(),
        .in =
            {
                .order = sorted.indices.const_data_ptr<int64_t>(),
                .scores = {sorted.scores.const_data_ptr(), sorted.scores.scalar_type() == ScalarType::Double},
                .classes = data_of<int64_t>(idxs),
                .count = count,
            },
        .rule = {iomin ? Metric::kIomin : Metric::kIou, threshold, length},
        .kept = mutable_data_of<int64_t>(kept),
        .scratch = memory.pointers(),
    };
    run_on(
        op, shapes, [&] { num_kept = nms_cpu(params); },
        [&](auto stream) {
          const auto error = launch_nms(params, stream);
          if (max_output || error != decltype(error){}) return error;
          return read_back(num_kept, params.scratch.num_kept, stream);
        });
  });
  return max_output ? kept : torch::stable::clone(torch::stable::narrow(kept, 0, 0, num_kept));
}

Tensor nms_of_polygons(const char* op, const Tensor& polygons_in, const Tensor& scores,
                       const std::optional<Tensor>& idxs, double threshold, bool iomin,
                       std::optional<int64_t> max_output) {
  check_dim(op, "polygons", polygons_in, 3, "(N, V, 2)");
  check_size(op, "polygons", polygons_in, 2, 2, "(N, V, 2)");
  check_dtype(op, "polygons", polygons_in, kGeometry);
  const Tensor polygons = as_contiguous(polygons_in);
  const auto geometry = [&]<class T>() { return Polygons<T>{polygons.const_data_ptr<T>(), polygons.size(1)}; };
  return nms(op, "polygons", polygons, scores, idxs, threshold, iomin, max_output, geometry);
}

Tensor nms_of_rays(const char* op, const Tensor& centers_in, const Tensor& rays_in, const Tensor& scores,
                   const std::optional<Tensor>& idxs, double threshold, bool iomin, std::optional<int64_t> max_output) {
  check_dim(op, "centers", centers_in, 2, "(N, 2)");
  check_size(op, "centers", centers_in, 1, 2, "(N, 2)");
  check_dim(op, "rays", rays_in, 2, "(N, R)");
  check_size(op, "rays", rays_in, 0, centers_in.size(0), "(N, R)");
  check_num_rays(op, rays_in.size(1));
  check_dtype(op, "centers", centers_in, kGeometry);
  check_same_dtype(op, "rays", rays_in, "centers", centers_in);
  check_same_device(op, "rays", rays_in, "centers", centers_in);
  const Tensor centers = as_contiguous(centers_in), rays = as_contiguous(rays_in);
  const auto directions = ray_directions(rays.size(1));
  const auto geometry = [&]<class T>() {
    return Stars<T>{centers.const_data_ptr<T>(), rays.const_data_ptr<T>(), directions.data(), rays.size(1)};
  };
  return nms(op, "centers", centers, scores, idxs, threshold, iomin, max_output, geometry);
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
}  // namespace polarmask::polygon_nms

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

#define POLARMASK_IMPLEMENT(device)                                                         \
  STABLE_TORCH_LIBRARY_IMPL(polarmask, device, m) {                                         \
    m.impl("polygon_nms", TORCH_BOX(&polarmask::polygon_nms::polygon_nms));                 \
    m.impl("batched_polygon_nms", TORCH_BOX(&polarmask::polygon_nms::batched_polygon_nms)); \
    m.impl("rays_nms", TORCH_BOX(&polarmask::polygon_nms::rays_nms));                       \
    m.impl("batched_rays_nms", TORCH_BOX(&polarmask::polygon_nms::batched_rays_nms));       \
  }
POLARMASK_IMPLEMENT(CPU)
POLARMASK_IMPLEMENT(CUDA)
