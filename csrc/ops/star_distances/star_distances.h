// How far the rays of a pixel stay inside its label. The pixels that a ray visits, seen from where it starts, are the
// same for every pixel of the image: a table of steps a ray, and then a walk until the label changes.
//
// Walks through large objects skip what is surely inside. No step leads further than to one of the 8 neighbours of a
// pixel. So if all pixels at most m away in x and y have the label, the next m steps stay inside, and the step at which
// the label changes is the same whether they are looked at or not. m is known by cells of kCell² pixels: a walk looks
// at kBurst pixels one by one, as many as an object of 30 pixels has on the way out, and then skips the m of the cell
// where it is, again and again until m is 0, as it is near the side of an object. Of a filled image of n² pixels,
// R · n² walks take some 2 · kBurst + log n looks each; all n on the way were R · n³. Near a side that runs along the
// ray m is 0: that is a band of two cells, and costs up to n looks a walk.
#pragma once

#include "common/polar.h"

namespace polarmask::star_distances {

constexpr int kCellBits = 3;
constexpr int64_t kCell = 1 << kCellBits;  // pixels
constexpr int64_t kBurst = 2 * kCell;      // steps
constexpr int64_t kMaxReach = 255;         // cells

// The whole cells of an image. A cell of reach r has one label, as have all cells less than r away from it, and theirs
// is the same; a cell of reach 0 has several.
struct Cells {
  int64_t height, width;  // cells
  uint8_t* reach;         // [height, width]
  uint8_t* widths;        // [height, width] scratch: the reach if cells were only to the left and right

  PM_HD int64_t count() const { return height * width; }

