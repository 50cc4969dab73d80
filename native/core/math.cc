// Sine and cosine in double precision, for tables.
#include "core/math.h"

namespace collimate {
namespace {

// pi/2 in three parts of at most 33 bits, so that n * part is exact for |n| < 2^20.
constexpr double kHalfPiHigh = 0x1.921fb544p+0;
constexpr double kHalfPiMiddle = 0x1.0b4611a6p-34;
constexpr double kHalfPiLow = 0x1.3198a2e037073p-69;

struct Reduced {
  double r = 0.0;  // |r| <= pi/4
  int quadrant = 0;
};

Reduced reduce_by_half_pi(double x) {
  const double n = (x * 0.63661977236758138 + math_detail::kRoundF64) - math_detail::kRoundF64;
  const double r = ((x - n * kHalfPiHigh) - n * kHalfPiMiddle) - n * kHalfPiLow;
  return {r, static_cast<int>(static_cast<int64_t>(n) & 3)};
}

// Taylor series to r^19 and r^18: the next term is below 2^-60.
double sin_series(double r) {
  const double z = r * r;
  double p = -1.0 / 121645100408832000.0;
  p = p * z + 1.0 / 355687428096000.0;
  p = p * z - 1.0 / 1307674368000.0;
  p = p * z + 1.0 / 6227020800.0;
  p = p * z - 1.0 / 39916800.0;
  p = p * z + 1.0 / 362880.0;
  p = p * z - 1.0 / 5040.0;
  p = p * z + 1.0 / 120.0;
  p = p * z - 1.0 / 6.0;
  return (p * z) * r + r;
}

double cos_series(double r) {
  const double z = r * r;
  double p = -1.0 / 6402373705728000.0;
  p = p * z + 1.0 / 20922789888000.0;
  p = p * z - 1.0 / 87178291200.0;
  p = p * z + 1.0 / 479001600.0;
  p = p * z - 1.0 / 3628800.0;
  p = p * z + 1.0 / 40320.0;
  p = p * z - 1.0 / 720.0;
  p = p * z + 1.0 / 24.0;
  p = p * z - 0.5;
  return p * z + 1.0;
}

}  // namespace

double sin_f64(double x) {
  const auto [r, quadrant] = reduce_by_half_pi(x);
  const double value = (quadrant & 1) != 0 ? cos_series(r) : sin_series(r);
  return (quadrant & 2) != 0 ? -value : value;
}

double cos_f64(double x) {
  const auto [r, quadrant] = reduce_by_half_pi(x);
  const double value = (quadrant & 1) != 0 ? sin_series(r) : cos_series(r);
  return quadrant == 1 || quadrant == 2 ? -value : value;
}

}  // namespace collimate
