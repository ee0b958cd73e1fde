#include "polar_target.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "../../common/check.h"
#include "../../common/polygon.h"
#include "../../common/torch.h"
#include "caster.h"

namespace polarmask {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kRowsPerTask = 16;  // outlines of 30 to 300 segments: 10 to 100 µs, well above the cost of a task

CastOptions cast_options(const char* op, int64_t num_rays, const std::string& method, double min_distance) {
  check_num_rays(op, num_rays);
  check(min_distance >= 0, op, ": expected min_distance >= 0, got ", min_distance);
  if (method == "last") return {num_rays, Method::kLast, min_distance};
  if (method == "first") return {num_rays, Method::kFirst, min_distance};
  check(method == "binned", op, ": expected method to be \"last\", \"first\" or \"binned\", got \"", method, "\"");
  check(kBins % num_rays == 0 && num_rays % 4 == 0 && num_rays <= kMaxBinnedRays, op,
        ": expected num_rays for \"binned\" to be a divisor of 360, divisible by 4, at most ", kMaxBinnedRays, ", got ",
        num_rays);
  return {num_rays, Method::kBinned, min_distance};
}

// -> distances (P, R)
Tensor cast_rays(const Tensor& origins_in, const Tensor& segments_in, const Tensor& offsets_in,
                 const Tensor& instance_in, int64_t num_rays, const std::string& method, double min_distance) {
  const char* op = "cast_rays";
  check_dim(op, "origins", origins_in, 2, "(P, 2)");
  check_size(op, "origins", origins_in, 1, 2, "(P, 2)");
  const Tensor segments = torch::stable::contiguous(segments_in), offsets = torch::stable::contiguous(offsets_in);
  check_outlines(op, segments, offsets);
  check_dim(op, "instance", instance_in, 1, "(P,)");
  check_size(op, "instance", instance_in, 0, origins_in.size(0), "(P,)");
  check_same_device(op, "outlines.segments", segments, "origins", origins_in);
  check_same_device(op, "instance", instance_in, "origins", origins_in);
  const CastOptions options = cast_options(op, num_rays, method, min_distance);
  if (origins_in.is_cuda()) no_cuda_kernel(op);
  const Tensor origins = torch::stable::contiguous(origins_in), instance = torch::stable::contiguous(instance_in);
  const int64_t rows = origins.size(0), instances = offsets.size(0) - 1;
  const int64_t* const which = instance.const_data_ptr<int64_t>();
  const int64_t* const begin_of = offsets.const_data_ptr<int64_t>();
  for (int64_t row = 0; row < rows; ++row)
    check_index(0 <= which[row] && which[row] < instances, op, ": expected instance from 0 to ", instances - 1,
                ", got ", which[row], " at index ", row);
  Tensor distances = torch::stable::new_empty(origins, {rows, num_rays});
  dispatch_float(origins.scalar_type(), [&]<class T>() {
    const T* const at = origins.const_data_ptr<T>();
    T* const out = distances.mutable_data_ptr<T>();
    parallel_for(0, rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
      Caster<T> caster(options);
      with_vectors([&](auto bytes) {
        for (int64_t row = begin; row < end; ++row) {
          const int64_t first = begin_of[which[row]], count = begin_of[which[row] + 1] - first;
          caster.set_outline(segments.const_data_ptr<T>() + 4 * first, count);
          caster.template cast<bytes>({at[2 * row], at[2 * row + 1]}, out + row * num_rays);
        }
      });
    });
  });
  return distances;
}

struct Targets {
  int64_t* instance;    // [B, L] of the batch, or kBackground, kIgnored
  int64_t* labels;      // [B, L] likewise
  BoxDistances* boxes;  // [B, L] pixels
  float* rays;          // [B, L, R] pixels
  float* centerness;    // [B, L]
};

// The instances of a batch.
struct Instances {
  const Box* boxes;               // [M] pixels
  const int64_t* labels;          // [M]
  const Point* centers;           // [M] pixels
  const float* areas;             // [M] any unit; null: of the boxes
  const bool* ignore;             // [M]; null: none
  const float* segments;          // [S, 4] pixels
  const int64_t* first_segments;  // [M + 1]

