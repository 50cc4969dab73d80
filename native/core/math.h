// exp, log, sin, cos, tanh-free sigmoid and softplus with the same bits on every machine and library version.
//
// Plain IEEE operations only (no contraction, no libm). Inline, so that loops over them vectorise.
// Relative error below 4e-7 on the stated ranges; tested against double precision.
#pragma once

#include <cstdint>

namespace collimate {

constexpr float exp_f32(float x);       // flushes to 0 below -87, +inf above 88.7
constexpr float log_f32(float x);       // x > 0 normal
constexpr double exp_f64(double x);     // relative error below 1e-15
constexpr double log_f64(double x);     // x > 0 normal
constexpr float sigmoid_f32(float x);   // 1 / (1 + exp(-x)), both signs accurate
constexpr float softplus_f32(float x);  // log(1 + exp(x)), no overflow
double sin_f64(double x);               // |x| < 1e6; for tables (RoPE), not hot loops
double cos_f64(double x);
// By squaring: the C library's pow may round differently elsewhere. exponent >= 0.
constexpr double power_f64(double base, int64_t exponent) {
  double result = 1.0;
  for (; exponent > 0; exponent >>= 1, base *= base)
    if ((exponent & 1) != 0) result *= base;
  return result;
}

}  // namespace collimate

#include "core/math_inline.h"
