// Overlaps of one shape with others on the CPU, and whether they exceed a threshold: Query<Polygons<T>> and
// Query<Stars<T>>. A query owns the memory that this takes.
//
// Replaces: the order-free sum over all pairs of edges, as the CUDA kernels do it. EdgeBoxes finds the pairs of edges
// whose boxes touch, for a run of eight edges first and then for each of them.
// Falls back: never; the sums have the order of the kernels, and the same bits.
// Saves: 11 times for polygons of 36 vertices, 18 times for 72.
#pragma once

#include <optional>
#include <vector>

#include "ops/polygon_iou/cpu/box_columns.h"
#include "ops/polygon_iou/cpu/lane_sweep.h"
#include "ops/polygon_iou/polygons_and_stars.h"

namespace polarmask::polygon_iou {

// A polygon on the grid of a pair. Coordinates lie apart from each other, for the sake of vector instructions.
class SnappedRing {
 public:
  explicit SnappedRing(int64_t count) : count_(count), x_(count + 1), y_(count + 1) {}

  template <class Vertex>
  void snap(const SnapGrid& grid, const Vertex& vertex) {
    for (int64_t j = 0; j < count_; ++j) {
      const Vec2<float> v = polygon_iou::snap(grid, vertex(j));
      x_[j] = v.x, y_[j] = v.y;
    }
    x_[count_] = x_[0], y_[count_] = y_[0];
  }

  int64_t count() const { return count_; }
  Vec2<double> operator()(int64_t j) const { return {x_[j], y_[j]}; }  // the first one again at the end

  Box<float> edge_box(int64_t j) const {
    return box_around(Vec2<float>{x_[j], y_[j]}, Vec2<float>{x_[j + 1], y_[j + 1]});
  }

  double doubled_area() const {
    double part[kParts];
    for (int n = 0; n < kParts; ++n) {
      part[n] = 0;
      const Interval edges = edges_of_part(count_, n);
      for (int64_t j = edges.begin; j < edges.end; ++j) part[n] += cross((*this)(j), (*this)(j + 1));
    }
    return sum_of_parts(part);
  }

 private:
  int64_t count_;
  std::vector<float> x_, y_;
};

// Which edges of a polygon come near one of another: boxes of the edges, and of eight edges that follow each other.
class EdgeBoxes {
 public:
  explicit EdgeBoxes(int64_t count) {
    edges_.resize(count);
    runs_.resize(ceil_div(count, BoxColumns::kLanes));
  }

  void build(const SnappedRing& ring) {
    for (int64_t j = 0; j < ring.count(); ++j) edges_.set(j, ring.edge_box(j));
    for (int64_t run = 0; run * BoxColumns::kLanes < ring.count(); ++run) {
      Box<float> box = edges_.at(run * BoxColumns::kLanes);
      for (int64_t j = 1; j < BoxColumns::kLanes; ++j) box = join(box, edges_.at(run * BoxColumns::kLanes + j));
      runs_.set(run, box);
    }
    count_ = ring.count();
  }

  // Calls visit(j) for the edges whose box touches this one, in their order.
  template <class Visit>
  void each(const Box<float>& box, const Visit& visit) const {
    constexpr int64_t kLanes = BoxColumns::kLanes;
    for (int64_t run = 0; run * kLanes < count_; run += kLanes) {
      BoxColumns::Mask near;
      runs_.touching(run, box, near);
      BoxColumns::each_lane(near, kLanes, [&](int64_t of_run) {
        const int64_t first = (run + of_run) * kLanes;
        BoxColumns::Mask mask;
        edges_.touching(first, box, mask);
        BoxColumns::each_lane(mask, kLanes, [&](int64_t lane) { visit(first + lane); });
      });
    }
  }

 private:
  BoxColumns edges_, runs_;
  int64_t count_ = 0;
};

// A polygon as a star about its centroid.
class PolygonStar {
 public:
  explicit PolygonStar(int64_t count) : spokes_(count + 1), sectors_(count) {}

