// The star sweep for a yes or no, in lanes, for the CPU loops: B's outline is cut at A's spokes first, then the pieces
// between all these points are measured, four at a time.
//
// A piece is the same as in star_sweep.h, to the bit, but the pieces are added in another order. None is negative, and
// no more than 2^18 additions of up to 2^20 pieces follow each other: so the sums of both differ by less than 2^-34 of
// themselves. Where that could turn the answer, star_sweep() is asked, and the answer is always its own.
#pragma once

#include <vector>

#include "../../common/lanes.h"
#include "star_sweep.h"

namespace polarmask {

// Where a direction's sector is looked for first: mostly it is this one or the next. Slots are equal parts of a measure
// that grows with the angle.
class SectorTable {
 public:
  SectorTable(const Vec2<double>* directions, int64_t num_rays) : first_(kSlots + 1) {
    for (int64_t slot = 0, k = 0; slot <= kSlots; ++slot) {
      while (k + 1 < num_rays && slot_of(directions[k + 1]) <= static_cast<double>(slot)) ++k;
      first_[slot] = static_cast<int32_t>(k);
    }
  }

  // Of a direction with this slot_of().
  int64_t operator()(double slot) const { return first_[static_cast<int64_t>(slot)]; }

  // From 0 to kSlots, for points that are not 0.
  static double slot_of(Vec2<double> p) {
    const double part = p.y / (absolute(p.x) + absolute(p.y));
    const double quarters = p.x < 0 ? 2 - part : p.y < 0 ? 4 + part : part;
    return quarters * (kSlots / 4);
  }

 private:
  static constexpr int kSlots = 1024;

  std::vector<int32_t> first_;
};

class LaneSweep {
 public:
  LaneSweep(const Vec2<double>* directions, int64_t num_rays, int64_t num_vertices)
      : table_(directions, num_rays),
        spokes_(2 * num_rays + 1),
        sectors_(2 * num_rays + 1),
        vertices_(num_vertices + 1) {}

  void start(const Star& star) {
    star_ = star;
    for (int64_t n = 0, k = 0; n < std::ssize(spokes_); ++n, k = next_of(k, star.num_rays))
      spokes_[n] = star.spokes[k], sectors_[n] = star.sectors[k];
  }

  // Whether Turns of B can be trusted: not where a vertex is so near o that its sector depends on where the search for
  // it starts.
  template <class Vertex>
  bool sweep(int64_t count, const Vertex& vertex, Turns& turns) {
    if (!find_sectors(count, vertex)) return false;
    turns = measure(cut(count));
    return true;
  }

 private:
  static constexpr int64_t kLanes = 4;
  using Numbers = Lanes<double, 8 * kLanes>;

  // B's, in columns; the first one again at the end.
  struct Vertices {
    std::vector<double> x, y, slot, depth;
    std::vector<int32_t> sector;

    explicit Vertices(int64_t count) : x(count), y(count), slot(count), depth(count), sector(count) {}
  };

  // Of B's outline, and the pieces from each to the next one: which edge's, in which sector. Shapes of needles, each of
  // which crosses all spokes of the other, have R² of them: 84 MB for 1,024 rays.
  struct Points {
    std::vector<double> x, y, depth, turn, sector;

    void reserve(int64_t count) {
      if (count <= std::ssize(x)) return;
      for (std::vector<double>* column : {&x, &y, &depth, &turn, &sector}) column->resize(2 * count);
    }
    void set(int64_t n, Vec2<double> at, double depth_there, double turn_of_edge, double sector_behind) {
      x[n] = at.x, y[n] = at.y, depth[n] = depth_there, turn[n] = turn_of_edge, sector[n] = sector_behind;
    }
  };

  Vec2<double> vertex(int64_t j) const { return {vertices_.x[j], vertices_.y[j]}; }

  template <class Vertex>
  bool find_sectors(int64_t count, const Vertex& vertex_of) {
    for (int64_t j = 0; j < count; ++j) {
      const Vec2<double> p = vertex_of(j);
      vertices_.x[j] = p.x, vertices_.y[j] = p.y;
    }
    bool is_far = true;
    for (int64_t j = 0; j < count; ++j) {
      is_far &= absolute(vertices_.x[j]) + absolute(vertices_.y[j]) >= kShortestRay;
      vertices_.slot[j] = SectorTable::slot_of(vertex(j));
    }
    if (!is_far) return false;
    const Vec2<double>* const spokes = spokes_.data();
    for (int64_t j = 0; j < count; ++j) {
      const Vec2<double> p = vertex(j);
      int64_t k = table_(vertices_.slot[j]);
      k += cross(spokes[k + 1], p) >= 0;  // a branch would be guessed wrong every other time
      const double begin = cross(spokes[k], p), end = cross(spokes[k + 1], p);
      k -= k < star_.num_rays ? 0 : star_.num_rays;
      if (begin >= 0 && end < 0) [[likely]] {  // as detail::place() has it
        vertices_.sector[j] = static_cast<int32_t>(k);
        vertices_.depth[j] = sectors_[k] > 0 ? (begin - end) / sectors_[k] : 0;
      } else {
        const detail::Placed placed = detail::place(star_, p, k);
        vertices_.sector[j] = static_cast<int32_t>(placed.sector), vertices_.depth[j] = placed.depth;
      }
    }
    vertices_.x[count] = vertices_.x[0], vertices_.y[count] = vertices_.y[0];
    vertices_.depth[count] = vertices_.depth[0], vertices_.sector[count] = vertices_.sector[0];
    return true;
  }

