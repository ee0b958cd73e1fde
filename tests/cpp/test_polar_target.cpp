#include "ops/polar_target/polar_target.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numbers>
#include <vector>

#include "check.h"
#include "ops/star_distances/star_distances.h"

using namespace polarmask;

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

void jumps_arrive_where_steps_do() {
  for (const int num_rays : {3, 7, 8, 12, 36, 360, 1024})
    for (const auto& direction : directions_of(num_rays))
      for (const int64_t room : {2, 8, 40, 2032}) {
        Step from{0, 0, 0};
        for (int start = 0; start < 9; ++start, from = exact_step(from, direction)) {
          const Step to = exact_jump(from, direction, room);
          const auto far = [&](const Step& step) {
            return std::max(std::abs(step.dx - from.dx), std::abs(step.dy - from.dy));
          };
          Step step = from;
          while (step.distance < to.distance) step = exact_step(step, direction);
          CHECK(step.dx == to.dx && step.dy == to.dy && step.distance == to.distance);
          CHECK(far(to) <= room && far(to) >= room - 1);
        }
      }
}

// By looking at all pixels: whether a room is one, and whether cells of one label have the largest reach there is.
void rooms_hold_one_label() {
  constexpr int64_t kHeight = 77, kWidth = 95;
  std::vector<uint8_t> labels(kHeight * kWidth, 1);
  for (int64_t k = 0; k < kHeight; ++k) labels[k * kWidth + k * k % kWidth / 9 * 9] = 2;
  for (int64_t row = 40; row < kHeight; ++row) std::fill_n(labels.data() + row * kWidth, 60, uint8_t{3});
  std::vector<uint8_t> reach(100), widths(100);
  const StarDistancesParams<uint8_t> p{.labels = labels.data(),
                                       .height = kHeight,
                                       .width = kWidth,
                                       .cells = {kHeight / kCell, kWidth / kCell, reach.data(), widths.data()},
                                       .num_rays = 4,
                                       .exact = true,
                                       .distances = nullptr};
  for (int64_t cell = 0; cell < p.cells.count(); ++cell) find_uniform(p, cell);
  for (int64_t cell = 0; cell < p.cells.count(); ++cell) find_width(p, cell);
  for (int64_t cell = 0; cell < p.cells.count(); ++cell) find_reach(p, cell);
  const auto same_around = [&](int64_t row, int64_t column, int64_t far) {
    for (int64_t y = row - far; y <= row + far; ++y)
      for (int64_t x = column - far; x <= column + far; ++x)
        if (y < 0 || y >= kHeight || x < 0 || x >= kWidth || labels[y * kWidth + x] != labels[row * kWidth + column])
          return false;
    return true;
  };
  int64_t largest = 0;
  for (int64_t row = 0; row < kHeight; ++row)
    for (int64_t column = 0; column < kWidth; ++column) {
      const int64_t room = p.cells.room(row, column);
      largest = std::max(largest, room);
      CHECK(same_around(row, column, room));
    }
  CHECK(largest == kCell);
}

int main() {
  jumps_arrive_where_steps_do();
  rooms_hold_one_label();
  turns_are_as_close_as_their_slack_says<float>();
  turns_are_as_close_as_their_slack_says<double>();
  spans_hold_every_ray_that_is_met();
  distances_are_those_of_closed_segments();
  bins_are_floors_of_degrees();
  rays_read_the_bins_of_the_release();
  ranges_hold_no_nonsense();
  steps_go_to_neighbours();
  return check::finish();
}
