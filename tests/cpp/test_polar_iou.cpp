#include <cmath>
#include <initializer_list>
#include <vector>

#include "check.h"
#include "ops/polar_iou/polar_iou.h"

using namespace polarmask;

namespace {

struct Row {
  RowSums<double> sums{0, 0};
  bool negative = false;
};

template <int power>
Row row_of(const std::vector<double>& pred, const std::vector<double>& target) {
  Row row;
  for (size_t k = 0; k < pred.size(); ++k) add_ray<power, false>(pred[k], target[k], row.sums, row.negative);
  return row;
}

void sums() {
  const std::vector<double> pred{1, 2, 3}, target{2, 2, 2};
  const RowSums<double> linear = row_of<1>(pred, target).sums;
  CHECK(linear.difference == 2 && linear.smaller == 5);
  const RowSums<double> squared = row_of<2>(pred, target).sums;
  CHECK(squared.difference == 8 && squared.smaller == 9);
  CHECK(row_value(linear, false).value == 5.0 / 7.0);
  CHECK(std::fabs(row_value(linear, true).value - std::log(7.0 / 5.0)) < 1e-15);
}

void mistakes_show_in_the_loss_and_not_in_the_iou() {
  const Row negative = row_of<1>({1, -2, 3}, {2, 2, 2});
  CHECK(std::isnan(kept_sums(negative.sums, negative.negative, true).difference));
  const Row infinite = row_of<1>({1, 2, 3}, {2, 2, INFINITY});
  CHECK(row_value(kept_sums(infinite.sums, infinite.negative, false), false).value == 0);
}

void halves() {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    Half half;
    half.bits = static_cast<uint16_t>(bits);
    const float value = static_cast<float>(half);
    const bool nan = (bits & 0x7fff) > 0x7c00;
    CHECK(nan ? std::isnan(value) : Half(value).bits == bits);
    CHECK(std::isnan(value) == nan && std::isinf(value) == ((bits & 0x7fff) == 0x7c00));
    if (nan || (bits & 0x7fff) >= 0x7bff) continue;
    Half next;
    next.bits = static_cast<uint16_t>(bits + 1);
    const float middle = (value + static_cast<float>(next)) / 2;  // a tie: to the even one
    CHECK(Half(middle).bits == (bits & 1 ? bits + 1 : bits));
    CHECK(Half(std::nextafter(middle, value)).bits == bits);
  }
  CHECK(static_cast<float>(Half(1.5f)) == 1.5f && Half(65519.0f).bits == 0x7bff && Half(65520.0f).bits == 0x7c00);
  CHECK(BFloat16(1.00390625f).bits == 0x3f80 && BFloat16(1.01171875f).bits == 0x3f82);  // ties to even
  CHECK(BFloat16(NAN).bits == 0x7fc0 && BFloat16(-INFINITY).bits == 0xff80 && BFloat16(3.4e38f).bits == 0x7f80);
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
  mistakes_show_in_the_loss_and_not_in_the_iou();
  halves();
  derivatives_of_a_row();
  return check::finish();
}
