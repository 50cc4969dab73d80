// The bodies of core/math.h. Range reduction, a Taylor polynomial, and exponent bits; no branch, so that loops
// vectorise. They are constexpr so that kernels of cuda/ may call them.
//
// 1. Multiplications and additions are separate and in the order written (the build forbids contraction).
// 2. A NaN stays a NaN.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>

namespace collimate {
namespace math_detail {

// Adding this rounds a float below 2^22 to the nearest integer, which then stands in the low mantissa bits.
inline constexpr float kRoundF32 = 12582912.0f;          // 1.5 * 2^23
inline constexpr double kRoundF64 = 6755399441055744.0;  // 1.5 * 2^52
inline constexpr float kLn2HighF32 = 0.693359375f;       // 10 bits: n * high is exact
inline constexpr float kLn2LowF32 = -2.12194440e-4f;
inline constexpr double kLn2HighF64 = 0x1.62e42fefap-1;  // 33 bits
inline constexpr double kLn2LowF64 = 0x1.cf79abc9e3b3ap-40;

// 2^n for a normal exponent.
constexpr float pow2_f32(int32_t n) { return std::bit_cast<float>(static_cast<uint32_t>(n + 127) << 23); }
constexpr double pow2_f64(int64_t n) { return std::bit_cast<double>(static_cast<uint64_t>(n + 1023) << 52); }

}  // namespace math_detail

constexpr float exp_f32(float x) {
  using namespace math_detail;
  float clamped = x < -87.0f ? -87.0f : x;
  clamped = clamped > 88.7f ? 88.7f : clamped;
  const float shifted = clamped * 1.44269504f + kRoundF32;
  const int32_t n = static_cast<int32_t>(std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(kRoundF32));
  const float rounded = shifted - kRoundF32;
  const float r = (clamped - rounded * kLn2HighF32) - rounded * kLn2LowF32;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * (r * r) + r;
  p = p + 1.0f;
  // In two factors, since 2^128 is not a float.
  const int32_t half = n >> 1;
  const float value = p * pow2_f32(half) * pow2_f32(n - half);
  const float low = x < -87.0f ? 0.0f : value;
  return x > 88.7f ? std::numeric_limits<float>::infinity() : low;
}

constexpr double exp_f64(double x) {
  using namespace math_detail;
  double clamped = x < -708.0 ? -708.0 : x;
  clamped = clamped > 709.7 ? 709.7 : clamped;
  const double shifted = clamped * 1.4426950408889634 + kRoundF64;
  const int64_t n = static_cast<int64_t>(std::bit_cast<uint64_t>(shifted) - std::bit_cast<uint64_t>(kRoundF64));
  const double rounded = shifted - kRoundF64;
  const double r = (clamped - rounded * kLn2HighF64) - rounded * kLn2LowF64;
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * (r * r) + r;
  p = p + 1.0;
  const int64_t half = n >> 1;
  const double value = p * pow2_f64(half) * pow2_f64(n - half);
  const double low = x < -708.0 ? 0.0 : value;
  return x > 709.7 ? std::numeric_limits<double>::infinity() : low;
}

// log(m) = 2 atanh(s) with s = (m - 1) / (m + 1), m in [sqrt(1/2), sqrt(2)), so s^2 < 0.0295.
constexpr float log_f32(float x) {
  using namespace math_detail;
  constexpr uint32_t kSqrtHalf = 0x3f3504f3u;
  const uint32_t offset = std::bit_cast<uint32_t>(x) - kSqrtHalf;
  const int32_t n = static_cast<int32_t>(offset) >> 23;
  const float m = std::bit_cast<float>((offset & 0x007fffffu) + kSqrtHalf);
  const float s = (m - 1.0f) / (m + 1.0f);
  const float z = s * s;
  float p = 1.0f / 9;
  p = p * z + 1.0f / 7;
  p = p * z + 1.0f / 5;
  p = p * z + 1.0f / 3;
  const float twice = s + s;
  const float e = static_cast<float>(n);
  const float value = ((p * z) * twice + e * kLn2LowF32) + twice + e * kLn2HighF32;
  return x != x ? x : value;
}

constexpr double log_f64(double x) {
  using namespace math_detail;
  constexpr uint64_t kSqrtHalf = 0x3fe6a09e667f3bcdull;
  const uint64_t offset = std::bit_cast<uint64_t>(x) - kSqrtHalf;
  const int32_t n = static_cast<int32_t>(static_cast<int64_t>(offset) >> 52);
  const double m = std::bit_cast<double>((offset & 0x000fffffffffffffull) + kSqrtHalf);
  const double s = (m - 1.0) / (m + 1.0);
  const double z = s * s;
  double p = 1.0 / 23;
  p = p * z + 1.0 / 21;
  p = p * z + 1.0 / 19;
  p = p * z + 1.0 / 17;
  p = p * z + 1.0 / 15;
  p = p * z + 1.0 / 13;
  p = p * z + 1.0 / 11;
  p = p * z + 1.0 / 9;
  p = p * z + 1.0 / 7;
  p = p * z + 1.0 / 5;
  p = p * z + 1.0 / 3;
  const double twice = s + s;
  const double e = static_cast<double>(n);
  const double value = ((p * z) * twice + e * kLn2LowF64) + twice + e * kLn2HighF64;
  return x != x ? x : value;
}

constexpr float sigmoid_f32(float x) {
  const float e = exp_f32(-(x < 0.0f ? -x : x));
  const float numerator = x >= 0.0f ? 1.0f : e;
  return numerator / (1.0f + e);
}

// log(1 + e) = 2 atanh(e / (2 + e)); e <= 1, so the series' square is at most 1/9.
constexpr float softplus_f32(float x) {
  const float e = exp_f32(-(x < 0.0f ? -x : x));
  const float s = e / (2.0f + e);
  const float z = s * s;
  float p = 1.0f / 17;
  p = p * z + 1.0f / 15;
  p = p * z + 1.0f / 13;
  p = p * z + 1.0f / 11;
  p = p * z + 1.0f / 9;
  p = p * z + 1.0f / 7;
  p = p * z + 1.0f / 5;
  p = p * z + 1.0f / 3;
  const float twice = s + s;
  const float log1p = (p * z) * twice + twice;
  const float positive = x > 0.0f ? x : 0.0f;
  return positive + log1p;
}

}  // namespace collimate
