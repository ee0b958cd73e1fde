#include "ops/star_distances/star_distances.h"

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "check.h"

using namespace polarmask;
using namespace polarmask::star_distances;

namespace {

std::vector<Vec2<double>> directions_of(int64_t num_rays) {
  std::vector<Vec2<double>> directions;
  for (int64_t k = 0; k < num_rays; ++k) directions.push_back(ray_direction(k, num_rays));
  return directions;
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

}  // namespace

int main() {
  jumps_arrive_where_steps_do();
  rooms_hold_one_label();
  steps_go_to_neighbours();
  return check::finish();
}
