#include "ops/polar_target/polar_target.h"

#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "check.h"
#include "ops/polar_target/star_distances.h"

using namespace polarmask;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::vector<Vec2<double>> directions_of(int64_t num_rays) {
  std::vector<Vec2<double>> directions;
  for (int64_t k = 0; k < num_rays; ++k) directions.push_back(ray_direction(k, num_rays));
  return directions;
}

void turns_are_as_close_as_their_slack_says() {
  double worst = 0;
  for (int k = 0; k < 100000; ++k) {
    const double turn = (k + 0.5) / 100000, angle = 2 * std::numbers::pi * turn;
    worst = std::fmax(worst, std::fabs(approximate_turn({3 * std::cos(angle), 3 * std::sin(angle)}) - turn));
  }
  CHECK(worst < kTurnSlack / 4);
  CHECK(approximate_turn({0, 0}) == 0);
  for (const double tiny : {5e-324, 1e-300})
    for (const double x : {tiny, -tiny})
      for (const double y : {tiny, -tiny, 1e300, -1e300}) {
        CHECK(approximate_turn({x, y}) >= 0 && approximate_turn({x, y}) <= 1);
      }
}

void spans_hold_every_ray_that_is_met() {
  for (const int64_t num_rays : {3, 8, 36, 1024}) {
    const auto directions = directions_of(num_rays);
    std::vector<Vec2<double>> vertices;
    for (double x = -3; x <= 3; ++x)
      for (double y = -3; y <= 3; ++y) vertices.push_back({x, y});
    for (const auto& a : vertices)
      for (const auto& b : vertices) {
        const auto hits_of = [&](const End& start, const End& end) {
          std::vector<int> hits(num_rays, 0);
          for_hits(start, end, directions.data(), num_rays, [&](int64_t ray, double) { ++hits[ray]; });
          return hits;
        };
        const bool everywhere = holds_origin(end_at(a), end_at(b));
        CHECK(everywhere || hits_of(end_at(a), end_at(b)) == hits_of({a, 0}, {b, 0.5}));  // which tries all rays
      }
  }
}

void bins_are_floors_of_degrees() {
  const auto degrees = directions_of(kBins);
  CHECK(bin_of({0, 0}, degrees.data()) == 0);
  for (int x = -200; x <= 200; ++x)
    for (int y = -200; y <= 200; ++y) {
      const double degree = std::atan2(static_cast<double>(x), static_cast<double>(y)) * 180 / std::numbers::pi;
      const auto want = static_cast<int64_t>(std::floor(degree < 0 ? degree + 360 : degree));
      const Vec2<double> v{static_cast<double>(x), static_cast<double>(y)};
      CHECK(bin_of(v, degrees.data()) == want);
    }
}

void rays_read_the_bins_of_the_release() {
  CHECK(bin_of_ray(0, 36) == 90 && bin_of_ray(9, 36) == 0 && bin_of_ray(10, 36) == 350);
  std::vector<double> farthest(kBins, -1.0);
  CHECK(squared_distance_at(350, farthest.data()) == -1);
  farthest[359] = 4;
  CHECK(squared_distance_at(0, farthest.data()) == -1);
  farthest[3] = 0;
  CHECK(squared_distance_at(0, farthest.data()) == 0);
  farthest[1] = 9;
  CHECK(squared_distance_at(2, farthest.data()) == 0);
}

void ranges_hold_no_nonsense() {
  const float huge = std::numeric_limits<float>::max(), nan = std::numeric_limits<float>::quiet_NaN();
  const auto range = [](float low, float high) { return points_between(low, high, 8, 10); };
  CHECK(range(-huge, huge).begin == 0 && range(-huge, huge).end == 10);
  CHECK(range(nan, nan).begin == 0 && range(nan, nan).end == 0);
  CHECK(range(12, 28).begin == 1 && range(12, 28).end == 4);
  CHECK(clamp_index(kInfinity, 5) == 5 && clamp_index(-kInfinity, 5) == 0 && clamp_index(std::nan(""), 5) == 0);
}

void steps_go_to_neighbours() {
  for (const int64_t num_rays : {3, 8, 12, 36, 37, 360, 1024})
    for (const auto& direction : directions_of(num_rays))
      for (const int64_t start : {0, 1}) {
        Step nearest{0, 0, 0}, exact{0, 0, 0};
        for (int64_t n = 1; n < 300; ++n) {
          const auto is_next = [](const Step& a, const Step& b) {
            return std::abs(b.dx - a.dx) <= 1 && std::abs(b.dy - a.dy) <= 1 && b.distance > a.distance;
          };
          const Step next_nearest = stardist_step(n, direction, {start, start}),
                     next_exact = exact_step(exact, direction);
          CHECK(is_next(nearest, next_nearest) && is_next(exact, next_exact));
          nearest = next_nearest, exact = next_exact;
        }
      }
}

}  // namespace

int main() {
  turns_are_as_close_as_their_slack_says();
  spans_hold_every_ray_that_is_met();
  bins_are_floors_of_degrees();
  rays_read_the_bins_of_the_release();
  ranges_hold_no_nonsense();
  steps_go_to_neighbours();
  return check::finish();
}
