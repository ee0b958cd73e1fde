// Answers whether two shapes overlap by more than a threshold, with a bound of its own error. Several edges of B lie
// side by side in a vector, and each is followed through A's sectors from its right end to its left one.
//
// Replaces: star_sweep(), and for polygons that are stars about their centroid the order-free sum; NMS alone uses it.
// Falls back: to these, where the bound of the error leaves the answer open, where A is no star, and where sizes leave
// the range from 1e-60 to 1e60. Every answer is therefore that of the exact algorithm.
// Saves: 1.6 to 2.4 times for polygons and 1.4 to 1.9 for stars, of 36 and 72 vertices (3,600 pairs that mostly
// overlap, threshold 0.5).
//
// How it works: the triangle (o, a, a + t (b - a)) grows by (a × b) dt, of which min(1, 1 / depth²) lies in A. Within a
// sector depth is linear in t, so the integral from one spoke to the next is inside_share(). A cut that rounding
// misplaces changes the integral by no more than it was misplaced, which gives the bound.
#pragma once

#include <algorithm>
#include <vector>

#include "common/simd.h"
#include "ops/polygon_iou/star_sweep.h"

namespace polarmask::polygon_iou {

// What a sweep finds.
struct Swept {
  double shared;  // twice the area of A ∩ B, times B's winding number there
  double area;    // twice B's signed area
  double border;  // Σ |x| + |y| over B's edges
  double error;   // bounds that of `shared` and `area`, and that of star_sweep()
};

class LaneSweep {
 public:
  LaneSweep(int64_t max_spokes, int64_t max_vertices)
      : slots_(max_spokes + kMaxLanes),
        sectors_(2 * max_spokes + 1),
        table_(kSlotsPerSpoke * max_spokes + 2 + kFill),
        x_(max_vertices + 2 * kMaxLanes),
        y_(max_vertices + 2 * kMaxLanes),
        slot_(max_vertices + 2 * kMaxLanes),
        low_(max_vertices + 2 * kMaxLanes),
        high_(max_vertices + 2 * kMaxLanes) {}

  // Returns false if `star` cannot be A: that needs a positive area and spokes that wind once, counter-clockwise.
  template <int bytes>
  bool start(const Star& star) {
    num_spokes_ = star.num_rays;
    num_slots_ = kSlotsPerSpoke * num_spokes_;
    const int64_t lowest = find_slots<bytes>(star);
    if (lowest < 0) return false;
    fill_table(lowest);
    fill_sectors(star, lowest);
    return area_ > 0;
  }

  // Of B with the vertices vertex(0), …, vertex(count - 1) relative to A's centre. False where an edge passes so near
  // to the centre that its ends are on opposite sides of it.
  template <int bytes, class Vertex>
  bool sweep(int64_t count, const Vertex& vertex, Swept& swept) {
    for (int64_t j = 0; j < count; ++j) {
      const Vec2<double> p = vertex(j);
      x_[j] = p.x, y_[j] = p.y;
    }
    for (int64_t j = count; j < count + 2 * kMaxLanes; ++j) x_[j] = x_[0], y_[j] = y_[0];
    find_sectors<bytes>(count);
    return add_edges<bytes>(count, swept);
  }

  // Of A: twice its area, and Σ |x| + |y| over its edges.
  double area() const { return area_; }
  double border() const { return border_; }

 private:
  static constexpr int64_t kMaxLanes = 4;
  static constexpr int64_t kSlotsPerSpoke = 16;  // few have a spoke in them
  static constexpr int64_t kFill = 32;

  // Shapes outside this range are left to the exact algorithm, so no product here overflows or underflows.
  static constexpr double kSmallest = 1e-60, kLargest = 1e60;
  // The depth of points in a sector without area, relative to A's size: always outside A.
  static constexpr double kDeep = 1e30;
  // Keeps 0 / 0 out of the division for edges of zero length.
  static constexpr double kTiny = 1e-200;

