#include <cmath>
#include <initializer_list>
#include <vector>

#include "check.h"
#include "ops/polar_iou/polar_iou.h"

using namespace polarmask;
using namespace polarmask::polar_iou;

namespace {

template <int power>
RaySums<double> sums_of(const std::vector<double>& pred, const std::vector<double>& target) {
  auto row = no_ray_sums<double>();
  for (size_t k = 0; k < pred.size(); ++k) add_ray<power, false>(pred[k], target[k], row);
  return row;
}

RowSums<double> careful(const std::vector<double>& pred, const std::vector<double>& target, bool log) {
  const auto rays = [](const std::vector<double>& row) { return Rays<const double>{row.data(), 0, 0, 1, 1}; };
  const PolarIouInput<double> in{rays(pred), rays(target), nullptr, 1, static_cast<int64_t>(pred.size()),
                                 1,          false,        log};
  return careful_sums<1, false>(in, 0);
}

void sums() {
  const std::vector<double> pred{1, 2, 3}, target{2, 2, 2};
  const RowSums<double> linear = sums_of<1>(pred, target).sums;
  CHECK(linear.difference == 2 && linear.smaller == 5);
  const RowSums<double> squared = sums_of<2>(pred, target).sums;
  CHECK(squared.difference == 8 && squared.smaller == 9);
  CHECK(value_of(linear, false) == 5.0 / 7.0);
  CHECK(std::fabs(value_of(linear, true) - std::log(7.0 / 5.0)) < 1e-15);
  CHECK(is_plain(linear) && careful(pred, target, true).difference == 2);
}

void mistakes_show_in_the_loss_and_not_in_the_iou() {
  CHECK(sums_of<1>({1, -2, 3}, {2, 2, 2}).lowest == -2);
  CHECK(std::isnan(careful({1, -2, 3}, {2, 2, 2}, true).difference));
  CHECK(careful({1, -2, 3}, {2, 2, 2}, false).smaller == 3);
  CHECK(value_of(careful({1, 2, 3}, {2, 2, INFINITY}, false), false) == 0);
}

template <class T>
void exponentials(double ulp, double lowest, double highest) {
  for (int k = 0; k <= 2000; ++k) {
    const T x = static_cast<T>(lowest + (highest - lowest) * k / 2000), grown = static_cast<T>(std::exp(0.9 * x));
    CHECK(std::fabs(exp_of(x) / std::exp(static_cast<long double>(x)) - 1) < 2 * ulp);
    CHECK(std::fabs(log1p_of(grown) / std::log1p(static_cast<long double>(grown)) - 1) < 3 * ulp);
    const Wide<T> lanes = all<Wide<T>>(x), many = all<Wide<T>>(grown);
    CHECK(exp_of(lanes)[kWidth - 1] == exp_of(x) && log1p_of(many)[0] == log1p_of(grown));
  }
  const T infinity = static_cast<T>(INFINITY);
  CHECK(exp_of(T(0)) == 1 && exp_of(-infinity) == 0 && exp_of(infinity) == infinity && std::isnan(exp_of(T(NAN))));
  CHECK(exp_of(T(lowest - 10)) > 0 && exp_of(T(2 * lowest)) == 0);  // subnormal, and nothing
  CHECK(log1p_of(T(0)) == 0 && log1p_of(infinity) == infinity && std::isnan(log1p_of(T(NAN))));
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
      const auto value = [&](double larger, double smaller) {
        return value_of(RowSums<double>{larger - smaller, smaller}, log);
      };
      const auto f = [&](double larger, double smaller) {
        return derivatives_of(RowSums<double>{larger - smaller, smaller}, log);
      };
      const double M = at.difference + at.smaller, m = at.smaller;
      const Derivatives<double> v = f(M, m);
      const auto close = [](double a, double b) { return std::fabs(a - b) < 1e-5 * (1 + std::fabs(a)); };
      CHECK(close(v.larger, (value(M + step, m) - value(M - step, m)) / (2 * step)));
      CHECK(close(v.smaller, (value(M, m + step) - value(M, m - step)) / (2 * step)));
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
  exponentials<float>(0x1p-23, -87, 88);
  exponentials<double>(0x1p-52, -700, 700);
  halves();
  derivatives_of_a_row();
  return check::finish();
}