  // Vertices and cuts along B's outline; returns how many. Behind them, to fill the lanes, pieces without area.
  int64_t cut(int64_t count) {
    const int64_t num_rays = star_.num_rays;
    int64_t size = 0;
    for (int64_t j = 0; j < count; ++j) {
      const Vec2<double> p = vertex(j), q = vertex(j + 1);
      const int64_t of_p = vertices_.sector[j], of_q = vertices_.sector[j + 1];
      const double turn = cross(p, q);
      const bool right = turn < 0;
      const int64_t between = right ? of_p - of_q : of_q - of_p;
      const int64_t cuts = between + (between < 0 ? num_rays : 0);
      points_.reserve(size + cuts + 2 + 2 * kLanes);
      points_.set(size, p, vertices_.depth[j], turn, sectors_[of_p]);
      // One more cut than there are may be made: most edges have one or none, and the next point replaces it.
      const int64_t step = right ? -1 : 1;
      int64_t k = right ? of_p + num_rays : of_p + 1;
      for (int64_t n = 1;; ++n, k += step) {
        const Vec2<double> spoke = spokes_[k];
        const double across = cross(spoke, q) - cross(spoke, p);
        const double depth = (right ? -across : across) > 0 ? turn / across : 0;
        points_.set(size + n, {depth * spoke.x, depth * spoke.y}, depth, turn, sectors_[right ? k - 1 : k]);
        if (n >= cuts) break;
      }
      size += 1 + cuts;
    }
    for (int64_t n = 0; n < 2 * kLanes; ++n) points_.set(size + n, vertex(0), vertices_.depth[0], 0, 0);
    return size;
  }

  // As detail::wedge() measures them; the operands of comparisons are in the order of min_of() and max_of().
  Turns measure(int64_t size) const {
    const Numbers zero{}, one = zero + 1, deepest = zero + 1e150;
    Numbers left{}, right{};
    for (int64_t n = 0; n < size; n += kLanes) {
      const auto x0 = load<Numbers>(&points_.x[n]), x1 = load<Numbers>(&points_.x[n + 1]);
      const auto y0 = load<Numbers>(&points_.y[n]), y1 = load<Numbers>(&points_.y[n + 1]);
      const auto depth_0 = load<Numbers>(&points_.depth[n]), depth_1 = load<Numbers>(&points_.depth[n + 1]);
      const auto turn = load<Numbers>(&points_.turn[n]), sector = load<Numbers>(&points_.sector[n]);

      const Numbers near = depth_1 < depth_0 ? depth_1 : depth_0, any_far = depth_0 < depth_1 ? depth_1 : depth_0;
      const Numbers far = deepest < any_far ? deepest : any_far;
      Numbers part = (far - 1) + far * (1 - near), whole = (far - near) * far;
      part = near >= 1 ? one : part, whole = near >= 1 ? near * far : whole;
      part = far <= 1 ? one : part, whole = far <= 1 ? one : whole;
      const Numbers share = part / whole;

      const Numbers area = x0 * y1 - y0 * x1;
      const Numbers to_left = area > 0 ? area : zero, to_right = area < 0 ? -area : zero;
      left += ((sector > 0) & (turn > 0)) ? (to_left < turn ? to_left : turn) * share : zero;
      right += ((sector > 0) & (turn < 0)) ? (to_right < -turn ? to_right : -turn) * share : zero;
    }
    return {(left[0] + left[1]) + (left[2] + left[3]), (right[0] + right[1]) + (right[2] + right[3])};
  }

  SectorTable table_;
  Star star_{};
  std::vector<Vec2<double>> spokes_;  // A's, twice around
  std::vector<double> sectors_;       // likewise
  Vertices vertices_;
  Points points_;
};

// Four times the share of all pieces by which the two sweeps can differ; more than kSweepRounding, so that what
// finish_sweep() takes for rounding is in doubt here.
constexpr double kSweepDoubt = 1.0 / (int64_t{1} << 32);

enum class Answer { kNo, kYes, kInDoubt };

// What exceeds() would say after star_sweep(): more intersection never turns its yes into a no.
inline Answer answer(const Turns& turns, double area_a, double area_b, Metric metric, double threshold) {
  const double all = turns.left + turns.right, doubt = kSweepDoubt * all;
  if (!(all <= 1e300)) return Answer::kInDoubt;
  const double doubled = absolute(turns.left - turns.right);
  const bool least = exceeds(make_overlap(0.5 * (doubled - doubt), area_a, area_b), metric, threshold);
  const bool most = exceeds(make_overlap(0.5 * (doubled + doubt), area_a, area_b), metric, threshold);
  return least != most ? Answer::kInDoubt : most ? Answer::kYes : Answer::kNo;
}

}  // namespace polarmask