  // The error, doubled. With u = 2^-53, `size` for the longest vector from o and `steepest` for how fast a depth grows,
  // - a cut is misplaced by up to 2^-48 size² / turn along its edge, and the next one may share that;
  // - a depth has an error of 20 u size steepest where it is 1, a share three times as much, of Σ |turn| < edges size²;
  // - a sum over all pieces loses up to pieces u Σ |turn|;
  // - star_sweep() does no better: no piece of it is off by more than its edge's turn.
  // All that is less than 2^-46 pieces (pieces + size steepest) size².
  static constexpr double kRounding = 1.0 / (int64_t{1} << 45);

  struct Sector {
    double depth_x, depth_y;  // the depth of a point is its dot product with this
    double x, y;              // the spoke that ends it
  };

  static double length_of(Vec2<double> v) { return absolute(v.x) + absolute(v.y); }

  template <class V>
  [[gnu::always_inline]] static auto largest(const V& v) {
    if constexpr (sizeof v / sizeof v[0] == 4) return max_of(max_of(v[0], v[1]), max_of(v[2], v[3]));
    return max_of(v[0], v[1]);
  }
  template <class V>
  [[gnu::always_inline]] static auto sum(const V& v) {
    if constexpr (sizeof v / sizeof v[0] == 4) return (v[0] + v[1]) + (v[2] + v[3]);
    return v[0] + v[1];
  }

  template <class Numbers, class Indices>
  [[gnu::always_inline]] void load_sectors(Indices k, Numbers& depth_x, Numbers& depth_y, Numbers& x,
                                           Numbers& y) const {
    const auto at = [&](int lane) { return &sectors_[static_cast<uint32_t>(k[lane])]; };
    if constexpr (sizeof(Numbers) == 32) {
      const auto a = load<Numbers>(at(0)), b = load<Numbers>(at(1)), c = load<Numbers>(at(2)), d = load<Numbers>(at(3));
      const auto ab_x = __builtin_shufflevector(a, b, 0, 4, 2, 6), ab_y = __builtin_shufflevector(a, b, 1, 5, 3, 7);
      const auto cd_x = __builtin_shufflevector(c, d, 0, 4, 2, 6), cd_y = __builtin_shufflevector(c, d, 1, 5, 3, 7);
      depth_x = __builtin_shufflevector(ab_x, cd_x, 0, 1, 4, 5), x = __builtin_shufflevector(ab_x, cd_x, 2, 3, 6, 7);
      depth_y = __builtin_shufflevector(ab_y, cd_y, 0, 1, 4, 5), y = __builtin_shufflevector(ab_y, cd_y, 2, 3, 6, 7);
    } else {
      depth_x = gather<Numbers>([&](int lane) { return at(lane)->depth_x; });
      depth_y = gather<Numbers>([&](int lane) { return at(lane)->depth_y; });
      x = gather<Numbers>([&](int lane) { return at(lane)->x; });
      y = gather<Numbers>([&](int lane) { return at(lane)->y; });
    }
  }

  // A measure that grows with the angle, from 0 to num_slots_; half a turn is half of them. 0 for the point 0.
  template <class V>
  [[gnu::always_inline]] void slots_of(const V& x, const V& y, const V& length, V& slots) const {
    const V part = y / (length + kTiny);
    slots = (x < 0 ? 2 - part : y < 0 ? 4 + part : part) * (0.25 * static_cast<double>(num_slots_));
  }

  // Returns the spoke with the lowest slot, or -1 where the spokes do not wind once, counter-clockwise.
  template <int bytes>
  int64_t find_slots(const Star& star) {
    using Numbers = Lanes<double, bytes>;
    constexpr int64_t kLanes = bytes / 8;
    for (int64_t k = 0; k < num_spokes_; k += kLanes) {
      const auto spoke = [&](int64_t lane) { return star.spokes[min_of(k + lane, num_spokes_)]; };
      const auto x = gather<Numbers>([&](int lane) { return spoke(lane).x; });
      const auto y = gather<Numbers>([&](int lane) { return spoke(lane).y; });
      Numbers slots;
      slots_of(x, y, magnitude_of(x) + magnitude_of(y), slots);
      store(&slots_[k], slots);
    }
    int64_t lowest = 0, turns = 0;
    bool left = num_spokes_ > 2;
    double last = left ? slots_[num_spokes_ - 1] : 0;
    for (int64_t k = 0; k < num_spokes_; ++k) {
      const bool around = !(slots_[k] > last);
      turns += around, lowest = around ? k : lowest;
      left &= star.sectors[k] >= 0;
      last = slots_[k];
    }
    return left && turns == 1 ? lowest : -1;
  }

