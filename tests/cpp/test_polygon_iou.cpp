#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "check.h"
#include "common/host/directions.h"
#include "ops/polygon_iou/cpu/queries.h"

using namespace polarmask;
using namespace polarmask::polygon_iou;

namespace {

using Ring = std::vector<double>;  // x0, y0, x1, y1, …

Overlap overlap(const Ring& a, const Ring& b) {
  const Polygons<double> first{a.data(), std::ssize(a) / 2}, second{b.data(), std::ssize(b) / 2};
  Query<Polygons<double>> query(first, second);
  query.start(0, shape_of(first, 0));
  return query(0, shape_of(second, 0));
}

double iou(const Ring& a, const Ring& b) { return overlap_share(overlap(a, b), Metric::kIou); }

void order_free_breaks_every_tie() {
  const Ring square{0, 0, 2, 0, 2, 2, 0, 2}, clockwise{0, 2, 2, 2, 2, 0, 0, 0};
  CHECK(iou(square, square) == 1 && iou(square, clockwise) == 1);
  CHECK(iou(square, {2, 0, 4, 0, 4, 2, 2, 2}) == 0);              // a shared edge
  CHECK(iou(square, {2, 2, 4, 2, 4, 4, 2, 4}) == 0);              // a shared corner
  CHECK(iou(square, {0, 0, 1, 0, 1, 2, 0, 2}) == 0.5);            // three shared edges
  CHECK(iou(square, {1, 0, 2, 1, 1, 2, 0, 1}) == 0.5);            // vertices on edges
  CHECK(iou(square, {0, 0, 1, 0, 2, 0, 2, 2, 2, 2, 0, 2}) == 1);  // vertices on a straight, and repeated
}

void snapping_follows_the_scale() {
  const Ring a{0, 0, 8, 0, 8, 8, 0, 8}, b{4, 0, 12, 0, 12, 8, 4, 8};
  const double want = iou(a, b);
  CHECK(want == 1.0 / 3.0);
  for (int exponent : {-1000, -500, -30, 30, 450}) {
    Ring small = a, moved = b;
    for (double& value : small) value = std::ldexp(value, exponent);
    for (double& value : moved) value = std::ldexp(value, exponent);
    const Polygons<double> shape{small.data(), 4};
    if (shape_of(shape, 0).area > 0) CHECK(iou(small, moved) == want);
  }
}

void star_sweep_in_closed_form() {
  const auto directions = ray_directions(4);
  const std::vector<double> rays{1, 1, 1, 1}, half{0.5, 0.5, 0.5, 0.5}, triangle{1, 1, 1, 0};
  const auto area = [&](const std::vector<double>& a, const std::vector<double>& b, double x, double y) {
    const std::vector<double> origin{0, 0}, moved{x, y};
    const Stars<double> first{origin.data(), a.data(), directions.data(), 4};
    const Stars<double> second{moved.data(), b.data(), directions.data(), 4};
    Query<Stars<double>> query(first, second);
    query.start(0, shape_of(first, 0));
    return query(0, shape_of(second, 0)).inter;
  };
  CHECK(area(rays, rays, 0, 0) == 2);
  CHECK(area(rays, half, 0, 0) == 0.5 && area(half, rays, 0, 0) == 0.5);
  CHECK(area(rays, rays, 1, 0) == 0.5 && area(rays, rays, 0, 1) == 0.5);  // centres on vertices
  CHECK(area(rays, rays, 0.5, 0.5) == 1);                                 // centres on edges
  CHECK(area(rays, rays, 2, 0) == 0 && area(rays, rays, 3, 1) == 0);
  CHECK(area(rays, triangle, 0, 0) == 1 && area(triangle, rays, 0, 0) == 1);  // a zero ray
}

// Stars of a kind: ordinary, on a grid, with zeros, of all sizes, with negative rays, huge or tiny, all too short,
// needles.
std::vector<double> rays_of_kind(int kind, int64_t count, std::mt19937& generator) {
  std::uniform_real_distribution<double> uniform(0, 1);
  std::vector<double> rays(count);
  for (double& ray : rays) {
    const double share = uniform(generator);
    ray = 3 + 10 * uniform(generator);
    if (kind == 1) ray = std::floor(6 * share);
    if (kind == 2 && share < 0.3) ray = 0;
    if (kind == 3) ray = std::pow(10, 60 * (share - 0.5));
    if (kind == 4 && share < 0.2) ray = -1;
    if (kind == 5) ray = share < 0.5 ? 1e30 : 1e-90;
    if (kind == 6) ray = 1e-110 * share;
    if (kind == 7) ray = std::pow(10, 3 * share);
  }
  return rays;
}

void fast_answers_are_those_of_the_exact_sweep() {
  std::mt19937 generator(2);
  std::uniform_real_distribution<double> uniform(0, 10);
  const Isa best = chosen_isa;
  for (int round = 0; round < 3000; ++round) {
    chosen_isa = round % 2 ? best : Isa::kBaseline;
    const int kind = round / 2 % 8;
    const int64_t num_rays = std::vector<int64_t>{3, 4, 5, 7, 36, 128}[generator() % 6];
    const auto directions = ray_directions(num_rays);
    std::vector<double> origins(6), rays = rays_of_kind(kind, 3 * num_rays, generator);
    for (double& value : origins) value = kind == 1 ? std::floor(uniform(generator) / 2.5) : uniform(generator);
    if (kind == 6)
      for (double& value : origins) value *= 1e-110;
    std::copy_n(rays.begin(), num_rays, rays.begin() + num_rays);  // the second is the first, mostly elsewhere
    if (generator() % 2) std::copy_n(origins.begin(), 2, origins.begin() + 2);
    const Stars<double> stars{origins.data(), rays.data(), directions.data(), num_rays};
    Query<Stars<double>> query(stars, stars);
    for (int64_t i = 0; i < 3; ++i)
      for (int64_t j = 0; j < 3; ++j) {
        const Shape a = shape_of(stars, i), b = shape_of(stars, j);
        if (!a.finite || !b.finite) continue;
        query.start(i, a);
        const Overlap overlap = query(j, b);
        for (const Metric metric : {Metric::kIou, Metric::kIomin}) {
          const double share = overlap_share(overlap, metric);
          for (const double by : {0.0, 1e-15, -1e-15, 1e-12, -1e-12, 1e-9, -1e-9, 0.5, -1.0}) {
            const double threshold = share * (1 + by);
            bool fast = false;
            with_vectors([&](auto bytes) { fast = query.template exceeds<bytes>(j, b, metric, threshold); });
            CHECK(fast == exceeds(overlap, metric, threshold));
          }
        }
      }
  }
  chosen_isa = best;
}

// Polygons of a kind: stars, clockwise ones, on a grid, of any vertices at all, filled up with copies, wedges, far
// away, huge or tiny.
Ring ring_of_kind(int kind, int64_t count, std::mt19937& generator) {
  std::uniform_real_distribution<double> uniform(0, 1);
  const auto directions = ray_directions(count);
  const double x = 20 * uniform(generator), y = 20 * uniform(generator);
  Ring ring;
  for (int64_t n = 0; n < count; ++n) {
    const Vec2<double> direction = directions[kind == 1 ? count - 1 - n : n];
    const double reach = (kind == 5 && n % 2 ? 1 : 10) + 5 * uniform(generator);
    ring.push_back(kind == 3 ? 20 * uniform(generator) : x + reach * direction.x);
    ring.push_back(kind == 3 ? 20 * uniform(generator) : y + reach * direction.y);
  }
  if (kind == 4)
    for (int64_t n = count / 2; n < count; ++n) std::copy_n(ring.end() - 2, 2, ring.begin() + 2 * n);
  for (double& value : ring) {
    if (kind == 2) value = std::floor(value / 4);
    if (kind == 6) value += 1e9;
    if (kind == 7) value *= 1e40;
    if (kind == 8) value *= 1e-40;
    if (kind == 9) value *= 1e80;
  }
  return ring;
}

void fast_answers_are_those_of_the_order_free_sum() {
  std::mt19937 generator(3);
  const Isa best = chosen_isa;
  for (int round = 0; round < 4000; ++round) {
    chosen_isa = round % 2 ? best : Isa::kBaseline;
    const int kind = round / 2 % 10;
    const int64_t count = std::vector<int64_t>{3, 4, 5, 8, 36, 100}[generator() % 6];
    Ring rings;
    for (int n = 0; n < 3; ++n) {
      Ring next = ring_of_kind(n == 2 && kind < 4 ? 3 : kind, count, generator);
      if (n == 1 && generator() % 2) {  // nearly the first one, or just that
        next.assign(rings.begin(), rings.end());
        if (generator() % 2) next[generator() % next.size()] *= 1 + 1e-6;
      }
      rings.insert(rings.end(), next.begin(), next.end());
    }
    const Polygons<double> polygons{rings.data(), count};
    Query<Polygons<double>> query(polygons, polygons);
    for (int64_t i = 0; i < 3; ++i)
      for (int64_t j = 0; j < 3; ++j) {
        const Shape a = shape_of(polygons, i), b = shape_of(polygons, j);
        query.start(i, a);
        const Overlap overlap = query(j, b);
        for (const Metric metric : {Metric::kIou, Metric::kIomin}) {
          const double share = overlap_share(overlap, metric);
          for (const double by : {0.0, 1e-15, -1e-15, 1e-9, -1e-9, 1e-6, -1e-6, 1e-4, -1e-4, 0.1, -0.1, -1.0}) {
            const double threshold = share * (1 + by);
            bool fast = false;
            with_vectors([&](auto bytes) { fast = query.template exceeds<bytes>(j, b, metric, threshold); });
            CHECK(fast == exceeds(overlap, metric, threshold));
          }
        }
      }
  }
  chosen_isa = best;
}

// What is swept, and how sure that is, for a star of rays and any ring.
void lane_sweeps_know_their_error() {
  std::mt19937 generator(4);
  for (int round = 0; round < 2000; ++round) {
    const int64_t num_rays = std::vector<int64_t>{3, 4, 7, 36, 360}[generator() % 5], count = 3 + generator() % 40;
    const auto directions = ray_directions(num_rays);
    const std::vector<double> rays = rays_of_kind(round % 3, num_rays, generator);
    std::vector<Vec2<double>> spokes(num_rays + 1);
    std::vector<double> sectors(num_rays);
    const Star star =
        make_star(StarRays<double>{rays.data(), directions.data(), num_rays}, spokes.data(), sectors.data());
    Ring ring = ring_of_kind(round % 6, count, generator);
    const auto vertex = [&](int64_t j) { return Vec2<double>{ring[2 * j] - 10, ring[2 * j + 1] - 10}; };
    LaneSweep lanes(num_rays, count);
    with_vectors([&](auto bytes) {
      const bool starts = lanes.start<bytes>(star);
      CHECK(starts == (std::accumulate(sectors.begin(), sectors.end(), 0.0) > 0));
      if (!starts) return;
      Swept swept;
      if (!lanes.sweep<bytes>(count, vertex, swept)) return;
      double doubled = 0, border = 0;
      for (int64_t j = 0; j < count; ++j) {
        const Vec2<double> p = vertex(j), q = vertex(next_of(j, count));
        doubled += cross(p, q), border += absolute(q.x - p.x) + absolute(q.y - p.y);
      }
      CHECK(absolute(swept.area - doubled) <= swept.error);
      CHECK(absolute(swept.border - border) <= 1e-9);
      CHECK(absolute(0.5 * absolute(swept.shared) - star_sweep(star, count, vertex)) <= swept.error);
      if (num_rays <= 36) CHECK(swept.error < 1e-5);
    });
  }
}

void spokes_turn_once_around() {
  const auto starts = [](std::vector<Vec2<double>> spokes) {
    std::vector<double> sectors;
    for (size_t k = 0; k < spokes.size(); ++k) sectors.push_back(cross(spokes[k], spokes[(k + 1) % spokes.size()]));
    const auto count = std::ssize(spokes);
    spokes.push_back(spokes[0]);
    return LaneSweep(count, 3).start<16>({spokes.data(), sectors.data(), count});
  };
  CHECK(starts({{1, 0}, {0, 1}, {-1, -1}}) && starts({{-1, -1}, {1, 0}, {0, 1}}));
  CHECK(!starts({{1, 0}, {-1, -1}, {0, 1}}));                                   // to the right
  CHECK(!starts({{1, 0}, {0, 1}, {-1, -1}, {1, -0.5}, {0.5, 1}, {-1, -0.5}}));  // twice around
  CHECK(!starts({{1, 0}, {0, 1}, {0.5, 1}, {-1, 0}, {0, -1}}));                 // there and back
  CHECK(!starts({{1, 0}, {0, 1}}));
}

void nothing_overlaps_what_is_no_shape() {
  const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  for (double bad : {nan, infinity, -infinity, 1e300}) {
    const Ring ring{0, 0, 1, bad, bad, 1};
    CHECK((shape_of(Polygons<double>{ring.data(), 3}, 0).area == 0));
  }
  const Ring too_wide{0, 0, 1e308, 1e-300, -1e308, 1e-300};
  CHECK((shape_of(Polygons<double>{too_wide.data(), 3}, 0).area == 0));
  CHECK((shape_of(Polygons<double>{nullptr, 0}, 0).area == 0));
}

void outer_boxes_contain() {
  std::mt19937 generator(1);
  std::uniform_real_distribution<double> uniform(-1, 1);
  for (int n = 0; n < 100000; ++n) {
    const double value = std::ldexp(uniform(generator), static_cast<int>(generator() % 700) - 350);
    CHECK(round_down(value) <= value && -round_down(-value) >= value);
    const bool usual = std::abs(value) > 1e-36 && std::abs(value) < 1e38;
    if (usual) CHECK(std::abs(round_down(value) - value) <= std::ldexp(std::abs(value), -22));
  }
  for (double value : {0.0, 1e-320, -1e-320, 5e-324, 3.5e38, 1e300}) {
    CHECK(round_down(value) <= value && -round_down(-value) >= value);
    CHECK(round_down(-value) <= -value && -round_down(value) >= -value);
  }
}

void exponents_without_libm() {
  for (double value : {1.0, 0.75, 2.0, 3.0, 1e-300, 1e149, 0.1}) {
    int want;
    std::frexp(value, &want);
    CHECK(exponent_of(value) == want && power_of_two(want) == std::ldexp(1.0, want));
  }
  CHECK(exponent_of(5e-324) == -1022 && power_of_two(-1022) == std::ldexp(1.0, -1022));
}

}  // namespace

int main() {
  order_free_breaks_every_tie();
  snapping_follows_the_scale();
  star_sweep_in_closed_form();
  fast_answers_are_those_of_the_exact_sweep();
  fast_answers_are_those_of_the_order_free_sum();
  lane_sweeps_know_their_error();
  spokes_turn_once_around();
  nothing_overlaps_what_is_no_shape();
  outer_boxes_contain();
  exponents_without_libm();
  return check::finish();
}
