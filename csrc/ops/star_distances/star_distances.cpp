// Registers polarmask::star_distances: the distances from the pixels of a label image to the ends of their objects.
// Steps and skipping are in star_distances.h; the CPU keeps a table of the steps of each ray.
#include "ops/star_distances/star_distances.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "common/host/check.h"
#include "common/host/device.h"
#include "common/host/torch.h"

namespace polarmask::star_distances {

#ifdef POLARMASK_WITH_CUDA
template <class T>
cudaError_t launch_star_distances(const StarDistancesParams<T>&, cudaStream_t);
#endif

namespace {

constexpr int64_t kCellsPerTask = 4096;  // some 100 µs
constexpr int64_t kRowsPerTask = 64;     // of one ray: some 100 µs of walking, against 10 µs for the tables

// The steps of one ray in an image with a border of one pixel. They are enough to leave it from everywhere.
struct Path {
  std::vector<int64_t> offsets;  // in pixels of the bordered image, row after row
  std::vector<Vec2<int32_t>> moves;
  std::vector<float> distances;  // pixels
};

Path path_of(Vec2<double> direction, bool exact, ImageSize size, Vec2<int64_t> start) {
  Path path;
  Step step{0, 0, 0};
  while (std::abs(step.dx) < size.width && std::abs(step.dy) < size.height) {
    const auto n = static_cast<int64_t>(path.offsets.size()) + 1;
    step = exact ? exact_step(step, direction) : stardist_step(n, direction, start);
    path.offsets.push_back(step.dy * (size.width + 2) + step.dx);
    path.moves.push_back({static_cast<int32_t>(step.dx), static_cast<int32_t>(step.dy)});
    path.distances.push_back(static_cast<float>(step.distance));
  }
  return path;
}

// Steps go to one of the 8 neighbours of a pixel: none passes over a border of one pixel.
template <class T>
std::vector<T> with_border(const T* labels, ImageSize size) {
  std::vector<T> bordered((size.height + 2) * (size.width + 2));
  for (int64_t row = 0; row < size.height; ++row)
    std::copy_n(labels + row * size.width, size.width, bordered.data() + (row + 1) * (size.width + 2) + 1);
  return bordered;
}

// How many steps of the path from a pixel stay inside its label.
template <class T>
int64_t steps_inside(const T* pixel, int64_t row, int64_t column, const Path& path, const Cells& cells) {
  const T label = *pixel;
  const int64_t* const offsets = path.offsets.data();
  const auto room_after = [&](int64_t steps) {
    const Vec2<int32_t> moved = path.moves[steps - 1];
    return cells.room(row + moved.y, column + moved.x);
  };
  for (int64_t n = 0;;) {
    for (const int64_t stop = n + kBurst; n < stop; ++n)
      if (pixel[offsets[n]] != label) return n;
    for (int64_t room = room_after(n); room > 0; room = room_after(n)) {
      n += room;
      if (pixel[offsets[n]] != label) return n;
      ++n;
    }
  }
}

template <class T>
void find_cells(const StarDistancesParams<T>& p) {
  const auto for_cells = [&](auto&& find) {
    parallel_for(0, p.cells.count(), kCellsPerTask, [&](int64_t begin, int64_t end) {
      for (int64_t cell = begin; cell < end; ++cell) find(p, cell);
    });
  };
  for_cells(find_uniform<T>);
  for_cells(find_width<T>);
  for_cells(find_reach<T>);
}

template <class T>
void star_distances_cpu(const StarDistancesParams<T>& p) {
  find_cells(p);
  const ImageSize size{p.height, p.width};
  const std::vector<T> bordered = with_border(p.labels, size);
  parallel_for(0, p.num_rays * size.height, kRowsPerTask, [&](int64_t begin, int64_t end) {
    Path paths[2][2];  // of one ray, by the parity of the row and column where it starts
    for (int64_t k = begin; k < end; ++k) {
      const int64_t ray = k / size.height, row = k % size.height;
      if (k == begin || row == 0)
        for (const int64_t y : {0, 1})
          for (const int64_t x : {0, 1}) paths[y][x] = path_of(ray_direction(ray, p.num_rays), p.exact, size, {x, y});
      const T* const pixels = bordered.data() + (row + 1) * (size.width + 2) + 1;
      for (int64_t column = 0; column < size.width; ++column) {
        const T* const pixel = pixels + column;
        float& distance = p.distances[k * size.width + column];
        distance = 0;
        if (*pixel == 0) continue;
        const Path& path = paths[row & 1][column & 1];
        distance = path.distances[steps_inside(pixel, row, column, path, p.cells)];
      }
    }
  });
}

constexpr std::array kIntegers{ScalarType::Byte, ScalarType::Char,   ScalarType::Short, ScalarType::UInt16,
                               ScalarType::Int,  ScalarType::UInt32, ScalarType::Long,  ScalarType::UInt64};

// Calls body.operator()<T>() with an integer of the same width: labels are only compared.
template <class Body>
void dispatch_width(const Tensor& tensor, Body&& body) {
  switch (tensor.element_size()) {
    case 1: return body.template operator()<uint8_t>();
    case 2: return body.template operator()<uint16_t>();
    case 4: return body.template operator()<uint32_t>();
    default: return body.template operator()<uint64_t>();
  }
}

// -> distances (R, H, W)
Tensor star_distances(const Tensor& label_image_in, int64_t num_rays, const std::string& rule) {
  const char* op = "star_distances";
  check_dim(op, "label_image", label_image_in, 2, "(H, W)");
  check_dtype(op, "label_image", label_image_in, kIntegers);
  check_num_rays(op, num_rays);
  check(rule == "stardist" || rule == "exact", op, ": expected rule to be \"stardist\" or \"exact\", got \"", rule,
        "\"");
  const ImageSize size = checked_size(op, label_image_in.size(0), label_image_in.size(1));
  const Tensor label_image = as_contiguous(label_image_in);
  Tensor distances = allocate(label_image, {num_rays, size.height, size.width}, ScalarType::Float);
  if (size.height == 0 || size.width == 0) return distances;  // the other side may be endless
  const int64_t cell_rows = size.height / kCell, cell_columns = size.width / kCell;
  const Tensor reach = allocate(label_image, {cell_rows, cell_columns}, ScalarType::Byte);
  const Tensor widths = allocate(label_image, {cell_rows, cell_columns}, ScalarType::Byte);
  dispatch_width(label_image, [&]<class T>() {
    const StarDistancesParams<T> params{
        .labels = static_cast<const T*>(label_image.const_data_ptr()),
        .height = size.height,
        .width = size.width,
        .cells = {cell_rows, cell_columns, reach.mutable_data_ptr<uint8_t>(), widths.mutable_data_ptr<uint8_t>()},
        .num_rays = num_rays,
        .exact = rule == "exact",
        .distances = distances.mutable_data_ptr<float>(),
    };
    run_on(
        op, label_image, [&] { star_distances_cpu(params); },
        [&](auto stream) { return launch_star_distances(params, stream); });
  });
  return distances;
}

}  // namespace
}  // namespace polarmask::star_distances

STABLE_TORCH_LIBRARY_FRAGMENT(polarmask, m) {
  m.set_python_module("polarmask_ops.polar_target");
  m.def("star_distances(Tensor label_image, int num_rays, str rule) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(polarmask, CPU, m) {
  m.impl("star_distances", TORCH_BOX(&polarmask::star_distances::star_distances));
}
STABLE_TORCH_LIBRARY_IMPL(polarmask, CUDA, m) {
  m.impl("star_distances", TORCH_BOX(&polarmask::star_distances::star_distances));
}
