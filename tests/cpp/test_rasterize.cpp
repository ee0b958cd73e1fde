#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "check.h"
#include "ops/rasterize/cpu/crossing_rows.h"
#include "ops/rasterize/rasterize.h"

using namespace polarmask;
using namespace polarmask::rasterize;

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN(), kInfinity = std::numeric_limits<double>::infinity();

void ceilings() {
  for (double value : {0.0, 1e-300, 0.5, 1.0, 2.0 - 1e-15, 2.0, 2.5, 1e15})
    CHECK(clamped_ceil(value, 0, int64_t{1} << 60) == static_cast<int64_t>(std::ceil(value)));
  CHECK(clamped_ceil(-3.5, 0, 9) == 0 && clamped_ceil(3.5, 5, 9) == 5 && clamped_ceil(9.1, 0, 9) == 9);
  CHECK(clamped_ceil(kNan, 2, 9) == 2 && clamped_ceil(kInfinity, 2, 9) == 9 && clamped_ceil(-kInfinity, 2, 9) == 2);
}

void columns_of_the_centre_rule() {
  for (double x0 : {-1.0, 0.0, 0.4999999999999999, 0.5, 0.5000000000000001, 1.5, 7.25}) {
    for (double x1 : {-0.5, 0.5, 1.5000000000000002, 2.0, 6.5, 99.0}) {
      const Segment<double> segment{{x0, 1.0}, {x1, 2.0}};
      const CenterCrossings crossings(segment, 0, 8);
      const Edge edge = make_edge(x0, 1.0, x1, 2.0);
      for (int64_t c = 0; c < 8; ++c)
        CHECK((crossings.begin <= c && c < crossings.end) == owns(edge, static_cast<double>(c) + 0.5));
    }
  }
}

// The walk of rleFrPoly along one edge, every step of it.
std::vector<int64_t> walk(int x0, int y0, int x1, int y1, int64_t width, int64_t height) {
  const int dx = std::abs(x1 - x0), dy = std::abs(y1 - y0);
  if (dx == 0 && dy == 0) return std::vector<int64_t>(width, -1);
  if (dx >= dy ? x0 > x1 : y0 > y1) std::swap(x0, x1), std::swap(y0, y1);
  const double slope = dx >= dy ? static_cast<double>(y1 - y0) / dx : static_cast<double>(x1 - x0) / dy;
  std::vector<int64_t> rows(width, -1);
  int u = 0, v = 0;
  for (int t = 0; t <= std::max(dx, dy); ++t) {
    const int last_u = u, last_v = v;
    u = dx >= dy ? x0 + t : static_cast<int>(x0 + slope * t + 0.5);
    v = dx >= dy ? static_cast<int>(y0 + slope * t + 0.5) : y0 + t;
    const int fifth = std::min(u, last_u);
    if (t == 0 || u == last_u || fifth < 2 || fifth % 5 != 2 || fifth / 5 >= width) continue;
    const int row = static_cast<int>(std::ceil((std::min(v, last_v) + 0.5) / 5 - 0.5));
    rows[fifth / 5] = std::min<int64_t>(std::max(row, 0), height);
  }
  return rows;
}

void coco_crossings_are_those_of_the_walk() {
  for (int n = 0; n < 20000; ++n) {
    const auto draw = [n](int64_t a) { return static_cast<int>((n * a + n / 7 * 13) % 131) - 30; };
    const int x0 = draw(31), y0 = draw(17), x1 = draw(73), y1 = draw(101);
    const Segment<double> segment{{x0 / 5.0, y0 / 5.0}, {x1 / 5.0, y1 / 5.0}};
    // Negative coordinates are rounded towards zero: what the walk is given must be what the segment becomes.
    const auto fifths = [](double v) { return static_cast<int>(5 * v + 0.5); };
    const auto want =
        walk(fifths(segment.from.x), fifths(segment.from.y), fifths(segment.to.x), fifths(segment.to.y), 15, 12);
    const CocoCrossings crossings(segment, 0, 15);
    for (int64_t c = 0; c < 15; ++c) {
      const bool owned = crossings.begin <= c && c < crossings.end;
      CHECK(owned == (want[c] >= 0));
      if (owned) CHECK(crossings.row(c, 12) == want[c]);
    }
  }
}

template <class Crossings>
void check_rows_side_by_side(const Segment<double>& segment, int64_t width, int64_t height) {
  const Crossings crossings(segment, 0, width);
  std::vector<int32_t> rows(std::max<int64_t>(crossings.end - crossings.begin, 0) + kColumnLanes);
  write_rows(crossings, height, rows.data());
  for (int64_t c = crossings.begin; c < crossings.end; ++c)
    CHECK(rows[c - crossings.begin] == crossings.row(c, height));
}

void rows_side_by_side_are_those_of_one_column() {
  std::mt19937 random(0);
  for (double reach : {4.0, 60.0, 1e3, 1e6, 1e12, 1e300}) {
    for (int n = 0; n < 4000; ++n) {
      const auto draw = [&](double limit) {
        const double value = std::uniform_real_distribution<double>(-limit, limit)(random);
        return random() % 2 ? value : std::round(value * 10) / 10;  // ties of both rules
      };
      const double x = draw(40), y = draw(40);
      const double across = n % 3 == 0 ? draw(3) : draw(std::min(reach, 1e3)), along = draw(reach);
      for (const Segment<double>& segment :
           {Segment<double>{{x, y}, {x + across, along}}, Segment<double>{{x, along}, {x + across, y}}}) {
        check_rows_side_by_side<CenterCrossings>(segment, 50, 1 + n % 90);
        check_rows_side_by_side<CocoCrossings>(segment, 50, 1 + n % 90);
      }
    }
  }
}

}  // namespace

int main() {
  ceilings();
  columns_of_the_centre_rule();
  coco_crossings_are_those_of_the_walk();
  rows_side_by_side_are_those_of_one_column();
  return check::finish();
}
