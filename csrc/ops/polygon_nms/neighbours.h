// Finds the shapes whose boxes overlap a given one. Time is near-linear in the number of shapes, and no pair is stored.
//
// Shapes are grouped by class and size (powers of two). A group of side s is cut into horizontal strips of height s,
// each sorted by x; no shape of the group is wider or taller than s. A shape that overlaps a box is therefore in one of
// the strips that the box meets or in the one before, and starts between s to the left of the box and its right side.
// Every group has strips of its own, and only those that hold a shape, so small shapes next to huge ones cost nothing.
//
// Replaces: a comparison of all pairs of boxes. Saves: 1.4 times for 300 boxes, 3.2 for 1,000, 9 for 5,000.
#pragma once

#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "ops/polygon_iou/cpu/box_columns.h"
#include "ops/polygon_iou/order_free.h"
#include "ops/polygon_nms/polygon_nms.h"

namespace polarmask::polygon_nms {

class Neighbours {
 public:
  // shapes: by rank, the best first, fewer than 2^31. classes: by rank, or null for one class. Empty shapes have no
  // neighbours.
  Neighbours(const std::vector<Shape>& shapes, const int64_t* classes) : shapes_(shapes), classes_(classes) {
    std::vector<Entry> entries;
    entries.reserve(shapes.size());
    for (int64_t rank = 0; rank < std::ssize(shapes); ++rank) {
      const Box<double>& box = shapes[rank].box;
      if (!(shapes[rank].area > 0)) continue;
      const int exponent = exponent_of(std::max(box.x1 - box.x0, box.y1 - box.y0));  // the extent is below 2^exponent
      entries.push_back({class_of(rank), exponent, strip_of(box.y0, exponent), box.x0, static_cast<int32_t>(rank)});
    }
    std::sort(entries.begin(), entries.end());
    boxes_.resize(std::ssize(entries));
    ranks_.resize(entries.size() + BoxColumns::kLanes);
    for (int64_t n = 0; n < std::ssize(entries); ++n) {
      const Entry& entry = entries[n];
      boxes_.set(n, outer_box(shapes[entry.rank].box));
      ranks_[n] = entry.rank;
      const bool same_group = n > 0 && entry.group == entries[n - 1].group && entry.exponent == entries[n - 1].exponent;
      if (!same_group) groups_.push_back({entry.group, entry.exponent, std::ssize(strips_), std::ssize(strips_)});
      if (!same_group || entry.strip != entries[n - 1].strip) {
        strips_.push_back({entry.strip, n, n});
        ++groups_.back().end;
      }
      ++strips_.back().end;
    }
  }

  // Calls visit(other) for every shape of the same class and a rank from `first` to `last` whose box overlaps that of
  // `rank`.
  template <class Visit>
  void each(int64_t rank, int64_t first, int64_t last, const Visit& visit) const {
    const Box<double>& box = shapes_[rank].box;
    if (!(shapes_[rank].area > 0)) return;
    const Box<float> outer = outer_box(box);
    const int64_t own = class_of(rank);
    auto group = std::partition_point(groups_.begin(), groups_.end(), [&](const Group& g) { return g.value < own; });
    for (; group != groups_.end() && group->value == own; ++group) {
      const double side = power_of_two(group->exponent);
      const float left = round_down(box.x0 - side);
      const double last_y = strip_of(box.y1, group->exponent);
      for (int64_t s = first_strip(*group, strip_of(box.y0 - side, group->exponent));
           s < group->end && strips_[s].y <= last_y; ++s) {
        const int64_t end = strips_[s].end;
        const float* const x0 = boxes_.x0();
        int64_t n = std::lower_bound(x0 + strips_[s].begin, x0 + end, left) - x0;
        for (; n < end && x0[n] <= outer.x1; n += BoxColumns::kLanes) {
          BoxColumns::Mask mask;
          boxes_.touching(n, outer, mask);
          const auto ranks = load<BoxColumns::Mask>(&ranks_[n]);
          mask &= (ranks >= static_cast<int32_t>(first)) & (ranks <= static_cast<int32_t>(last));
          BoxColumns::each_lane(mask, end - n, [&](int lane) {
            const int64_t other = ranks_[n + lane];
            if (boxes_overlap(shapes_[other].box, box)) visit(other);
          });
        }
      }
    }
  }

 private:
  struct Entry {
    int64_t group;  // class
    int exponent;
    double strip, x0;
    int32_t rank;

    auto key() const { return std::tie(group, exponent, strip, x0, rank); }
    bool operator<(const Entry& other) const { return key() < other.key(); }
  };
  struct Strip {
    double y;            // in its height
    int64_t begin, end;  // boxes
  };
  struct Group {
    int64_t value;       // class
    int exponent;        // 2^exponent is the height of the strips: no shape is larger
    int64_t begin, end;  // strips
  };

  int64_t class_of(int64_t rank) const { return classes_ ? classes_[rank] : 0; }

  static double strip_of(double y, int exponent) { return std::floor(y * power_of_two(-exponent)); }

  // The first strip of a group at or above y. Where strips have no gaps, it is the one at its place.
  int64_t first_strip(const Group& group, double y) const {
    const double place = y - strips_[group.begin].y;
    if (place <= 0) return group.begin;
    if (place < static_cast<double>(group.end - group.begin)) {
      const int64_t guess = group.begin + static_cast<int64_t>(place);
      if (strips_[guess].y == y) return guess;
    }
    const auto begin = strips_.begin() + group.begin, end = strips_.begin() + group.end;
    return std::partition_point(begin, end, [&](const Strip& strip) { return strip.y < y; }) - strips_.begin();
  }

  const std::vector<Shape>& shapes_;
  const int64_t* classes_;
  BoxColumns boxes_;
  std::vector<int32_t> ranks_;  // of the boxes
  std::vector<Strip> strips_;
  std::vector<Group> groups_;
};

}  // namespace polarmask::polygon_nms