  // For the start of each slot, how many spokes are not behind it.
  void fill_table(int64_t lowest) {
    int64_t slot = 0;
    for (int64_t n = 0, k = lowest; n <= num_spokes_; ++n, k = next_of(k, num_spokes_)) {
      const double end = n < num_spokes_ ? slots_[k] : static_cast<double>(num_slots_) + 1.5;
      const auto whole = static_cast<int64_t>(end);
      const int64_t next = whole + (static_cast<double>(whole) < end);
      for (; slot < next; slot += kFill)
        for (int64_t i = 0; i < kFill; ++i) table_[slot + i] = static_cast<double>(n);
      slot = next;
    }
  }

  // The first one is that before the lowest spoke.
  void fill_sectors(const Star& star, int64_t lowest) {
    size_ = 0, steepest_ = 0, area_ = 0, border_ = 0;
    bool any_empty = false;
    int64_t k = lowest > 0 ? lowest - 1 : num_spokes_ - 1;
    for (int64_t n = 0; n < num_spokes_; ++n, k = next_of(k, num_spokes_)) {
      const Vec2<double> a = star.spokes[k], b = star.spokes[k + 1];
      const double sector = star.sectors[k], scale = sector > 0 ? 1 / sector : 0;
      const double longest = sector > 0 ? max_of(length_of(a), length_of(b)) : 0;
      sectors_[n] = {(b.y - a.y) * scale, (a.x - b.x) * scale, b.x, b.y};
      size_ = max_of(size_, longest), steepest_ = max_of(steepest_, longest * scale);
      area_ += sector, border_ += length_of(b - a);
      any_empty |= sector == 0;
    }
    for (int64_t n = 0; any_empty && n < num_spokes_; ++n, k = next_of(k, num_spokes_)) {
      if (star.sectors[k] > 0) continue;
      const Vec2<double> a = star.spokes[k], b = star.spokes[k + 1];
      const double of_a = kDeep / (size_ * length_of(a)), of_b = kDeep / (size_ * length_of(b));
      sectors_[n].depth_x = a.x * of_a + b.x * of_b, sectors_[n].depth_y = a.y * of_a + b.y * of_b;
    }
    std::copy_n(sectors_.begin(), num_spokes_, sectors_.begin() + num_spokes_);
    sectors_[2 * num_spokes_] = sectors_[0];
  }

  template <int bytes>
  void find_sectors(int64_t count) {
    using Numbers = Lanes<double, bytes>;
    constexpr int64_t kLanes = bytes / 8;
    Numbers reach{};
    for (int64_t j = 0; j < count; j += kLanes) {
      const auto x = load<Numbers>(&x_[j]), y = load<Numbers>(&y_[j]);
      const Numbers length = magnitude_of(x) + magnitude_of(y);
      reach = larger_of(reach, length);
      Numbers slots;
      slots_of(x, y, length, slots);
      const auto whole = __builtin_convertvector(slots, Lanes<int32_t, bytes / 2>);
      store(&slot_[j], __builtin_convertvector(whole, Numbers));
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const double* const found = &table_[static_cast<uint32_t>(whole[lane])];
        low_[j + lane] = found[0], high_[j + lane] = found[1];
      }
    }
    for (int64_t j = count; j < count + kLanes; ++j) slot_[j] = slot_[0], low_[j] = low_[0], high_[j] = high_[0];
    reach_ = largest(reach);
  }