  int64_t num_segments(int64_t m) const { return first_segments[m + 1] - first_segments[m]; }
  const float* segments_of(int64_t m) const { return segments + 4 * first_segments[m]; }

  float area(int64_t m) const { return areas ? areas[m] : (boxes[m].x1 - boxes[m].x0) * (boxes[m].y1 - boxes[m].y0); }

  bool is_ignored(int64_t m) const { return ignore && ignore[m]; }

  bool may_be_positive(int64_t m) const {
    return !is_ignored(m) && num_segments(m) > 0 && is_finite(area(m)) && area(m) >= 0 && is_finite(centers[m]) &&
           is_finite(boxes[m]);
  }
};

struct Positive {
  int64_t point;  // of the B · L points
  int64_t instance;
  Point at;
};

template <class Visit>
void for_points(const Level& level, const Box& box, Visit&& visit) {
  const IndexRange rows = points_between(box.y0, box.y1, level.stride, level.height);
  const IndexRange columns = points_between(box.x0, box.x1, level.stride, level.width);
  for (int64_t row = rows.begin; row < rows.end; ++row)
    for (int64_t column = columns.begin; column < columns.end; ++column)
      visit(level.first_point + row * level.width + column, point_of(level, row, column));
}

// The points of one image that learn an instance: the smallest of those that want it, the first of equal ones.
// `winner` holds kBackground, and gets the instances.
std::vector<Positive> assign(const Instances& instances, IndexRange of_image, const std::vector<Level>& levels,
                             double center_radius, int64_t* winner) {
  std::vector<Positive> claims;
  for (int64_t m = of_image.begin; m < of_image.end; ++m) {
    if (!instances.may_be_positive(m)) continue;
    const Box& box = instances.boxes[m];
    for (const Level& level : levels) {
      const double stride = static_cast<double>(level.stride);
      const auto reach =
          static_cast<float>(std::min<double>(center_radius * stride, std::numeric_limits<float>::max()));
      const Box inner = inner_box(box, instances.centers[m], reach);
      for_points(level, inner, [&](int64_t point, const Point& at) {
        if (!is_inside(inner, at) || !is_learned_on(level, box_distances(box, at))) return;
        if (winner[point] >= 0 && instances.area(winner[point]) <= instances.area(m)) return;
        winner[point] = m;
        claims.push_back({point, m, at});
      });
    }
  }
  std::erase_if(claims, [&](const Positive& claim) { return winner[claim.point] != claim.instance; });
  return claims;
}

// Background inside an ignored instance: inside its outline, or inside its box where it has no segments.
void mark_ignored(const Instances& instances, int64_t m, const std::vector<Level>& levels, int64_t* winner) {
  const auto mark = [&](int64_t point) {
    if (winner[point] == kBackground) winner[point] = kIgnored;
  };
  const int64_t count = instances.num_segments(m);
  if (count == 0) {
    const Box& box = instances.boxes[m];
    if (!is_finite(box)) return;
    for (const Level& level : levels)
      for_points(level, box, [&](int64_t point, const Point& at) {
        if (is_inside(box, at)) mark(point);
      });
    return;
  }
  std::vector<Edge> edges;
  Box bounds{kInfinity, kInfinity, -kInfinity, -kInfinity};
  for (const float* s = instances.segments_of(m); s != instances.segments_of(m) + 4 * count; s += 4) {
    if (!is_finite(Box{s[0], s[1], s[2], s[3]})) return;  // without a part the rest is no outline
    bounds = {std::min({bounds.x0, s[0], s[2]}), std::min({bounds.y0, s[1], s[3]}), std::max({bounds.x1, s[0], s[2]}),
              std::max({bounds.y1, s[1], s[3]})};
    edges.push_back(make_edge(s[0], s[1], s[2], s[3]));
  }
  std::vector<double> crossings;  // of a column of points with the outline
  for (const Level& level : levels) {
    const IndexRange rows = points_between(bounds.y0, bounds.y1, level.stride, level.height);
    const IndexRange columns = points_between(bounds.x0, bounds.x1, level.stride, level.width);
    for (int64_t column = columns.begin; column < columns.end; ++column) {
      crossings.clear();
      const double x = point_of(level, 0, column).x;
      for (const Edge& edge : edges)
        if (owns(edge, x)) crossings.push_back(crossing(edge, x));
      for (int64_t row = rows.begin; row < rows.end; ++row) {
        const double y = point_of(level, row, column).y;
        if (std::count_if(crossings.begin(), crossings.end(), [&](double c) { return c <= y; }) % 2)
          mark(level.first_point + row * level.width + column);
      }
    }
  }
}

