#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "ops/outlines/clip.h"
#include "ops/outlines/cpu/pixels.h"
#include "ops/outlines/outlines.h"

using namespace polarmask;
using namespace polarmask::outlines;

namespace {

using Segments = std::vector<double>;  // x0, y0, x1, y1, …

double area(const Segments& segments) {
  const auto count = static_cast<int64_t>(segments.size() / 4);
  return count > 0 ? all_sums<AreaSums>(segments.data(), count).area() : 0.0;
}

void sums() {
  const Segments square{2, 3, 6, 3, 6, 3, 6, 5, 6, 5, 2, 5, 2, 5, 2, 3};
  const auto sums = all_sums<AreaSums>(square.data(), 4);
  CHECK(sums.area() == 8 && !sums.vanishes());
  CHECK(centroid(sums).x == 2 && centroid(sums).y == 1);  // relative to (2, 3)
  const Segments there_and_back{0.1, 0.2, 0.7, 1.4, 0.7, 1.4, 0.1, 0.2};
  CHECK(area(there_and_back) == 0);
  const Segments point{1, 2, 1, 2};
  const auto midpoint = centroid(all_sums<MidpointSums>(point.data(), 1));
  CHECK(midpoint.x == 0 && midpoint.y == 0);
  for (double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()})
    CHECK(!is_finite(area({0, 0, 1, 0, 1, 0, 1, bad, 1, bad, 0, 0})));
}

// Bitmaps in a buffer of their very size, so that the sanitizer sees every byte read beyond it.
void pixels() {
  std::mt19937 random(0);
  Runs shape, seen, cut;
  LargestComponent largest;
  EdgeTracer tracer;
  for (int round = 0; round < 300; ++round) {
    const int64_t height = random() % 12, width = random() % 140;
    const unsigned density = random() % 11;
    std::vector<uint8_t> mask(height * width);
    int64_t inside = 0;
    for (auto& pixel : mask) inside += (pixel = random() % 10 < density ? 1 + random() % 255 : 0) != 0;
    shape.clear();
    shape.add_bitmap(mask.data(), height, width, whole_image(height, width));
    const auto traced = [&](const Runs& runs) {
      Segments segments;
      tracer.trace(runs, [&](auto x0, auto y0, auto x1, auto y1) {
        for (auto value : {x0, y0, x1, y1}) segments.push_back(static_cast<double>(value));
      });
      return segments;
    };
    const PixelBox window{{height / 3, height - height / 4}, {width / 5, width - width / 6}};
    seen.clear(), cut.clear();
    seen.add_bitmap(mask.data(), height, width, window);
    std::vector<uint8_t> rest(height * width);
    for (int64_t i = window.rows.begin; i < window.rows.end; ++i)
      for (int64_t j = window.columns.begin; j < window.columns.end; ++j) rest[i * width + j] = mask[i * width + j];
    cut.add_bitmap(rest.data(), height, width, whole_image(height, width));
    CHECK(traced(seen) == traced(cut));
    const auto sides = traced(shape);
    CHECK(area(sides) == static_cast<double>(inside));
    const Runs& filled = largest.find(shape, false);
    const auto outer = area(traced(filled));
    CHECK((outer == 0) == (inside == 0));
    CHECK(&largest.find(filled, false) == &filled);  // one component without holes stays
    int64_t border = 0;
    for (int64_t line = -1; line <= height; ++line)
      border_pixels(filled.line(line - 1), filled.line(line), filled.line(line + 1), [&](int32_t x) {
        ++border;
        CHECK(0 <= x && x < width && 0 <= line && line < height);
      });
    CHECK((border == 0) == (inside == 0));

    Segments clipped;
    const ClipPoint limit{{static_cast<double>(width) - 3.5, 5.25}};
    const auto add = [&](const ClipPoint& a, const ClipPoint& b) {
      clipped.insert(clipped.end(), {a.at[0], a.at[1], b.at[0], b.at[1]});
    };
    std::vector<BorderEnd> ends;
    for (size_t s = 0; s < sides.size(); s += 4)
      clip_segment(sides.data() + s, limit, add, [&](const BorderEnd& end) { ends.push_back(end); });
    std::sort(ends.begin(), ends.end());
    net_passages(ends.data(), static_cast<int64_t>(ends.size()), limit, add);
    double want = 0;
    for (int64_t row = 0; row < height; ++row)
      for (int64_t x = 0; x < width; ++x)
        if (mask[row * width + x] != 0)
          want += std::clamp(5.25 - static_cast<double>(row), 0.0, 1.0) *
                  std::clamp(static_cast<double>(width - x) - 3.5, 0.0, 1.0);
    CHECK(width < 4 || area(clipped) == want);
  }
}

void runs_that_touch_are_one() {
  Runs runs;
  runs.add(3, 1, 4);
  runs.add(3, 4, 6);
  runs.add(5, 0, 1);
  CHECK(runs.size() == 2 && runs[0].end == 6);
  CHECK(runs.line(2).count == 0 && runs.line(3).count == 1 && runs.line(4).count == 0 && runs.line(5).count == 1);
  CHECK(runs.line(6).count == 0 && runs.first_line() == 3 && runs.end_line() == 6);
}

}  // namespace

int main() {
  sums();
  pixels();
  runs_that_touch_are_one();
  return check::finish();
}