  template <int bytes>
  bool add_edges(int64_t count, Swept& swept) const {
    using Numbers = Lanes<double, bytes>;
    constexpr int64_t kLanes = bytes / 8;
    const Numbers zero{}, one = zero + 1;
    const auto num_spokes = static_cast<double>(num_spokes_), num_slots = static_cast<double>(num_slots_);
    Numbers shared{}, area{}, border{}, widest{};
    int64_t pieces = 0;
    for (int64_t j = 0; j < count; j += kLanes) {
      const auto of = [&](const std::vector<double>& column, int64_t n) { return load<Numbers>(&column[j + n]); };
      const Numbers px = of(x_, 0), py = of(y_, 0), qx = of(x_, 1), qy = of(y_, 1);
      const Numbers turn = px * qy - py * qx;
      const auto right = turn < 0;
      const Numbers ax = right ? qx : px, ay = right ? qy : py;
      const Numbers along_x = (right ? px : qx) - ax, along_y = (right ? py : qy) - ay;
      area += turn;
      border += magnitude_of(along_x) + magnitude_of(along_y);
      const Numbers ahead = of(slot_, 1) - of(slot_, 0), width = right ? -ahead : ahead;
      const auto around = width < 0;
      widest = larger_of(widest, around ? width + num_slots : width);
      Numbers k = right ? of(low_, 1) : of(low_, 0);
      const Numbers end = right ? of(high_, 0) : of(high_, 1), last = around ? end + num_spokes : end;
      const auto most = static_cast<int32_t>(largest(last - k));
      pieces += most + 1;

      Numbers share{}, t{}, x = ax, y = ay;
      for (int32_t n = 0; n <= most; ++n) {
        Numbers depth_x, depth_y, spoke_x, spoke_y;
        load_sectors(__builtin_convertvector(k, Lanes<int32_t, bytes / 2>), depth_x, depth_y, spoke_x, spoke_y);
        // A spoke that is not between a and b must not cut the edge.
        const Numbers behind = spoke_y * ax - spoke_x * ay, across = spoke_x * along_y - spoke_y * along_x;
        Numbers next = larger_of(behind, zero) / across;
        next = next > t ? next : t;
        next = across < behind ? one : next;
        const Numbers next_x = ax + next * along_x, next_y = ay + next * along_y;
        const Numbers depth_0 = depth_x * x + depth_y * y, depth_1 = depth_x * next_x + depth_y * next_y;
        // The same as inside_share(), without a case.
        const Numbers beyond_0 = larger_of(depth_0, one), beyond_1 = larger_of(depth_1, one);
        const Numbers inside = smaller_of(depth_1, one) - smaller_of(depth_0, one);
        const Numbers outside = beyond_1 - beyond_0 + kTiny, product = beyond_0 * beyond_1;
        share += (next - t) * ((inside * product + outside) / ((inside + outside) * product));
        t = next, x = next_x, y = next_y, k = smaller_of(k + 1, last);
      }
      shared += turn * share;
    }
    const double size = max_of(size_, reach_), many = static_cast<double>(kLanes * pieces);
    swept = {sum(shared), sum(area), sum(border), kRounding * many * (many + size * steepest_) * size * size};
    return largest(widest) < num_slots / 2 - 1 && size > kSmallest && size < kLargest;
  }

  // A's
  int64_t num_spokes_ = 0, num_slots_ = 0;
  double size_ = 0;      // the longest spoke
  double steepest_ = 0;  // no depth grows faster
  double area_ = 0, border_ = 0;
  std::vector<double> slots_;    // of the spokes
  std::vector<Sector> sectors_;  // twice around
  std::vector<double> table_;    // whole numbers
  // B's, the first ones again at the end
  double reach_ = 0;
  std::vector<double> x_, y_, slot_, low_, high_;
};

enum class Answer { kNo, kYes, kInDoubt };

// What exceeds() says of all sizes within `error` of these, where it says the same of all.
inline Answer answer(const Overlap& o, double error, Metric metric, double threshold) {
  const double least = min_of(o.area_a, o.area_b) - error;
  if (!(least > 0) || !is_finite(o.inter)) return Answer::kInDoubt;
  if (!exceeds({o.inter + error, o.area_a - error, o.area_b - error}, metric, threshold)) return Answer::kNo;
  const bool all = exceeds({min_of(o.inter - error, least), o.area_a + error, o.area_b + error}, metric, threshold);
  return all ? Answer::kYes : Answer::kInDoubt;
}

}  // namespace polarmask::polygon_iou
