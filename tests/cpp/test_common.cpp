#include <cmath>
#include <initializer_list>
#include <limits>

#include "check.h"
#include "common/polar.h"
#include "common/polygon.h"

using namespace polarmask;

namespace {

void directions() {
  for (int64_t num_rays : {3, 4, 5, 8, 36, 37, 360, 1024}) {
    for (int64_t k = 0; k < num_rays; ++k) {
      const Vec2<double> u = ray_direction(k, num_rays);
      const long double angle = 2 * std::acos(-1.0L) * k / num_rays;
      CHECK(std::fabs(u.x - std::cos(angle)) <= 2.3e-16L);
      CHECK(std::fabs(u.y - std::sin(angle)) <= 2.3e-16L);
      const Vec2<double> mirrored = ray_direction((num_rays - k) % num_rays, num_rays);
      CHECK(mirrored.x == u.x && mirrored.y == -u.y);
    }
  }
}

void shared_edges_leave_no_gap() {
  // The same edge walked both ways crosses a column at the same height, to the bit.
  for (int n = 1; n < 1000; ++n) {
    const double x0 = 0.1 * n, y0 = 7.3 / n, x1 = x0 + 3.7, y1 = -1.9 * n;
    const Edge there = make_edge(x0, y0, x1, y1), back = make_edge(x1, y1, x0, y0);
    for (double x = x0; x < x1; x += 0.37) {
      CHECK(owns(there, x) && owns(back, x));
      CHECK(crossing(there, x) == crossing(back, x));
    }
  }
}

void a_vertex_belongs_to_one_edge() {
  const Edge left = make_edge(0.0, 0.0, 1.5, 2.0), right = make_edge(1.5, 2.0, 3.0, 0.0);
  CHECK(!owns(left, 1.5) && owns(right, 1.5) && owns(left, 0.0) && !owns(right, 3.0));
  CHECK(!owns(make_edge(1.5, 0.0, 1.5, 9.0), 1.5));  // vertical edges own no column
}

void not_a_number_owns_nothing() {
  const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  CHECK(!owns(make_edge(nan, 0.0, 1.0, 0.0), 0.5));
  CHECK(!is_finite(nan) && !is_finite(infinity) && !is_finite(-infinity) && is_finite(1e308) && is_finite(0.0f));
}

}  // namespace

int main() {
  directions();
  shared_edges_leave_no_gap();
  a_vertex_belongs_to_one_edge();
  not_a_number_owns_nothing();
  return check::finish();
}
