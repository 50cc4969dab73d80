// Own exp, log, sin and cos against the C library in double (or long double) precision; stated errors are checked.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "core/math.h"

namespace collimate {
namespace {

double relative(double got, double want) { return std::fabs(got - want) / std::fabs(want); }

}  // namespace

TEST_CASE("math: exp_f32 and log_f32 stay below 4e-7") {
  double worst_exp = 0.0;
  for (double x = -86.99; x < 88.69; x += 0.00037) {
    const float argument = static_cast<float>(x);
    worst_exp = std::max(worst_exp, relative(exp_f32(argument), std::exp(static_cast<double>(argument))));
  }
  CHECK(worst_exp < 4e-7);
  double worst_log = 0.0;
  for (double x = 1.2e-38; x < 3e38; x *= 1.00037) {
    const float argument = static_cast<float>(x);
    const double want = std::log(static_cast<double>(argument));
    if (want != 0.0) worst_log = std::max(worst_log, relative(log_f32(argument), want));
  }
  for (float x = 0.98f; x < 1.02f; x = std::nextafter(x, 2.0f) + 1e-6f) {
    const double want = std::log(static_cast<double>(x));
    if (want != 0.0) worst_log = std::max(worst_log, relative(log_f32(x), want));
  }
  CHECK(worst_log < 4e-7);
}

TEST_CASE("math: limits of the float functions") {
  const float infinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(exp_f32(-88.0f) == 0.0f);
  CHECK(exp_f32(-infinity) == 0.0f);
  CHECK(exp_f32(89.0f) == infinity);
  CHECK(exp_f32(infinity) == infinity);
  CHECK(exp_f32(0.0f) == 1.0f);
  CHECK(log_f32(1.0f) == 0.0f);
  CHECK(std::isnan(exp_f32(nan)));
  CHECK(std::isnan(log_f32(nan)));
  CHECK(std::isnan(sigmoid_f32(nan)));
  CHECK(std::isnan(softplus_f32(nan)));
  CHECK(std::isnan(exp_f64(std::nan(""))));
  CHECK(sigmoid_f32(infinity) == 1.0f);
  CHECK(sigmoid_f32(-infinity) == 0.0f);
  CHECK(softplus_f32(1000.0f) == 1000.0f);
  CHECK(softplus_f32(-1000.0f) == 0.0f);
}

TEST_CASE("math: exp_f64 and log_f64 stay below 1e-15") {
  double worst_exp = 0.0;
  for (double x = -707.9; x < 709.6; x += 0.00313) {
    worst_exp =
        std::max(worst_exp, static_cast<double>(std::fabs(exp_f64(x) / std::exp(static_cast<long double>(x)) - 1)));
  }
  CHECK(worst_exp < 1e-15);
  double worst_log = 0.0;
  for (double x = 1e-300; x < 1e300; x *= 1.00413) {
    const long double want = std::log(static_cast<long double>(x));
    if (want != 0) worst_log = std::max(worst_log, static_cast<double>(std::fabs(log_f64(x) / want - 1)));
  }
  for (double x = 0.5; x < 2.0; x += 0.00001) {
    const long double want = std::log(static_cast<long double>(x));
    if (want != 0) worst_log = std::max(worst_log, static_cast<double>(std::fabs(log_f64(x) / want - 1)));
  }
  CHECK(worst_log < 1e-15);
}

TEST_CASE("math: sigmoid and softplus stay below 4e-7 on both sides") {
  double worst_sigmoid = 0.0;
  double worst_softplus = 0.0;
  for (double x = -80.0; x < 80.0; x += 0.0007) {
    const float argument = static_cast<float>(x);
    const double e = std::exp(static_cast<double>(argument));
    worst_sigmoid = std::max(worst_sigmoid, relative(sigmoid_f32(argument), e / (1.0 + e)));
    worst_softplus = std::max(worst_softplus, relative(softplus_f32(argument), std::log1p(e)));
  }
  CHECK(worst_sigmoid < 4e-7);
  CHECK(worst_softplus < 4e-7);
}

TEST_CASE("math: sin_f64 and cos_f64 stay below 1e-15 absolute, up to a million") {
  double worst = 0.0;
  const auto probe = [&](double x) {
    const long double argument = static_cast<long double>(x);
    worst = std::max(worst, static_cast<double>(std::fabs(sin_f64(x) - std::sin(argument))));
    worst = std::max(worst, static_cast<double>(std::fabs(cos_f64(x) - std::cos(argument))));
  };
  for (double x = -20.0; x < 20.0; x += 0.00031) probe(x);
  for (double x = -1e6; x < 1e6; x += 17.3) probe(x);
  CHECK(worst < 1e-15);
  CHECK(sin_f64(0.0) == 0.0);
  CHECK(cos_f64(0.0) == 1.0);
}

TEST_CASE("math: a vectorised loop gives the bytes of single calls") {
  std::vector<float> x(1003);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i) * 0.17f - 88.0f;
  std::vector<float> loop(x.size());
  for (size_t i = 0; i < x.size(); ++i) loop[i] = exp_f32(x[i]);
  for (size_t i = 0; i < x.size(); ++i) {
    volatile float single = x[i];
    CHECK(loop[i] == exp_f32(single));
  }
}

}  // namespace collimate
