// Registers polarmask::cast_rays, distances from points to outlines, and polarmask::encode_targets, the training
// targets of a batch. Which points are positive is decided in polar_target.h, where rays meet outlines in rays.h.
#include "ops/polar_target/polar_target.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "common/centerness.h"
#include "common/host/check.h"
#include "common/host/device.h"
#include "common/host/torch.h"
#include "common/polygon.h"
#include "ops/polar_target/cpu/caster.h"

namespace polarmask::polar_target {

#ifdef POLARMASK_WITH_CUDA
template <class T>
cudaError_t launch_cast_rays(const CastRaysParams<T>&, cudaStream_t);
cudaError_t launch_encode_targets(const EncodeTargetsParams&, cudaStream_t);
#endif

namespace {

constexpr int64_t kRowsPerTask = 16;  // outlines of 30 to 300 segments: 10 to 100 µs, well above the cost of a task

Method checked_method(const char* op, int64_t num_rays, const std::string& method, double min_distance) {
  check_num_rays(op, num_rays);
  check(min_distance >= 0, op, ": expected min_distance >= 0, got ", min_distance);
  if (method == "last") return Method::kLast;
  if (method == "first") return Method::kFirst;
  check(method == "binned", op, ": expected method to be \"last\", \"first\" or \"binned\", got \"", method, "\"");
  check(kBins % num_rays == 0 && num_rays % 4 == 0 && num_rays <= kMaxBinnedRays, op,
        ": expected num_rays for \"binned\" to be a divisor of 360, divisible by 4, at most ", kMaxBinnedRays, ", got ",
        num_rays);
  return Method::kBinned;
}

// Two contiguous tensors.
template <class T>
Ragged<Segment<T>> segments_of(const Tensor& segments, const Tensor& offsets) {
  return {reinterpret_cast<const Segment<T>*>(segments.const_data_ptr<T>()), offsets.const_data_ptr<int64_t>(),
          offsets.size(0) - 1, segments.size(0)};
}

template <class T>
void cast_rays_cpu(const CastRaysParams<T>& p) {
  parallel_for(0, p.rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    Caster<T> caster(p.num_rays, p.method, p.min_distance);
    with_vectors([&](auto bytes) {
      for (int64_t row = begin; row < end; ++row) {
        caster.set_outline(p.outlines.row(p.instance[row]), p.outlines.length(p.instance[row]));
        caster.template cast<bytes>({p.origins[2 * row], p.origins[2 * row + 1]}, p.distances + row * p.num_rays);
      }
    });
  });
}

// -> distances (P, R)
Tensor cast_rays(const Tensor& origins_in, const Tensor& segments_in, const Tensor& offsets_in,
                 const Tensor& instance_in, int64_t num_rays, const std::string& method_in, double min_distance) {
  const char* op = "cast_rays";
  check_dim(op, "origins", origins_in, 2, "(P, 2)");
  check_size(op, "origins", origins_in, 1, 2, "(P, 2)");
  const Tensor segments = as_contiguous(segments_in), offsets = as_contiguous(offsets_in);
  check_outlines(op, segments, offsets);
  check_dim(op, "instance", instance_in, 1, "(P,)");
  check_size(op, "instance", instance_in, 0, origins_in.size(0), "(P,)");
  check_dtype(op, "origins", origins_in, kGeometry);
  check_same_dtype(op, "outlines.segments", segments, "origins", origins_in);
  check_dtype(op, "instance", instance_in, kInt64);
  check_same_device(op, "outlines.segments", segments, "origins", origins_in);
  check_same_device(op, "instance", instance_in, "origins", origins_in);
  const Method method = checked_method(op, num_rays, method_in, min_distance);
  const Tensor origins = as_contiguous(origins_in), instance = as_contiguous(instance_in);
  const int64_t rows = origins.size(0), instances = offsets.size(0) - 1;
  if (const auto values = values_to_check(instance)) {
    const int64_t* const which = values->const_data_ptr<int64_t>();
    for (int64_t row = 0; row < rows; ++row)
      check_index(0 <= which[row] && which[row] < instances, op, ": expected instance from 0 to ", instances - 1,
                  ", got ", which[row], " at index ", row);
  }
  Tensor distances = allocate(origins, {rows, num_rays});
  dispatch_float(origins.scalar_type(), [&]<class T>() {
    const CastRaysParams<T> params{
        .origins = origins.const_data_ptr<T>(),
        .outlines = segments_of<T>(segments, offsets),
        .instance = instance.const_data_ptr<int64_t>(),
        .rows = rows,
        .num_rays = static_cast<int32_t>(num_rays),
        .method = method,
        .min_distance = static_cast<T>(min_distance),
        .distances = distances.mutable_data_ptr<T>(),
    };
    run_on(op, origins, [&] { cast_rays_cpu(params); }, [&](auto stream) { return launch_cast_rays(params, stream); });
  });
  return distances;
}

struct Positive {
  int64_t point;  // of the B · L points
  int64_t instance;
  Vec2<float> at;
};

template <class Visit>
void for_points(const Level& level, const Box<float>& box, Visit&& visit) {
  const PointRange range(level, box);
  for (int64_t row = range.rows.begin; row < range.rows.end; ++row)
    for (int64_t column = range.columns.begin; column < range.columns.end; ++column)
      visit(level.first_point + row * level.width + column, point_of(level, row, column));
}

// The points of one image that are assigned to an instance: to the smallest of those that want it, to the first of
// equal ones. `winner` holds kBackground, and gets the instances. The smallest instance takes its points first, so that
// each point is taken once, whatever the order of the areas.
std::vector<Positive> assign(const EncodeTargetsParams& p, Interval of_image, int64_t* winner) {
  const Instances& instances = p.instances;
  std::vector<int64_t> rising;
  for (int64_t m = of_image.begin; m < of_image.end; ++m)
    if (instances.may_be_positive(m)) rising.push_back(m);
  std::stable_sort(rising.begin(), rising.end(),
                   [&](int64_t a, int64_t b) { return instances.area(a) < instances.area(b); });
  std::vector<Positive> positives;
  for (const int64_t m : rising) {
    const Box<float>& box = instances.boxes[m];
    for (const Level& level : p.levels) {
      const Box<float> inner = inner_box(box, instances.centers[m], p.center_radius, level);
      for_points(level, inner, [&](int64_t point, const Vec2<float>& at) {
        if (winner[point] >= 0 || !is_inside(inner, at) || !is_assigned_on(level, box_distances(box, at))) return;
        winner[point] = m;
        positives.push_back({point, m, at});
      });
    }
  }
  return positives;
}

// Background inside an ignored instance: inside its outline, or inside its box where it has no segments.
void mark_ignored(const Instances& instances, int64_t m, const Levels& levels, int64_t* winner) {
  const auto mark = [&](int64_t point) {
    if (winner[point] == kBackground) winner[point] = kIgnored;
  };
  if (instances.outlines.length(m) == 0) {
    const Box<float>& box = instances.boxes[m];
    if (!is_finite(box)) return;
    for (const Level& level : levels)
      for_points(level, box, [&](int64_t point, const Vec2<float>& at) {
        if (is_inside(box, at)) mark(point);
      });
    return;
  }
  std::vector<Edge> edges;
  Box<float> bounds = empty_box<float>();
  const Segment<float>* const segments = instances.outlines.row(m);
  for (const Segment<float>* s = segments; s != segments + instances.outlines.length(m); ++s) {
    if (!is_finite(*s)) return;  // without a part the rest is no outline
    bounds = join(bounds, box_around(s->from, s->to));
    edges.push_back(make_edge(s->from.x, s->from.y, s->to.x, s->to.y));
  }
  std::vector<double> crossings;  // of a column of points with the outline
  for (const Level& level : levels) {
    const PointRange range(level, bounds);
    for (int64_t column = range.columns.begin; column < range.columns.end; ++column) {
      crossings.clear();
      const double x = point_of(level, 0, column).x;
      for (const Edge& edge : edges)
        if (owns(edge, x)) crossings.push_back(crossing(edge, x));
      for (int64_t row = range.rows.begin; row < range.rows.end; ++row) {
        const double y = point_of(level, row, column).y;
        if (std::count_if(crossings.begin(), crossings.end(), [&](double c) { return c <= y; }) % 2)
          mark(level.first_point + row * level.width + column);
      }
    }
  }
}

template <int bytes>
void write_positive(const Positive& positive, const EncodeTargetsParams& p, Caster<float>& caster) {
  const auto [point, m, at] = positive;
  p.targets.labels[point] = p.instances.labels[m];
  p.targets.boxes[point] = box_distances(p.instances.boxes[m], at);
  float* const row = p.targets.rays + point * p.num_rays;
  caster.set_outline(p.instances.outlines.row(m), p.instances.outlines.length(m));
  caster.cast<bytes>({at.x, at.y}, row);
  Extent<float> extent = no_rays<float>();
  for (int32_t k = 0; k < p.num_rays; ++k) extent = add_ray(extent, row[k]);
  p.targets.centerness[point] = centerness_of(extent);
}

void encode_targets_cpu(const EncodeTargetsParams& p) {
  std::fill_n(p.targets.boxes, p.images * p.points, BoxDistances{});
  std::fill_n(p.targets.rays, p.images * p.points * p.num_rays, 0.0f);
  std::fill_n(p.targets.centerness, p.images * p.points, 0.0f);
  std::vector<std::vector<Positive>> of_images(p.images);
  parallel_for(0, p.images, 1, [&](int64_t begin, int64_t end) {
    for (int64_t image = begin; image < end; ++image) {
      const Interval mine{p.image_offsets[image], p.image_offsets[image + 1]};
      int64_t* const winner = p.targets.instance + image * p.points;
      std::fill_n(winner, p.points, kBackground);
      of_images[image] = assign(p, mine, winner);
      for (int64_t m = mine.begin; m < mine.end; ++m)
        if (p.instances.is_ignored(m)) mark_ignored(p.instances, m, p.levels, winner);
      std::copy_n(winner, p.points, p.targets.labels + image * p.points);
      for (Positive& positive : of_images[image]) positive.point += image * p.points;
    }
  });
  std::vector<Positive> positives;
  for (const auto& of_image : of_images) positives.insert(positives.end(), of_image.begin(), of_image.end());
  parallel_for(0, static_cast<int64_t>(positives.size()), kRowsPerTask, [&](int64_t begin, int64_t end) {
    Caster<float> caster(p.num_rays, p.method, p.min_distance);
    with_vectors([&](auto bytes) {
      for (int64_t k = begin; k < end; ++k) write_positive<bytes>(positives[k], p, caster);
    });
  });
}

Levels levels_of(const char* op, const std::vector<int64_t>& shapes, const std::vector<int64_t>& strides,
                 const std::vector<double>& ranges) {
  check(shapes.size() == 2 * strides.size() && ranges.size() == 2 * strides.size(), op,
        ": expected level_shapes, strides and regress_ranges of one length, got ", shapes.size() / 2, ", ",
        strides.size(), " and ", ranges.size() / 2);
  check(strides.size() <= kMaxLevels, op, ": expected at most ", kMaxLevels, " levels, got ", strides.size());
  Levels levels{};
  int64_t points = 0;
  for (size_t k = 0; k < strides.size(); ++k) {
    const int64_t height = shapes[2 * k], width = shapes[2 * k + 1];
    check(height >= 0 && width >= 0 && (width == 0 || height <= INT32_MAX / width), op,
          ": expected level_shapes not negative, with fewer than 2**31 points, got (", height, ", ", width, ")");
    check(strides[k] > 0, op, ": expected strides above 0, got ", strides[k]);
    check(ranges[2 * k] <= ranges[2 * k + 1], op, ": expected regress_ranges from low to high, got (", ranges[2 * k],
          ", ", ranges[2 * k + 1], ")");
    if (height == 0 || width == 0) continue;  // its other side may be endless
    levels.level[levels.count++] = {.height = height,
                                    .width = width,
                                    .stride = strides[k],
                                    .first_point = points,
                                    .low = static_cast<float>(ranges[2 * k]),
                                    .high = static_cast<float>(ranges[2 * k + 1])};
    points += height * width;
  }
  return levels;
}

// -> instance (B, L), labels (B, L), boxes (B, L, 4), rays (B, L, R), centerness (B, L)
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> encode_targets(
    const std::vector<int64_t>& level_shapes, const std::vector<int64_t>& strides,
    const std::vector<double>& regress_ranges, const Tensor& boxes_in, const Tensor& labels_in,
    const Tensor& segments_in, const Tensor& offsets_in, const Tensor& image_offsets_in, const Tensor& centers_in,
    const std::optional<Tensor>& areas_in, const std::optional<Tensor>& ignore_in, int64_t num_rays,
    double center_radius, const std::string& method_in, double min_distance) {
  const char* op = "encode_targets";
  const Tensor segments = as_contiguous(segments_in), offsets = as_contiguous(offsets_in);
  const Tensor image_offsets = as_contiguous(image_offsets_in);
  const Levels levels = levels_of(op, level_shapes, strides, regress_ranges);
  check_dim(op, "boxes", boxes_in, 2, "(M, 4)");
  check_size(op, "boxes", boxes_in, 1, 4, "(M, 4)");
  check_dtype(op, "boxes", boxes_in, kFloat32);
  check_outlines(op, segments, offsets);
  check_dtype(op, "outlines.segments", segments, kFloat32);
  check_same_device(op, "outlines.segments", segments, "boxes", boxes_in);
  const int64_t count = boxes_in.size(0);
  check(offsets.size(0) == count + 1, op, ": expected as many outlines as boxes, ", count, ", got ",
        offsets.size(0) - 1);
  check_offsets(op, "image_offsets", image_offsets, count);
  check_same_device(op, "image_offsets", image_offsets, "boxes", boxes_in);
  check_dim(op, "centers", centers_in, 2, "(M, 2)");
  check_size(op, "centers", centers_in, 0, count, "(M, 2)");
  check_size(op, "centers", centers_in, 1, 2, "(M, 2)");
  check_dtype(op, "centers", centers_in, kFloat32);
  check_same_device(op, "centers", centers_in, "boxes", boxes_in);
  const auto check_column = [&](const char* name, const Tensor& tensor, const std::array<ScalarType, 1>& dtype) {
    check_dim(op, name, tensor, 1, "(M,)");
    check_size(op, name, tensor, 0, count, "(M,)");
    check_dtype(op, name, tensor, dtype);
    check_same_device(op, name, tensor, "boxes", boxes_in);
  };
  check_column("labels", labels_in, kInt64);
  if (areas_in) check_column("areas", *areas_in, kFloat32);
  if (ignore_in) check_column("ignore", *ignore_in, kBool);
  const Method method = checked_method(op, num_rays, method_in, min_distance);
  check(center_radius > 0, op, ": expected center_radius > 0, got ", center_radius);
  check(count <= UINT32_MAX, op, ": expected fewer than 2**32 instances, got ",
        count);  // keys of the kernels hold them

  const Tensor boxes = as_contiguous(boxes_in), labels = as_contiguous(labels_in), centers = as_contiguous(centers_in);
  const std::optional<Tensor> areas = as_contiguous(areas_in), ignore = as_contiguous(ignore_in);
  const int64_t images = image_offsets.size(0) - 1;
  int64_t points = 0;  // L
  for (const Level& level : levels) points += level.height * level.width;
  Tensor winners = allocate(labels, {images, points});
  Tensor target_labels = allocate(labels, {images, points});
  Tensor target_boxes = allocate(boxes, {images, points, 4});
  Tensor rays = allocate(boxes, {images, points, num_rays});
  Tensor centerness = allocate(boxes, {images, points});
  const EncodeTargetsParams params{
      .instances =
          {
              .boxes = reinterpret_cast<const Box<float>*>(boxes.const_data_ptr<float>()),
              .labels = labels.const_data_ptr<int64_t>(),
              .centers = reinterpret_cast<const Vec2<float>*>(centers.const_data_ptr<float>()),
              .areas = areas ? areas->const_data_ptr<float>() : nullptr,
              .ignore = data_of<uint8_t>(ignore),
              .outlines = segments_of<float>(segments, offsets),
          },
      .image_offsets = image_offsets.const_data_ptr<int64_t>(),
      .images = images,
      .points = points,
      .levels = levels,
      .center_radius = center_radius,
      .num_rays = static_cast<int32_t>(num_rays),
      .method = method,
      .min_distance = static_cast<float>(min_distance),
      .targets =
          {
              .instance = winners.mutable_data_ptr<int64_t>(),
              .labels = target_labels.mutable_data_ptr<int64_t>(),
              .boxes = reinterpret_cast<BoxDistances*>(target_boxes.mutable_data_ptr<float>()),
              .rays = rays.mutable_data_ptr<float>(),
              .centerness = centerness.mutable_data_ptr<float>(),
          },
  };
  run_on(
      op, boxes, [&] { encode_targets_cpu(params); },
      [&](auto stream) { return launch_encode_targets(params, stream); });
  return {winners, target_labels, target_boxes, rays, centerness};
}

}  // namespace
}  // namespace polarmask::polar_target