  // Whether all its spokes turn left; LaneSweep sees whether they do so once around.
  template <class Vertex>
  bool make(int64_t count, const Vertex& vertex) {
    const Vec2<double> anchor = vertex(0);
    double area = 0;
    Vec2<double> moment{0, 0}, p{0, 0};
    for (int64_t j = 1; j < count; ++j) {
      const Vec2<double> q = vertex(j) - anchor;
      const double turn = cross(p, q);
      area += turn, moment.x += turn * (p.x + q.x), moment.y += turn * (p.y + q.y);
      p = q;
    }
    centre_ = {anchor.x + moment.x / (3 * area), anchor.y + moment.y / (3 * area)};
    num_spokes_ = 0;
    for (int64_t j = 0; j < count; ++j) {
      const Vec2<double> spoke = vertex(area < 0 ? count - 1 - j : j) - centre_;
      // Short rings are filled up with copies of a vertex.
      if (num_spokes_ == 0 || !is_same(spoke, spokes_[num_spokes_ - 1])) spokes_[num_spokes_++] = spoke;
    }
    if (num_spokes_ > 1 && is_same(spokes_[0], spokes_[num_spokes_ - 1])) --num_spokes_;
    spokes_[num_spokes_] = spokes_[0];
    bool turns_left = true;
    for (int64_t k = 0; k < num_spokes_; ++k) {
      sectors_[k] = cross(spokes_[k], spokes_[k + 1]);
      turns_left &= sectors_[k] > 0;
    }
    return turns_left;
  }

  Star star() const { return {spokes_.data(), sectors_.data(), num_spokes_}; }
  Vec2<double> centre() const { return centre_; }

 private:
  static bool is_same(Vec2<double> a, Vec2<double> b) { return a.x == b.x && a.y == b.y; }

  std::vector<Vec2<double>> spokes_;
  std::vector<double> sectors_;
  int64_t num_spokes_ = 0;
  Vec2<double> centre_{};
};

template <class Geometry>
class Query;

// Whether LaneSweep has taken the query's shape.
enum class Fast { kUnknown, kYes, kNo };

// Of two polygons together. With more, the pair's grid alone leaves over a hundredth of their box in doubt.
constexpr int64_t kMostEdges = int64_t{1} << 14;

template <class T>
class Query<Polygons<T>> {
 public:
  Query(const Polygons<T>& a, const Polygons<T>& b)
      : from_a_(a),
        from_b_(b),
        a_(a.num_vertices),
        b_(b.num_vertices),
        boxes_of_b_(b.num_vertices),
        share_(b.num_vertices),
        step_(b.num_vertices) {}

  void start(int64_t i, const Shape& shape) { i_ = i, shape_ = shape, fast_ = Fast::kUnknown; }

  Overlap operator()(int64_t j, const Shape& other) {
    const SnapGrid grid = make_grid(shape_.box, other.box);
    a_.snap(grid, from_a_.ring(i_));
    b_.snap(grid, from_b_.ring(j));
    boxes_of_b_.build(b_);
    return finish_order_free(sum(), a_.doubled_area(), b_.doubled_area());
  }

  // The same as exceeds() of the overlap, in less time where A is a star about its centroid.
  template <int bytes>
  bool exceeds(int64_t j, const Shape& other, Metric metric, double threshold) {
    const Answer fast = answer<bytes>(j, other, metric, threshold);
    if (fast != Answer::kInDoubt) return fast == Answer::kYes;
    return polygon_iou::exceeds((*this)(j, other), metric, threshold);
  }

 private:
  template <int bytes>
  Answer answer(int64_t j, const Shape& other, Metric metric, double threshold) {
    if (fast_ == Fast::kUnknown) fast_ = start_lanes<bytes>() ? Fast::kYes : Fast::kNo;
    if (fast_ == Fast::kNo) return Answer::kInDoubt;
    const auto ring = from_b_.ring(j);
    const Vec2<double> centre = star_->centre();
    Swept swept;
    if (!lanes_->template sweep<bytes>(b_.count(), [&](int64_t n) { return ring(n) - centre; }, swept))
      return Answer::kInDoubt;
    // Both add up A's area times B's winding number, which has the sign of B's area where it counts. The grid moves
    // both coordinates of a vertex by half a step, so an edge sweeps over less than a step times its |x| + |y| and a
    // step. What A's edges sweep over counts as often as B winds around it: less than half as often as B has edges.
    // Rounding of the order-free sum is below n³ / 8 steps², for n edges in all.
    const double step = 1 / make_grid(shape_.box, other.box).scale, n = static_cast<double>(a_.count() + b_.count());
    const double error = swept.error + n * step * (lanes_->border() + swept.border + n * n * step);
    const Overlap about{swept.area < 0 ? -swept.shared : swept.shared, lanes_->area(), absolute(swept.area)};
    return polygon_iou::answer(about, error, metric, threshold);
  }

