// Which shapes' boxes overlap, without looking at all pairs: near-linear in their number, and no memory for pairs.
//
// Shapes are grouped by class and size (powers of two). A group of side s is cut into horizontal strips of height s,
// each sorted by x; no shape of the group is wider or taller than s. So what overlaps a box starts in one of the strips
// that the box meets or in the one before, between s to the left of the box and its right side. Small next to huge
// shapes cost nothing: every group has its own strips, and only strips that hold a shape exist.
#pragma once

#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "shapes.h"

namespace polarmask {

class Neighbours {
 public:
  // shapes: by rank, the best first. classes: by rank, or null for one class. Empty shapes have no neighbours.
  Neighbours(const std::vector<Shape>& shapes, const int64_t* classes) : shapes_(shapes), classes_(classes) {
    for (int64_t rank = 0; rank < std::ssize(shapes); ++rank) {
      const Bounds& box = shapes[rank].box;
      if (!(shapes[rank].area > 0)) continue;
      int exponent;
      std::frexp(std::max(box.x1 - box.x0, box.y1 - box.y0), &exponent);  // the extent is below 2^exponent
      entries_.push_back({class_of(rank), exponent, strip_of(box.y0, exponent), box, rank});
    }
    const auto key = [](const Entry& entry) { return std::tie(entry.group, entry.exponent, entry.strip); };
    std::sort(entries_.begin(), entries_.end(), [&](const Entry& a, const Entry& b) {
      return std::tuple_cat(key(a), std::tie(a.box.x0, a.rank)) < std::tuple_cat(key(b), std::tie(b.box.x0, b.rank));
    });
    for (auto begin = entries_.cbegin(), end = begin; begin != entries_.cend(); begin = end) {
      end = std::find_if(begin, entries_.cend(), [&](const Entry& entry) { return key(entry) != key(*begin); });
      if (groups_.empty() || groups_.back().value != begin->group || groups_.back().exponent != begin->exponent)
        groups_.push_back({begin->group, begin->exponent, std::ssize(strips_), std::ssize(strips_)});
      strips_.push_back({begin->strip, begin, end});
      ++groups_.back().end;
    }
  }

  // Calls visit(other) for every shape of the same class and a lower rank (a higher number) up to `last` whose box
  // overlaps that of `rank`.
  template <class Visit>
  void each(int64_t rank, int64_t last, const Visit& visit) const {
    const Bounds& box = shapes_[rank].box;
    if (!(shapes_[rank].area > 0)) return;
    const int64_t own = class_of(rank);
    auto group = std::partition_point(groups_.begin(), groups_.end(), [&](const Group& g) { return g.value < own; });
    for (; group != groups_.end() && group->value == own; ++group) {
      const double side = std::ldexp(1.0, group->exponent), left = box.x0 - side;
      const double first_y = strip_of(box.y0 - side, group->exponent), last_y = strip_of(box.y1, group->exponent);
      const auto strips_end = strips_.begin() + group->end;
      auto strip = std::partition_point(strips_.begin() + group->begin, strips_end,
                                        [&](const Strip& s) { return s.y < first_y; });
      for (; strip != strips_end && strip->y <= last_y; ++strip) {
        auto entry = std::partition_point(strip->begin, strip->end, [&](const Entry& e) { return e.box.x0 < left; });
        for (; entry != strip->end && entry->box.x0 < box.x1; ++entry)
          if (entry->rank > rank && entry->rank <= last && boxes_overlap(entry->box, box)) visit(entry->rank);
      }
    }
  }

 private:
  struct Entry {
    int64_t group;  // class
    int exponent;
    double strip;
    Bounds box;
    int64_t rank;
  };
  struct Strip {
    double y;  // in its height
    std::vector<Entry>::const_iterator begin, end;
  };
  struct Group {
    int64_t value;       // class
    int exponent;        // 2^exponent is the height of the strips: no shape is larger
    int64_t begin, end;  // strips
  };

  int64_t class_of(int64_t rank) const { return classes_ ? classes_[rank] : 0; }

  static double strip_of(double y, int exponent) { return std::floor(std::ldexp(y, -exponent)); }

  const std::vector<Shape>& shapes_;
  const int64_t* classes_;
  std::vector<Entry> entries_;
  std::vector<Strip> strips_;
  std::vector<Group> groups_;
};

}  // namespace polarmask
