#include <cmath>
#include <initializer_list>
#include <vector>

#include "check.h"
#include "ops/polar_iou/polar_iou.h"

using namespace polarmask;

namespace {

PolarIouParams<double, double> one_row(const std::vector<double>& pred, const std::vector<double>& target, bool log) {
  return {{pred.data(), 0, 1}, {target.data(), 0, 1}, nullptr, 1, static_cast<int64_t>(pred.size()), log, nullptr};
}

void sums() {
  const std::vector<double> pred{1, 2, 3}, target{2, 2, 2};
  const RowSums<double> linear = row_sums<1, false>(one_row(pred, target, true), 0, 0, 1);
  CHECK(linear.difference == 2 && linear.smaller == 5);
  const RowSums<double> squared = row_sums<2, false>(one_row(pred, target, true), 0, 0, 1);
  CHECK(squared.difference == 8 && squared.smaller == 9);
  CHECK(row_value(linear, false).value == 5.0 / 7.0);
  CHECK(std::fabs(row_value(linear, true).value - std::log(7.0 / 5.0)) < 1e-15);
}

void split_rows_add_up() {
  const std::vector<double> pred{1, 2, 3, 4, 5}, target{5, 4, 3, 2, 1};
  const auto params = one_row(pred, target, true);
  const RowSums<double> whole = row_sums<1, false>(params, 0, 0, 1);
  const RowSums<double> even = row_sums<1, false>(params, 0, 0, 2), odd = row_sums<1, false>(params, 0, 1, 2);
  CHECK(even.difference + odd.difference == whole.difference && even.smaller + odd.smaller == whole.smaller);
}

void mistakes_show_in_the_loss_and_not_in_the_iou() {
  const std::vector<double> pred{1, -2, 3}, target{2, 2, INFINITY};
  CHECK(std::isnan(row_sums<1, false>(one_row(pred, target, true), 0, 0, 1).difference));
  const RowSums<double> kept = kept_sums(row_sums<1, false>(one_row(pred, target, false), 0, 0, 1), false);
  CHECK(row_value(kept, false).value == 0);
}

void derivatives_of_a_row() {
  const double step = 1e-6;
  for (bool log : {false, true}) {
    for (RowSums<double> at : {RowSums<double>{2, 5}, RowSums<double>{0.01, 3}, RowSums<double>{4, 0.5}}) {
      const auto f = [&](double larger, double smaller) {
        return row_value(RowSums<double>{larger - smaller, smaller}, log);
      };
      const double M = at.difference + at.smaller, m = at.smaller;
      const RowValue<double> v = f(M, m);
      const auto close = [](double a, double b) { return std::fabs(a - b) < 1e-5 * (1 + std::fabs(a)); };
      CHECK(close(v.larger, (f(M + step, m).value - f(M - step, m).value) / (2 * step)));
      CHECK(close(v.smaller, (f(M, m + step).value - f(M, m - step).value) / (2 * step)));
      CHECK(close(v.larger_larger, (f(M + step, m).larger - f(M - step, m).larger) / (2 * step)));
      CHECK(close(v.larger_smaller, (f(M, m + step).larger - f(M, m - step).larger) / (2 * step)));
      CHECK(close(v.smaller_smaller, (f(M, m + step).smaller - f(M, m - step).smaller) / (2 * step)));
    }
  }
}

}  // namespace

int main() {
  sums();
  split_rows_add_up();
  mistakes_show_in_the_loss_and_not_in_the_iou();
  derivatives_of_a_row();
  return check::finish();
}
