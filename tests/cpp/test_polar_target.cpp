#include "ops/polar_target/polar_target.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "check.h"

using namespace polarmask;
using namespace polarmask::polar_target;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::vector<Vec2<double>> directions_of(int64_t num_rays) {
  std::vector<Vec2<double>> directions;
  for (int64_t k = 0; k < num_rays; ++k) directions.push_back(ray_direction(k, num_rays));
  return directions;
}

template <class F>
void turns_are_as_close_as_their_slack_says() {
  double worst = 0;
  for (int k = 0; k < 100000; ++k) {
    const double turn = (k + 0.5) / 100000, angle = 2 * std::numbers::pi * turn;
    const Vec2<F> v{static_cast<F>(3 * std::cos(angle)), static_cast<F>(3 * std::sin(angle))};
    worst = std::fmax(worst, std::fabs(approximate_turn(v) - turn));
  }
  CHECK(worst < kTurnSlack / 4);
  for (const F tiny : {F(1e-37), std::numeric_limits<F>::min()})
    for (const F x : {tiny, -tiny})
      for (const F y : {tiny, -tiny, F(1e30), F(-1e30)}) {
        CHECK(approximate_turn<F>({x, y}) >= 0 && approximate_turn<F>({x, y}) <= 1);
      }
}

void spans_hold_every_ray_that_is_met() {
  std::vector<Vec2<double>> vertices;
  for (double x = -3; x <= 3; ++x)
    for (double y = -3; y <= 3; ++y) vertices.push_back({x, y});
  for (const int num_rays : {3, 8, 36, 1024}) {
    const auto directions = directions_of(num_rays);
    const auto check_span = [&](Vec2<double> a, Vec2<double> b) {
      const Vec2<float> float_a{static_cast<float>(a.x), static_cast<float>(a.y)};
      const Vec2<float> float_b{static_cast<float>(b.x), static_cast<float>(b.y)};
      const auto span = rays_between(known_turn(float_a), known_turn(float_b), static_cast<float>(num_rays));
      const int below = static_cast<int>(span.below), last = static_cast<int>(span.last);
      CHECK(below >= 0 && last - below <= num_rays && last <= 2 * num_rays);
      std::vector<bool> candidate(num_rays, false);
      for (int k = below + 1; k <= last; ++k) candidate[k % num_rays] = true;
      bool complete = true;
      for (int ray = 0; ray < num_rays; ++ray)
        complete = complete && (candidate[ray] || distance_to<Method::kFirst>(a, b, directions[ray]) == kInfinity);
      CHECK(complete);
      CHECK(!holds_origin(a, b) || last - below == num_rays);
    };
    for (const double scale : {1.0, 1e-300, 1e300})
      for (const auto& a : vertices)
        for (const auto& b : vertices) check_span({scale * a.x, scale * a.y}, b);
  }
}

void distances_are_those_of_closed_segments() {
  const auto first = [](Vec2<double> a, Vec2<double> b) { return distance_to<Method::kFirst>(a, b, {1.0, 0.0}); };
  const auto last = [](Vec2<double> a, Vec2<double> b) { return distance_to<Method::kLast>(a, b, {1.0, 0.0}); };
  CHECK(first({2, -1}, {4, 1}) == 3 && last({2, -1}, {4, 1}) == 3);
  CHECK(first({2, 0}, {4, 0}) == 2 && last({2, 0}, {4, 0}) == 4);
  CHECK(first({2, 0}, {4, 1}) == 2 && last({4, 1}, {2, 0}) == 2);
  CHECK(first({-2, -1}, {-4, 1}) == kInfinity && last({-2, -1}, {-4, 1}) == 0);
  CHECK(first({2, 1}, {std::nan(""), -1}) == kInfinity && first({2, 0}, {kInfinity, 1}) == kInfinity);
  CHECK(!std::signbit(first({-0.0, 0}, {-1, 1})));
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

}  // namespace

int main() {
  turns_are_as_close_as_their_slack_says<float>();
  turns_are_as_close_as_their_slack_says<double>();
  spans_hold_every_ray_that_is_met();
  distances_are_those_of_closed_segments();
  bins_are_floors_of_degrees();
  rays_read_the_bins_of_the_release();
  ranges_hold_no_nonsense();
  return check::finish();
}
