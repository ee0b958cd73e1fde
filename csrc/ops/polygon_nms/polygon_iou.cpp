#include <algorithm>

#include "../../common/check.h"
#include "../../common/directions.h"
#include "../../common/torch.h"
#include "geometry.h"

namespace polarmask {
namespace {

constexpr int64_t kPairsPerTask = 64;  // some 100 µs where all of them overlap
constexpr int64_t kSummariesPerTask = 1024;

template <class Geometry>
std::vector<Shape> summaries(const Geometry& geometry, int64_t count) {
  std::vector<Shape> shapes(count);
  parallel_for(0, count, kSummariesPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) shapes[i] = geometry.shape(i);
  });
  return shapes;
}

// Fills out[count_a, count_b], or out[count_a] for pairs.
template <class T, class Geometry>
void fill_iou(const Geometry& a, int64_t count_a, const Geometry& b, int64_t count_b, Metric metric, bool paired,
              T* out) {
  const std::vector<Shape> shapes_a = summaries(a, count_a), shapes_b = summaries(b, count_b);
  const int64_t pairs_per_row = paired ? 1 : count_b;
  const int64_t rows_per_task = ceil_div(kPairsPerTask, std::max<int64_t>(pairs_per_row, 1));
  parallel_for(0, count_a, rows_per_task, [&](int64_t begin, int64_t end) {
    typename Geometry::Query query(a, b);
    for (int64_t i = begin; i < end; ++i) {
      query.start(i, shapes_a[i]);
      for (int64_t n = 0; n < pairs_per_row; ++n) {
        const int64_t j = paired ? i : n;
        const bool may_overlap = may_exceed(shapes_a[i], shapes_b[j], metric, 0);
        out[i * pairs_per_row + n] = may_overlap ? static_cast<T>(overlap_share(query(j, shapes_b[j]), metric)) : T(0);
      }
    }
  });
}

Tensor new_iou(const Tensor& a, const Tensor& b, bool paired) {
  if (paired) return torch::stable::new_empty(a, {a.size(0)});
  return torch::stable::new_empty(a, {a.size(0), b.size(0)});
}

void check_polygons(const char* op, const char* name, const Tensor& polygons) {
  check_dim(op, name, polygons, 3, "(N, V, 2)");
  check_size(op, name, polygons, 2, 2, "(N, V, 2)");
}

void check_stars(const char* op, const char* centers_name, const Tensor& centers, const char* rays_name,
                 const Tensor& rays) {
  check_dim(op, centers_name, centers, 2, "(N, 2)");
  check_size(op, centers_name, centers, 1, 2, "(N, 2)");
  check_dim(op, rays_name, rays, 2, "(N, R)");
  check_size(op, rays_name, rays, 0, centers.size(0), "(N, R)");
  check_num_rays(op, rays.size(1));
  check_same_device(op, rays_name, rays, centers_name, centers);
}

Tensor polygon_areas(const Tensor& polygons_in) {
  check_polygons("polygon_areas", "polygons", polygons_in);
  if (polygons_in.is_cuda()) no_cuda_kernel("polygon_areas");
  const Tensor polygons = torch::stable::contiguous(polygons_in);
  Tensor areas = torch::stable::new_empty(polygons, {polygons.size(0)});
  dispatch_float(polygons.scalar_type(), [&]<class T>() {
    const Polygons<T> geometry{polygons.const_data_ptr<T>(), polygons.size(1)};
    T* const out = areas.mutable_data_ptr<T>();
    parallel_for(0, polygons.size(0), kSummariesPerTask, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) out[i] = static_cast<T>(geometry.shape(i).area);
    });
  });
  return areas;
}

Tensor polygon_iou(const Tensor& a_in, const Tensor& b_in, bool iomin, bool paired) {
  check_polygons("polygon_iou", "a", a_in);
  check_polygons("polygon_iou", "b", b_in);
  check_same_device("polygon_iou", "b", b_in, "a", a_in);
  if (paired) check_size("polygon_iou", "b", b_in, 0, a_in.size(0), "(N, W, 2)");
  if (a_in.is_cuda()) no_cuda_kernel("polygon_iou");
  const Tensor a = torch::stable::contiguous(a_in), b = torch::stable::contiguous(b_in);
  Tensor iou = new_iou(a, b, paired);
  dispatch_float(a.scalar_type(), [&]<class T>() {
    fill_iou(Polygons<T>{a.const_data_ptr<T>(), a.size(1)}, a.size(0), Polygons<T>{b.const_data_ptr<T>(), b.size(1)},
             b.size(0), iomin ? Metric::kIomin : Metric::kIou, paired, iou.mutable_data_ptr<T>());
  });
  return iou;
}

Tensor rays_iou(const Tensor& centers_a_in, const Tensor& rays_a_in, const Tensor& centers_b_in,
                const Tensor& rays_b_in, bool iomin, bool paired) {
  check_stars("rays_iou", "centers_a", centers_a_in, "rays_a", rays_a_in);
  check_stars("rays_iou", "centers_b", centers_b_in, "rays_b", rays_b_in);
  check_same_device("rays_iou", "centers_b", centers_b_in, "centers_a", centers_a_in);
  if (paired) check_size("rays_iou", "centers_b", centers_b_in, 0, centers_a_in.size(0), "(N, 2)");
  if (rays_a_in.is_cuda()) no_cuda_kernel("rays_iou");
  const Tensor centers_a = torch::stable::contiguous(centers_a_in), rays_a = torch::stable::contiguous(rays_a_in);
  const Tensor centers_b = torch::stable::contiguous(centers_b_in), rays_b = torch::stable::contiguous(rays_b_in);
  const auto directions_a = ray_directions(rays_a.size(1)), directions_b = ray_directions(rays_b.size(1));
  Tensor iou = new_iou(rays_a, rays_b, paired);
  dispatch_float(rays_a.scalar_type(), [&]<class T>() {
    const auto stars = [](const Tensor& centers, const Tensor& rays, const std::vector<Vec2<double>>& directions) {
      return Stars<T>{centers.const_data_ptr<T>(), rays.const_data_ptr<T>(), directions.data(), rays.size(1)};
    };
    fill_iou(stars(centers_a, rays_a, directions_a), rays_a.size(0), stars(centers_b, rays_b, directions_b),
             rays_b.size(0), iomin ? Metric::kIomin : Metric::kIou, paired, iou.mutable_data_ptr<T>());
  });
  return iou;
}

}  // namespace
}  // namespace polarmask

STABLE_TORCH_LIBRARY_FRAGMENT(polarmask, m) {
  m.set_python_module("polarmask_ops.polygon_nms");
  m.def("polygon_areas(Tensor polygons) -> Tensor");
  m.def("polygon_iou(Tensor a, Tensor b, bool iomin, bool paired) -> Tensor");
  m.def(
      "rays_iou(Tensor centers_a, Tensor rays_a, Tensor centers_b, Tensor rays_b, bool iomin, bool paired) -> Tensor");
}

#define POLARMASK_IMPLEMENT(device)                                \
  STABLE_TORCH_LIBRARY_IMPL(polarmask, device, m) {                \
    m.impl("polygon_areas", TORCH_BOX(&polarmask::polygon_areas)); \
    m.impl("polygon_iou", TORCH_BOX(&polarmask::polygon_iou));     \
    m.impl("rays_iou", TORCH_BOX(&polarmask::rays_iou));           \
  }
POLARMASK_IMPLEMENT(CPU)
POLARMASK_IMPLEMENT(CUDA)
