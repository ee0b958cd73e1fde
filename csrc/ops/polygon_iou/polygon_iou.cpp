// Registers polarmask::polygon_areas, polygon_iou and rays_iou: areas, and the overlap of all pairs or of rows of
// pairs. shapes.h has the summaries and decisions, order_free.h and star_sweep.h have the two intersections.
#include <algorithm>

#include "common/host/check.h"
#include "common/host/device.h"
#include "common/host/directions.h"
#include "common/host/torch.h"
#include "common/simd.h"
#include "ops/polygon_iou/cpu/queries.h"
#include "ops/polygon_iou/polygon_iou.h"

namespace polarmask::polygon_iou {

#ifdef POLARMASK_WITH_CUDA
template <class T>
cudaError_t launch_areas(const AreasParams<T>&, cudaStream_t);
template <class Geometry, class T>
cudaError_t launch_iou(const IouParams<Geometry, T>&, cudaStream_t);
#endif

namespace {

constexpr int64_t kPairsPerTask = 64;  // some 100 µs where all of them overlap
constexpr int64_t kSummariesPerTask = 1024;

template <class T>
void areas_cpu(const AreasParams<T>& p) {
  parallel_for(0, p.count, kSummariesPerTask, [&](int64_t begin, int64_t end) {
    with_isa([&] {
      for (int64_t i = begin; i < end; ++i) p.areas[i] = static_cast<T>(shape_of(p.polygons, i).area);
    });
  });
}

template <class Geometry>
void summarise_all(const Geometry& geometry, int64_t count, Shape* shapes) {
  parallel_for(0, count, kSummariesPerTask, [&](int64_t begin, int64_t end) {
    with_isa([&] {
      for (int64_t i = begin; i < end; ++i) shapes[i] = shape_of(geometry, i);
    });
  });
}

template <class Geometry, class T>
void iou_cpu(const IouParams<Geometry, T>& p) {
  summarise_all(p.a, p.count_a, p.shapes_a);
  summarise_all(p.b, p.count_b, p.shapes_b);
  const int64_t pairs_per_row = p.paired ? 1 : p.count_b;
  const int64_t rows_per_task = ceil_div(kPairsPerTask, std::max<int64_t>(pairs_per_row, 1));
  parallel_for(0, p.count_a, rows_per_task, [&](int64_t begin, int64_t end) {
    Query<Geometry> query(p.a, p.b);
    with_isa([&] {
      for (int64_t i = begin; i < end; ++i) {
        query.start(i, p.shapes_a[i]);
        for (int64_t n = 0; n < pairs_per_row; ++n) {
          const int64_t j = p.paired ? i : n;
          const bool may_overlap = may_exceed(p.shapes_a[i], p.shapes_b[j], p.metric, 0);
          const double iou = may_overlap ? overlap_share(query(j, p.shapes_b[j]), p.metric) : 0;
          p.iou[i * pairs_per_row + n] = static_cast<T>(iou);
        }
      }
    });
  });
}

Tensor new_shapes(const Tensor& like, int64_t count) {
  return allocate(like, {count, int64_t{sizeof(Shape)}}, ScalarType::Byte);
}

Tensor new_iou(const Tensor& a, const Tensor& b, bool paired) {
  if (paired) return allocate(a, {a.size(0)});
  return allocate(a, {a.size(0), b.size(0)});
}

void check_polygons(const char* op, const char* name, const Tensor& polygons) {
  check_dim(op, name, polygons, 3, "(N, V, 2)");
  check_size(op, name, polygons, 2, 2, "(N, V, 2)");
  check_dtype(op, name, polygons, kGeometry);
}

void check_stars(const char* op, const char* centers_name, const Tensor& centers, const char* rays_name,
                 const Tensor& rays) {
  check_dim(op, centers_name, centers, 2, "(N, 2)");
  check_size(op, centers_name, centers, 1, 2, "(N, 2)");
  check_dim(op, rays_name, rays, 2, "(N, R)");
  check_size(op, rays_name, rays, 0, centers.size(0), "(N, R)");
  check_num_rays(op, rays.size(1));
  check_dtype(op, centers_name, centers, kGeometry);
  check_same_dtype(op, rays_name, rays, centers_name, centers);
  check_same_device(op, rays_name, rays, centers_name, centers);
}

Tensor polygon_areas(const Tensor& polygons_in) {
  check_polygons("polygon_areas", "polygons", polygons_in);
  const Tensor polygons = as_contiguous(polygons_in);
  Tensor areas = allocate(polygons, {polygons.size(0)});
  dispatch_float(polygons.scalar_type(), [&]<class T>() {
    const AreasParams<T> params{
        .polygons = {polygons.const_data_ptr<T>(), polygons.size(1)},
        .count = polygons.size(0),
        .areas = areas.mutable_data_ptr<T>(),
    };
    run_on(
        "polygon_areas", polygons, [&] { areas_cpu(params); },
        [&](auto stream) { return launch_areas(params, stream); });
  });
  return areas;
}

// The IoU of shapes; `a` and `b` have their numbers and dtype, geometry.operator()<T>() gives the two of them.
template <class MakeGeometry>
Tensor iou_of(const char* op, const Tensor& a, const Tensor& b, bool iomin, bool paired, const MakeGeometry& geometry) {
  Tensor iou = new_iou(a, b, paired);
  const Tensor shapes_a = new_shapes(a, a.size(0)), shapes_b = new_shapes(a, b.size(0));
  dispatch_float(a.scalar_type(), [&]<class T>() {
    const auto [geometry_a, geometry_b] = geometry.template operator()<T>();
    const IouParams<std::remove_const_t<decltype(geometry_a)>, T> params{
        .a = geometry_a,
        .b = geometry_b,
        .count_a = a.size(0),
        .count_b = b.size(0),
        .metric = iomin ? Metric::kIomin : Metric::kIou,
        .paired = paired,
        .iou = iou.mutable_data_ptr<T>(),
        .shapes_a = mutable_data_of<Shape>(shapes_a),
        .shapes_b = mutable_data_of<Shape>(shapes_b),
    };
    run_on(op, a, [&] { iou_cpu(params); }, [&](auto stream) { return launch_iou(params, stream); });
  });
  return iou;
}

Tensor polygon_iou(const Tensor& a_in, const Tensor& b_in, bool iomin, bool paired) {
  const char* op = "polygon_iou";
  check_polygons(op, "a", a_in);
  check_polygons(op, "b", b_in);
  check_same_dtype(op, "b", b_in, "a", a_in);
  check_same_device(op, "b", b_in, "a", a_in);
  if (paired) check_size(op, "b", b_in, 0, a_in.size(0), "(N, W, 2)");
  const Tensor a = as_contiguous(a_in), b = as_contiguous(b_in);
  return iou_of(op, a, b, iomin, paired, [&]<class T>() {
    const auto polygons = [](const Tensor& from) { return Polygons<T>{from.const_data_ptr<T>(), from.size(1)}; };
    return std::pair(polygons(a), polygons(b));
  });
}

Tensor rays_iou(const Tensor& centers_a_in, const Tensor& rays_a_in, const Tensor& centers_b_in,
                const Tensor& rays_b_in, bool iomin, bool paired) {
  const char* op = "rays_iou";
  check_stars(op, "centers_a", centers_a_in, "rays_a", rays_a_in);
  check_stars(op, "centers_b", centers_b_in, "rays_b", rays_b_in);
  check_same_dtype(op, "centers_b", centers_b_in, "centers_a", centers_a_in);
  check_same_device(op, "centers_b", centers_b_in, "centers_a", centers_a_in);
  if (paired) check_size(op, "centers_b", centers_b_in, 0, centers_a_in.size(0), "(N, 2)");
  const Tensor centers_a = as_contiguous(centers_a_in), rays_a = as_contiguous(rays_a_in);
  const Tensor centers_b = as_contiguous(centers_b_in), rays_b = as_contiguous(rays_b_in);
  const auto directions_a = ray_directions(rays_a.size(1)), directions_b = ray_directions(rays_b.size(1));
  return iou_of(op, rays_a, rays_b, iomin, paired, [&]<class T>() {
    const auto stars = [](const Tensor& centers, const Tensor& rays, const std::vector<Vec2<double>>& directions) {
      return Stars<T>{centers.const_data_ptr<T>(), rays.const_data_ptr<T>(), directions.data(), rays.size(1)};
    };
    return std::pair(stars(centers_a, rays_a, directions_a), stars(centers_b, rays_b, directions_b));
  });
}

}  // namespace
}  // namespace polarmask::polygon_iou

STABLE_TORCH_LIBRARY_FRAGMENT(polarmask, m) {
  m.set_python_module("polarmask_ops.polygon_nms");
  m.def("polygon_areas(Tensor polygons) -> Tensor");
  m.def("polygon_iou(Tensor a, Tensor b, bool iomin, bool paired) -> Tensor");
  m.def(
      "rays_iou(Tensor centers_a, Tensor rays_a, Tensor centers_b, Tensor rays_b, bool iomin, bool paired) -> Tensor");
}

#define POLARMASK_IMPLEMENT(device)                                             \
  STABLE_TORCH_LIBRARY_IMPL(polarmask, device, m) {                             \
    m.impl("polygon_areas", TORCH_BOX(&polarmask::polygon_iou::polygon_areas)); \
    m.impl("polygon_iou", TORCH_BOX(&polarmask::polygon_iou::polygon_iou));     \
    m.impl("rays_iou", TORCH_BOX(&polarmask::polygon_iou::rays_iou));           \
  }
POLARMASK_IMPLEMENT(CPU)
POLARMASK_IMPLEMENT(CUDA)