  // Overlaps alone need neither.
  template <int bytes>
  bool start_lanes() {
    if (a_.count() + b_.count() > kMostEdges) return false;
    if (!lanes_) star_.emplace(a_.count()), lanes_.emplace(a_.count(), b_.count());
    return star_->make(a_.count(), from_a_.ring(i_)) && lanes_->template start<bytes>(star_->star());
  }

  double sum() {
    double parts[kParts];
    std::fill(share_.begin(), share_.end(), 0.0);
    std::fill(step_.begin(), step_.end(), 0.0);
    double inside = winding<1>(a_(0), b_.count(), b_);
    for (int part = 0; part < kParts; ++part) {
      parts[part] = 0;
      const Interval edges = edges_of_part(a_.count(), part);
      for (int64_t i = edges.begin; i < edges.end; ++i) {
        const Vec2<double> p = a_(i), q = a_(i + 1);
        double share = 0, step = 0;
        boxes_of_b_.each(a_.edge_box(i), [&](int64_t j) {
          const Crossing found = cross_edges(p, q, b_(j), b_(j + 1));
          if (found.sign == 0) return;
          share += found.share_of_a();
          step += found.sign;
          share_[j] += found.share_of_b();
          step_[j] -= found.sign;
        });
        parts[part] += cross(p, q) * (inside + share);
        inside += step;
      }
    }
    inside = winding<-1>(b_(0), a_.count(), a_);
    for (int part = 0; part < kParts; ++part) {
      const Interval edges = edges_of_part(b_.count(), part);
      for (int64_t j = edges.begin; j < edges.end; ++j) {
        parts[part] += cross(b_(j), b_(j + 1)) * (inside + share_[j]);
        inside += step_[j];
      }
    }
    return sum_of_parts(parts);
  }

  const Polygons<T>&from_a_, &from_b_;
  SnappedRing a_, b_;
  EdgeBoxes boxes_of_b_;
  std::vector<double> share_, step_;  // of B's edges: the share of crossings, and their sum
  std::optional<PolygonStar> star_;
  std::optional<LaneSweep> lanes_;  // has star_ of A where fast_ says so
  int64_t i_ = 0;
  Shape shape_{};
  Fast fast_ = Fast::kUnknown;
};

template <class T>
class Query<Stars<T>> {
 public:
  Query(const Stars<T>& a, const Stars<T>& b) : a_(a), b_(b), spokes_(a.num_rays + 1), sectors_(a.num_rays) {}

  void start(int64_t i, const Shape& shape) { i_ = i, area_ = shape.area, is_made_ = false, fast_ = Fast::kUnknown; }

  Overlap operator()(int64_t j, const Shape& other) {
    make();
    return make_overlap(star_sweep(star_, b_.num_rays, ring(j)), area_, other.area);
  }

  // The same as exceeds() of the overlap, in less time.
  template <int bytes>
  bool exceeds(int64_t j, const Shape& other, Metric metric, double threshold) {
    const Answer fast = answer<bytes>(j, other, metric, threshold);
    if (fast != Answer::kInDoubt) return fast == Answer::kYes;
    return polygon_iou::exceeds((*this)(j, other), metric, threshold);
  }

 private:
  template <int bytes>
  Answer answer(int64_t j, const Shape& other, Metric metric, double threshold) {
    make();
    if (!lanes_) lanes_.emplace(a_.num_rays, b_.num_rays);  // overlaps alone need none
    if (fast_ == Fast::kUnknown) fast_ = lanes_->template start<bytes>(star_) ? Fast::kYes : Fast::kNo;
    Swept swept;
    if (fast_ == Fast::kNo || !lanes_->template sweep<bytes>(b_.num_rays, ring(j), swept)) return Answer::kInDoubt;
    return polygon_iou::answer({0.5 * swept.shared, area_, other.area}, swept.error, metric, threshold);
  }

  // At the first pair: most stars have none.
  void make() {
    if (is_made_) return;
    star_ = make_star(a_.star(i_), spokes_.data(), sectors_.data());
    is_made_ = true;
  }

  auto ring(int64_t j) const { return b_.ring(j, b_.origin(j) - a_.origin(i_)); }

  const Stars<T>&a_, &b_;
  std::vector<Vec2<double>> spokes_;
  std::vector<double> sectors_;
  std::optional<LaneSweep> lanes_;  // has star_ where fast_ says so
  int64_t i_ = 0;
  double area_ = 0;
  bool is_made_ = false;  // star_ is A's
  Fast fast_ = Fast::kUnknown;
  Star star_{};
};

}  // namespace polarmask::polygon_iou