STABLE_TORCH_LIBRARY_FRAGMENT(polarmask, m) {
  m.set_python_module("polarmask_ops.polar_target");
  m.def(
      "cast_rays(Tensor origins, Tensor segments, Tensor offsets, Tensor instance, int num_rays, str method, "
      "float min_distance) -> Tensor");
  m.def(
      "encode_targets(SymInt[] level_shapes, int[] strides, float[] regress_ranges, Tensor boxes, Tensor labels, "
      "Tensor segments, Tensor offsets, Tensor image_offsets, Tensor centers, Tensor? areas, Tensor? ignore, "
      "int num_rays, float center_radius, str method, float min_distance) "
      "-> (Tensor instance, Tensor labels, Tensor boxes, Tensor rays, Tensor centerness)");
}
STABLE_TORCH_LIBRARY_IMPL(polarmask, CPU, m) {
  m.impl("cast_rays", TORCH_BOX(&polarmask::polar_target::cast_rays));
  m.impl("encode_targets", TORCH_BOX(&polarmask::polar_target::encode_targets));
}
STABLE_TORCH_LIBRARY_IMPL(polarmask, CUDA, m) {
  m.impl("cast_rays", TORCH_BOX(&polarmask::polar_target::cast_rays));
  m.impl("encode_targets", TORCH_BOX(&polarmask::polar_target::encode_targets));
}