  // How far from a pixel of the image all pixels have its label, at least.
  PM_HD int64_t room(int64_t row, int64_t column) const {
    const int64_t y = row >> kCellBits, x = column >> kCellBits;
    if (y >= height || x >= width) return 0;
    const int64_t cells = reach[y * width + x];
    return cells > 1 ? (cells - 1) * kCell : 0;
  }
};

template <class T>
struct StarDistancesParams {
  const T* labels;        // [H, W] 0: background
  int64_t height, width;  // pixels
  Cells cells;
  int64_t num_rays;  // R
  bool exact;        // the rule
  float* distances;  // [R, H, W] pixels
};

// Reaches are found in three passes over the cells, each of which reads what the one before has written: whether a cell
// has one label (into reach), widths, reach.
template <class T>
PM_HD T label_of(const StarDistancesParams<T>& p, int64_t y, int64_t x) {
  return p.labels[y * kCell * p.width + x * kCell];
}

template <class T>
PM_HD void find_uniform(const StarDistancesParams<T>& p, int64_t cell) {
  const int64_t y = cell / p.cells.width, x = cell % p.cells.width;
  const T label = label_of(p, y, x);
  bool same = label != 0;  // nobody walks on background
  for (int64_t row = y * kCell; row < (y + 1) * kCell && same; ++row)
    for (int64_t column = x * kCell; column < (x + 1) * kCell; ++column)
      same &= p.labels[row * p.width + column] == label;
  p.cells.reach[cell] = same;
}

template <class T>
PM_HD void find_width(const StarDistancesParams<T>& p, int64_t cell) {
  const int64_t y = cell / p.cells.width, x = cell % p.cells.width;
  const T label = label_of(p, y, x);
  const auto same = [&](int64_t at) {
    return 0 <= at && at < p.cells.width && p.cells.reach[y * p.cells.width + at] != 0 && label_of(p, y, at) == label;
  };
  int64_t width = p.cells.reach[cell];
  if (width != 0)
    while (width < kMaxReach && same(x - width) && same(x + width)) ++width;
  p.cells.widths[cell] = static_cast<uint8_t>(width);
}

template <class T>
PM_HD void find_reach(const StarDistancesParams<T>& p, int64_t cell) {
  const int64_t y = cell / p.cells.width, x = cell % p.cells.width;
  const T label = label_of(p, y, x);
  const auto width_at = [&](int64_t at) -> int64_t {
    if (at < 0 || at >= p.cells.height || label_of(p, at, x) != label) return 0;
    return p.cells.widths[at * p.cells.width + x];
  };
  // Rows `away` from the cell bound every reach beyond `away`.
  int64_t reach = p.cells.widths[cell];
  for (int64_t away = 1; away < reach; ++away)
    reach = min_of(reach, max_of(away, min_of(width_at(y - away), width_at(y + away))));
  p.cells.reach[cell] = static_cast<uint8_t>(reach);
}

// A pixel on the way of a ray, and the length of the ray if it ends there.
struct Step {
  int64_t dx, dy;   // pixels from the start
  double distance;  // pixels
};

// Step n ≥ 1 of StarDist: the pixel nearest to n units along the ray; half a pixel past the one before is the border.
// Halves go to the even pixel of the image, hence `start`. Rays at multiples of 30° meet them all the time.
PM_HD Step stardist_step(int64_t n, Vec2<double> direction, Vec2<int64_t> start) {
  const double ax = direction.x < 0 ? -direction.x : direction.x, ay = direction.y < 0 ? -direction.y : direction.y;
  const auto nearest = [&](double along, int64_t from) {
    constexpr double kSlack = 1e-6;  // what float32 makes of a half
    const double position = static_cast<double>(n) * along + 0.5;
    const auto truncated = static_cast<int64_t>(position);
    const int64_t below = truncated - (static_cast<double>(truncated) > position);
    const double above = position - static_cast<double>(below);
    if (above < kSlack) return below - ((from + below) & 1);
    return above > 1 - kSlack ? below + ((from + below) & 1) : below;
  };
  return {nearest(direction.x, start.x), nearest(direction.y, start.y),
          static_cast<double>(n - 1) + 0.5 / max_of(ax, ay)};
}

// How far along the ray its n-th side of a pixel square is (n from 0), by one of its axes, from the middle of a pixel.
PM_HD double side_distance(int64_t n, double along) {
  constexpr double kNever = 1e300;
  return along == 0 ? kNever : (static_cast<double>(n) + 0.5) / absolute(along);
}

// The step after `step` (at first {0, 0, 0}) from pixel square to pixel square, starting in the middle of one, and the
// next sides by x and by y. The distance is that of the side it crosses; a diagonal goes through corners, and meets the
// squares beside them nowhere.
PM_HD Step exact_step(const Step& step, Vec2<double> direction, double to_x, double to_y) {
  const auto sign = [](double value) { return value < 0 ? -1 : 1; };
  return {step.dx + (to_x <= to_y ? sign(direction.x) : 0), step.dy + (to_y <= to_x ? sign(direction.y) : 0),
          min_of(to_x, to_y)};
}

PM_HD Step exact_step(const Step& step, Vec2<double> direction) {
  return exact_step(step, direction, side_distance(absolute(step.dx), direction.x),
                    side_distance(absolute(step.dy), direction.y));
}

// The last step of those that follow `step` and lead at most `room` pixels away from it in x and y: as many calls of
// exact_step as there are sides on the way arrive at the same, or at a step before it. Counts the sides of the axis
// along which the ray is faster, less one for that of the other axis which may come first.
PM_HD Step exact_jump(const Step& step, Vec2<double> direction, int64_t room) {
  if (room < 2) return step;
  const bool by_x = absolute(direction.x) >= absolute(direction.y);
  const double fast = by_x ? direction.x : direction.y, slow = by_x ? direction.y : direction.x;
  const int64_t sides = absolute(by_x ? step.dx : step.dy) + room - 1;
  const double distance = side_distance(sides - 1, fast);
  auto others = static_cast<int64_t>(distance * absolute(slow) + 0.5);  // up to rounding; the loops make it exact
  while (others > 0 && side_distance(others - 1, slow) > distance) --others;
  while (side_distance(others, slow) <= distance) ++others;
  const int64_t along = fast < 0 ? -sides : sides, aside = slow < 0 ? -others : others;
  return {by_x ? along : aside, by_x ? aside : along, distance};
}

}  // namespace polarmask::star_distances
