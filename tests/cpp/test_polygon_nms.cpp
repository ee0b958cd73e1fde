#include "ops/polygon_nms/neighbours.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "check.h"

using namespace polarmask;
using namespace polarmask::polygon_nms;

namespace {

void neighbours_are_all_pairs() {
  std::mt19937 generator(0);
  std::uniform_real_distribution<double> uniform(-1, 1);
  std::vector<Shape> shapes;
  std::vector<int64_t> classes;
  for (int n = 0; n < 600; ++n) {
    const double x = 50 * uniform(generator), y = 50 * uniform(generator);
    const double width = std::exp2(6 * uniform(generator)), height = std::exp2(6 * uniform(generator));
    shapes.push_back({{x, y, x + width, y + height}, n % 50 ? width * height : 0, true});
    classes.push_back(n % 3);
  }
  const Neighbours neighbours(shapes, classes.data());
  const int64_t last = 500;
  for (int64_t rank = 0; rank < std::ssize(shapes); ++rank) {
    std::vector<int64_t> found, wanted;
    neighbours.each(rank, rank + 1, last, [&](int64_t other) { found.push_back(other); });
    std::sort(found.begin(), found.end());
    for (int64_t other = rank + 1; other <= last; ++other)
      if (classes[rank] == classes[other] && shapes[rank].area > 0 && shapes[other].area > 0 &&
          boxes_overlap(shapes[rank].box, shapes[other].box))
        wanted.push_back(other);
    CHECK(found == wanted);
  }
}

}  // namespace

int main() {
  neighbours_are_all_pairs();
  return check::finish();
}
