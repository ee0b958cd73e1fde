// Which shapes' boxes overlap, without looking at all pairs: near-linear in their number, and no memory for pairs.
//
// Shapes are grouped by class and size (powers of two). A group of side s is cut into horizontal strips of height s,
// each sorted by x; no shape of the group is wider or taller than s. So what overlaps a box starts in one of the strips
// that the box meets or in the one before, between s to the left of the box and its right side. Small next to huge
// shapes cost nothing: every group has its own strips, and only strips that hold a shape are ever visited.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "shapes.h"

namespace polarmask {

class Neighbours {
 public:
  // shapes: by rank, the best first. classes: by rank, or null for one class. Empty shapes have no neighbours.
  Neighbours(const std::vector<Shape>& shapes, const int64_t* classes) : shapes_(shapes), classes_(classes) {
    for (int64_t rank = 0; rank < std::ssize(shapes); ++rank) {
      const Box& box = shapes[rank].box;
      if (!(shapes[rank].area > 0)) continue;
      int exponent;
      std::frexp(std::max(box.x1 - box.x0, box.y1 - box.y0), &exponent);  // the extent is below 2^exponent
      entries_.push_back({class_of(rank), exponent, strip_of(box.y0, exponent), box, rank});
    }
    std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
      return std::tie(a.group, a.exponent, a.strip, a.box.x0, a.rank) <
             std::tie(b.group, b.exponent, b.strip, b.box.x0, b.rank);
    });
    for (auto begin = entries_.cbegin(); begin != entries_.cend();) {
      const auto end = std::find_if(begin, entries_.cend(), [&](const Entry& entry) {
        return entry.group != begin->group || entry.exponent != begin->exponent;
      });
      groups_.push_back({begin->group, std::ldexp(1.0, begin->exponent), begin->exponent, begin, end});
      begin = end;
    }
  }

  // Calls visit(other) for every shape of the same class and a lower rank (a higher number) up to `last` whose box
  // overlaps that of `rank`.
  template <class Visit>
  void each(int64_t rank, int64_t last, const Visit& visit) const {
    const Box& box = shapes_[rank].box;
    if (!(shapes_[rank].area > 0)) return;
    const int64_t own = class_of(rank);
    auto group = std::lower_bound(groups_.begin(), groups_.end(), own,
                                  [](const Group& g, int64_t value) { return g.value < value; });
    for (; group != groups_.end() && group->value == own; ++group) {
      const double left = box.x0 - group->side, last_strip = strip_of(box.y1, group->exponent);
      auto entry = seek(group->begin, group->end, strip_of(box.y0 - group->side, group->exponent), left);
      while (entry != group->end && entry->strip <= last_strip) {
        if (entry->box.x0 < left) {
          entry = seek(entry, group->end, entry->strip, left);
        } else if (entry->box.x0 >= box.x1) {
          entry = seek(entry, group->end, entry->strip, std::numeric_limits<double>::infinity());
        } else {
          if (entry->rank > rank && entry->rank <= last && boxes_overlap(entry->box, box)) visit(entry->rank);
          ++entry;
        }
      }
    }
  }

 private:
  struct Entry {
    int64_t group;  // class
    int exponent;   // of the group's side
    double strip;
    Box box;
    int64_t rank;
  };
  using Iterator = std::vector<Entry>::const_iterator;
  struct Group {
    int64_t value;  // class
    double side;    // 2^exponent: no shape is larger
    int exponent;
    Iterator begin, end;
  };

  int64_t class_of(int64_t rank) const { return classes_ ? classes_[rank] : 0; }

  static double strip_of(double y, int exponent) { return std::floor(std::ldexp(y, -exponent)); }

  // The first entry at or after (strip, x).
  static Iterator seek(Iterator begin, Iterator end, double strip, double x) {
    return std::partition_point(begin, end, [&](const Entry& entry) {
      return entry.strip < strip || (entry.strip == strip && entry.box.x0 < x);
    });
  }

  const std::vector<Shape>& shapes_;
  const int64_t* classes_;
  std::vector<Entry> entries_;
  std::vector<Group> groups_;
};

}  // namespace polarmask
