// Dot products and scaled additions over short rows, with one order of additions on every machine.
//
// 1. A dot product keeps eight partial sums (element i goes to sum i mod 8), added pairwise at the end; the tail is
//    added last. The `wide_` ones keep 32, for rows long enough that one chain of additions would be waited for.
// 2. No contraction and no fast-math: whatever the width of the registers, the bits are those of the source.
#pragma once

#include <cstdint>
#include <cstring>

namespace collimate {

typedef float FloatLanes __attribute__((vector_size(32)));
typedef float HalfLanes __attribute__((vector_size(16)));
typedef int32_t IntLanes __attribute__((vector_size(32)));

// ((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7))
[[gnu::always_inline]] inline float add_lanes(const FloatLanes& lanes) {
  HalfLanes low, high;
  std::memcpy(&low, &lanes, sizeof low);
  std::memcpy(&high, reinterpret_cast<const char*>(&lanes) + sizeof low, sizeof high);
  low += high;
  return (low[0] + low[2]) + (low[1] + low[3]);
}

[[gnu::always_inline]] inline float row_dot(const float* a, const float* b, int64_t n) {
  FloatLanes sum = {0, 0, 0, 0, 0, 0, 0, 0};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    FloatLanes x, y;
    std::memcpy(&x, a + i, sizeof x);
    std::memcpy(&y, b + i, sizeof y);
    sum += x * y;
  }
  float result = add_lanes(sum);
  for (; i < n; ++i) result += a[i] * b[i];
  return result;
}

[[gnu::always_inline]] inline float row_squared_distance(const float* a, const float* b, int64_t n) {
  FloatLanes sum = {0, 0, 0, 0, 0, 0, 0, 0};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    FloatLanes x, y;
    std::memcpy(&x, a + i, sizeof x);
    std::memcpy(&y, b + i, sizeof y);
    const FloatLanes difference = x - y;
    sum += difference * difference;
  }
  float result = add_lanes(sum);
  for (; i < n; ++i) result += (a[i] - b[i]) * (a[i] - b[i]);
  return result;
}

// row_squared_distance of `Rows` contiguous rows to one b: the same bits, without waiting for each chain of additions.
template <int Rows>
[[gnu::always_inline]] inline void row_squared_distances(const float* rows, const float* b, int64_t n, float* result) {
  FloatLanes sums[Rows] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    FloatLanes y;
    std::memcpy(&y, b + i, sizeof y);
    for (int row = 0; row < Rows; ++row) {
      FloatLanes x;
      std::memcpy(&x, rows + row * n + i, sizeof x);
      const FloatLanes difference = x - y;
      sums[row] += difference * difference;
    }
  }
  for (int row = 0; row < Rows; ++row) {
    const float* a = rows + row * n;
    result[row] = add_lanes(sums[row]);
    for (int64_t j = i; j < n; ++j) result[row] += (a[j] - b[j]) * (a[j] - b[j]);
  }
}

// Sum of term(x, y) over four times eight lanes; `term` is applied to whole vectors and to single floats.
template <typename Term>
[[gnu::always_inline]] inline float wide_sum(const float* a, const float* b, int64_t n, const Term& term) {
  FloatLanes sums[4] = {};
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    for (int lane = 0; lane < 4; ++lane) {
      FloatLanes x, y;
      std::memcpy(&x, a + i + 8 * lane, sizeof x);
      std::memcpy(&y, b + i + 8 * lane, sizeof y);
      sums[lane] += term(x, y);
    }
  }
  for (; i + 8 <= n; i += 8) {
    FloatLanes x, y;
    std::memcpy(&x, a + i, sizeof x);
    std::memcpy(&y, b + i, sizeof y);
    sums[0] += term(x, y);
  }
  float result = add_lanes((sums[0] + sums[1]) + (sums[2] + sums[3]));
  for (; i < n; ++i) result += term(a[i], b[i]);
  return result;
}

[[gnu::always_inline]] inline float wide_dot(const float* a, const float* b, int64_t n) {
  return wide_sum(a, b, n, [](const auto& x, const auto& y) { return x * y; });
}

[[gnu::always_inline]] inline float wide_squared_distance(const float* a, const float* b, int64_t n) {
  return wide_sum(a, b, n, [](const auto& x, const auto& y) { return (x - y) * (x - y); });
}

// y -= x
[[gnu::always_inline]] inline void subtract(float* y, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] -= x[i];
}

// y += scale * x
[[gnu::always_inline]] inline void row_add_scaled(float* y, const float* x, float scale, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    FloatLanes a, b;
    std::memcpy(&a, y + i, sizeof a);
    std::memcpy(&b, x + i, sizeof b);
    a += b * scale;
    std::memcpy(y + i, &a, sizeof a);
  }
  for (; i < n; ++i) y[i] += scale * x[i];
}

}  // namespace collimate