void write_positive(const Positive& positive, const Instances& instances, Caster<float>& caster, int64_t num_rays,
                    const Targets& targets, auto bytes) {
  const auto [point, m, at] = positive;
  targets.labels[point] = instances.labels[m];
  targets.boxes[point] = box_distances(instances.boxes[m], at);
  float* const row = targets.rays + point * num_rays;
  caster.set_outline(instances.segments_of(m), instances.num_segments(m));
  caster.cast<bytes>({at.x, at.y}, row);
  const auto [shortest, longest] = std::minmax_element(row, row + num_rays);
  targets.centerness[point] = *longest > 0 && is_finite(*longest) ? std::sqrt(*shortest / *longest) : 0.0f;
}

std::vector<Level> levels_of(const char* op, const std::vector<int64_t>& shapes, const std::vector<int64_t>& strides,
                             const std::vector<double>& ranges) {
  check(shapes.size() == 2 * strides.size() && ranges.size() == 2 * strides.size(), op,
        ": expected level_shapes, strides and regress_ranges of one length, got ", shapes.size() / 2, ", ",
        strides.size(), " and ", ranges.size() / 2);
  std::vector<Level> levels;
  int64_t points = 0;
  for (size_t k = 0; k < strides.size(); ++k) {
    const int64_t height = shapes[2 * k], width = shapes[2 * k + 1];
    check(height >= 0 && width >= 0 && (width == 0 || height <= INT32_MAX / width), op,
          ": expected level_shapes not negative, with fewer than 2**31 points, got (", height, ", ", width, ")");
    check(strides[k] > 0, op, ": expected strides above 0, got ", strides[k]);
    check(ranges[2 * k] <= ranges[2 * k + 1], op, ": expected regress_ranges from low to high, got (", ranges[2 * k],
          ", ", ranges[2 * k + 1], ")");
    if (height == 0 || width == 0) continue;  // its other side may be endless
    levels.push_back({.height = height,
                      .width = width,
                      .stride = strides[k],
                      .first_point = points,
                      .low = static_cast<float>(ranges[2 * k]),
                      .high = static_cast<float>(ranges[2 * k + 1])});
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
    double center_radius, const std::string& method, double min_distance) {
  using torch::stable::contiguous, torch::stable::new_empty, torch::stable::new_zeros;
  const char* op = "encode_targets";
  const Tensor segments = contiguous(segments_in), offsets = contiguous(offsets_in);
  const Tensor image_offsets = contiguous(image_offsets_in);
  const std::vector<Level> levels = levels_of(op, level_shapes, strides, regress_ranges);
  check_dim(op, "boxes", boxes_in, 2, "(M, 4)");
  check_size(op, "boxes", boxes_in, 1, 4, "(M, 4)");
  check_outlines(op, segments, offsets);
  check_same_device(op, "outlines.segments", segments, "boxes", boxes_in);
  const int64_t count = boxes_in.size(0);
  check(offsets.size(0) == count + 1, op, ": expected as many outlines as boxes, ", count, ", got ",
        offsets.size(0) - 1);
  check_offsets(op, "image_offsets", image_offsets, count);
  check_same_device(op, "image_offsets", image_offsets, "boxes", boxes_in);
  check_dim(op, "centers", centers_in, 2, "(M, 2)");
  check_size(op, "centers", centers_in, 0, count, "(M, 2)");
  check_size(op, "centers", centers_in, 1, 2, "(M, 2)");
  check_same_device(op, "centers", centers_in, "boxes", boxes_in);
  const auto check_column = [&](const char* name, const Tensor& tensor) {
    check_dim(op, name, tensor, 1, "(M,)");
    check_size(op, name, tensor, 0, count, "(M,)");
    check_same_device(op, name, tensor, "boxes", boxes_in);
  };
  check_column("labels", labels_in);
  if (areas_in) check_column("areas", *areas_in);
  if (ignore_in) check_column("ignore", *ignore_in);
  const CastOptions options = cast_options(op, num_rays, method, min_distance);
  check(center_radius > 0, op, ": expected center_radius > 0, got ", center_radius);
  if (boxes_in.is_cuda()) no_cuda_kernel(op);

  const Tensor boxes = contiguous(boxes_in), labels = contiguous(labels_in), centers = contiguous(centers_in);
  std::optional<Tensor> areas, ignore;
  if (areas_in) areas = contiguous(*areas_in);
  if (ignore_in) ignore = contiguous(*ignore_in);
  const Instances instances{
      .boxes = reinterpret_cast<const Box*>(boxes.const_data_ptr<float>()),
      .labels = labels.const_data_ptr<int64_t>(),
      .centers = reinterpret_cast<const Point*>(centers.const_data_ptr<float>()),
      .areas = areas ? areas->const_data_ptr<float>() : nullptr,
      .ignore = ignore ? ignore->const_data_ptr<bool>() : nullptr,
      .segments = segments.const_data_ptr<float>(),
      .first_segments = offsets.const_data_ptr<int64_t>(),
  };

  const int64_t images = image_offsets.size(0) - 1;
  int64_t points = 0;  // L
  for (const Level& level : levels) points += level.height * level.width;
  Tensor winners = new_empty(labels, {images, points});
  Tensor target_labels = new_empty(labels, {images, points});
  Tensor target_boxes = new_zeros(boxes, {images, points, 4});
  Tensor rays = new_zeros(boxes, {images, points, num_rays});
  Tensor centerness = new_zeros(boxes, {images, points});
  const Targets targets{
      .instance = winners.mutable_data_ptr<int64_t>(),
      .labels = target_labels.mutable_data_ptr<int64_t>(),
      .boxes = reinterpret_cast<BoxDistances*>(target_boxes.mutable_data_ptr<float>()),
      .rays = rays.mutable_data_ptr<float>(),
      .centerness = centerness.mutable_data_ptr<float>(),
  };

  const int64_t* const first_instance = image_offsets.const_data_ptr<int64_t>();
  std::vector<std::vector<Positive>> of_images(images);
  parallel_for(0, images, 1, [&](int64_t begin, int64_t end) {
    for (int64_t image = begin; image < end; ++image) {
      const IndexRange mine{first_instance[image], first_instance[image + 1]};
      int64_t* const winner = targets.instance + image * points;
      std::fill_n(winner, points, kBackground);
      of_images[image] = assign(instances, mine, levels, center_radius, winner);
      for (int64_t m = mine.begin; m < mine.end; ++m)
        if (instances.is_ignored(m)) mark_ignored(instances, m, levels, winner);
      std::copy_n(winner, points, targets.labels + image * points);
      for (Positive& positive : of_images[image]) positive.point += image * points;
    }
  });
  std::vector<Positive> positives;
  for (const auto& of_image : of_images) positives.insert(positives.end(), of_image.begin(), of_image.end());
  parallel_for(0, static_cast<int64_t>(positives.size()), kRowsPerTask, [&](int64_t begin, int64_t end) {
    Caster<float> caster(options);
    with_vectors([&](auto bytes) {
      for (int64_t k = begin; k < end; ++k) write_positive(positives[k], instances, caster, num_rays, targets, bytes);
    });
  });
  return {winners, target_labels, target_boxes, rays, centerness};
}

}  // namespace
}  // namespace polarmask

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
  m.impl("cast_rays", TORCH_BOX(&polarmask::cast_rays));
  m.impl("encode_targets", TORCH_BOX(&polarmask::encode_targets));
}
STABLE_TORCH_LIBRARY_IMPL(polarmask, CUDA, m) {
  m.impl("cast_rays", TORCH_BOX(&polarmask::cast_rays));
  m.impl("encode_targets", TORCH_BOX(&polarmask::encode_targets));
}
