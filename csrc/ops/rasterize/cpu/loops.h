// CPU loops of rasterize: vertices, masks, label images and RLE, for every kind of shape. Crossings are toggled per
// column and summed up along rows, which are contiguous. RLE is made by chains.h.
#pragma once

#include <algorithm>
#include <tuple>
#include <vector>

#include "common/host/check.h"
#include "common/host/ragged.h"
#include "common/host/torch.h"
#include "common/simd.h"
#include "ops/rasterize/cpu/chains.h"
#include "ops/rasterize/rasterize.h"

namespace polarmask::rasterize {

constexpr int64_t kRowsPerTask = 256;    // of rays to points: some 10 µs, well above the cost of handing out a task
constexpr int64_t kEdgesPerTask = 4096;  // to runs: some 100 µs
constexpr int64_t kColumnsPerTask = 64;  // of the label image: 256 bytes a row, so that tasks share few cache lines

// The edges of shape n that toggle columns in [first, last); none when a coordinate is not finite.
template <class Crossings, class Shapes>
void gather(const Shapes& shapes, int64_t n, int64_t first, int64_t last, std::vector<Crossings>& edges) {
  edges.clear();
  edges.reserve(num_edges(shapes, n));
  bool finite = true;
  visit_edges(
      shapes, n,
      [&]<class T>(const Vec2<T>& vertex) {
        finite = finite && is_finite(vertex.x) && is_finite(vertex.y);
        return typename Crossings::Vertex(finite ? vertex : Vec2<T>{}, first, last);
      },
      [&](const auto& from, const auto& to) {
        if (from.column != to.column) edges.emplace_back(from, to);
      });
  if (!finite) edges.clear();
}

// Pixels of the columns from `origin` on, as bytes, all zero.
struct Plane {
  uint8_t* pixels;
  int64_t origin, stride;

  uint8_t* at(int64_t row, int64_t column) const { return pixels + row * stride + column - origin; }
};

// a += b, bit by bit modulo 2; whether anything is left.
inline bool add_row(uint8_t* __restrict a, const uint8_t* __restrict b, int64_t count) {
  uint8_t any = 0;
  for (int64_t c = 0; c < count; ++c) any |= a[c] ^= b[c];
  return any != 0;
}

// Toggles the crossings in the plane and sums them up downwards, which runs along the rows although the crossings are
// per column. Then 1 is inside. Returns the pixels that the shape may cover; no row when it covers none.
inline PixelBox fill(const std::vector<CenterCrossings>& edges, Plane plane, int64_t height) {
  int64_t top = height, bottom = 0, begin = INT64_MAX, end = 0;
  for (const CenterCrossings& edge : edges) {
    begin = std::min(begin, edge.begin), end = std::max(end, edge.end);
    for (int64_t column = edge.begin; column < edge.end; ++column) {
      const int64_t row = edge.row(column, height);
      if (row == height) continue;
      top = std::min(top, row), bottom = std::max(bottom, row);
      *plane.at(row, column) ^= 1;
    }
  }
  int64_t row = top + 1;
  for (bool any = true; row < height && (any || row <= bottom); ++row)
    any = add_row(plane.at(row, begin), plane.at(row - 1, begin), end - begin);
  return {{top, std::min(row, height)}, {begin, end}};
}

template <class Shapes>
void draw_masks(const MasksParams<Shapes>& p) {
  parallel_for(0, p.shapes.size(), 1, [&](int64_t first, int64_t last) {
    std::vector<CenterCrossings> edges;
    for (int64_t n = first; n < last; ++n) {
      gather(p.shapes, n, 0, p.width, edges);
      const Plane mask{p.masks + n * p.height * p.width, 0, p.width};
      with_isa([&] { fill(edges, mask, p.height); });
    }
  });
}

// Leaves the plane zero.
inline void paint(const std::vector<CenterCrossings>& edges, Plane plane, int64_t height, int32_t* labels,
                  int64_t width, int32_t label) {
  const auto [rows, columns] = fill(edges, plane, height);
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t count = columns.size();
    uint8_t* __restrict inside = plane.at(row, columns.begin);
    int32_t* __restrict pixels = labels + row * width + columns.begin;
    for (int64_t c = 0; c < count; ++c) pixels[c] = inside[c] ? label : pixels[c];
    std::fill_n(inside, count, uint8_t{0});
  }
}

template <class Shapes>
void draw_labels(const LabelsParams<Shapes>& p) {
  parallel_for(0, p.width, kColumnsPerTask, [&](int64_t first, int64_t last) {
    const int64_t columns = last - first;
    for (int64_t row = 0; row < p.height; ++row) std::fill_n(p.labels + row * p.width + first, columns, 0);
    std::vector<CenterCrossings> edges;
    std::vector<uint8_t> pixels(p.height * columns);
    for (int64_t position = 0; position < p.count; ++position) {
      const int64_t n = p.order ? p.order[position] : position;
      gather(p.shapes, n, first, last, edges);
      with_isa([&] {
        paint(edges, {pixels.data(), first, columns}, p.height, p.labels, p.width, static_cast<int32_t>(n + 1));
      });
    }
  });
}

template <class T>
void find_vertices(const PolygonsParams<T>& p) {
  parallel_for(0, p.shapes.size(), kRowsPerTask, [&](int64_t first, int64_t last) {
    for (int64_t n = first; n < last; ++n)
      for (int64_t k = 0; k < p.shapes.num_vertices; ++k)
        p.vertices[n * p.shapes.num_vertices + k] = p.shapes.vertex(n, k);
  });
}

template <class Shapes>
int64_t total_edges(const Shapes& shapes) {
  return shapes.num_shapes * shapes.num_vertices;
}
template <class T>
int64_t total_edges(const OutlineShapes<T>& shapes) {
  return shapes.num_segments;
}

template <class Crossings, class Shapes>
std::tuple<Tensor, Tensor> make_runs(const Shapes& shapes, ImageSize size, const Tensor& like) {
  const int64_t shapes_per_task =
      std::max<int64_t>(1, kEdgesPerTask * shapes.size() / std::max<int64_t>(1, total_edges(shapes)));
  return build_ragged<int32_t>(
      shapes.size(), like, ScalarType::Int,
      [&] {
        return
            [&, edges = std::vector<Crossings>(), chains = Chains()](int64_t n, std::vector<int32_t>& counts) mutable {
              with_isa([&] {
                gather(shapes, n, 0, size.height > 0 ? size.width : 0, edges);
                chains.collect(edges, size.height);
                chains.append_to(counts, size.height, size.width);
              });
            };
      },
      shapes_per_task);
}

}  // namespace polarmask::rasterize
