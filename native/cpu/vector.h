// Vector helpers of the CPU ops.
//
// 1. Reductions keep 16 partial sums in a fixed pattern, whatever the width of the machine's registers, and add them in
//    a fixed order: every instruction set gives the same bits.
// 2. Loops outside reductions are plain; the compiler vectorises them (no contraction, no fast-math, so element by
//    element the bits are those of the source).
#pragma once

#include <cstdint>
#include <cstring>

namespace collimate::ops {

typedef float F8 __attribute__((vector_size(32)));
typedef float F4 __attribute__((vector_size(16)));
typedef double D4 __attribute__((vector_size(32)));

[[gnu::always_inline]] inline void load8(F8& to, const float* from) { std::memcpy(&to, from, sizeof(F8)); }
[[gnu::always_inline]] inline void store8(float* to, const F8& from) { std::memcpy(to, &from, sizeof(F8)); }

[[gnu::always_inline]] inline float add_lanes(const F8& low, const F8& high) {
  const F8 sum = low + high;
  return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

// Sum of x[i] * y[i].
[[gnu::always_inline]] inline float dot(const float* x, const float* y, int64_t n) {
  F8 low{}, high{}, a, b;
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    load8(a, x + i);
    load8(b, y + i);
    low += a * b;
    load8(a, x + i + 8);
    load8(b, y + i + 8);
    high += a * b;
  }
  float tail = 0.0f;
  for (; i < n; ++i) tail += x[i] * y[i];
  return add_lanes(low, high) + tail;
}

[[gnu::always_inline]] inline float sum(const float* x, int64_t n) {
  F8 low{}, high{}, a;
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    load8(a, x + i);
    low += a;
    load8(a, x + i + 8);
    high += a;
  }
  float tail = 0.0f;
  for (; i < n; ++i) tail += x[i];
  return add_lanes(low, high) + tail;
}

// Largest value; a NaN anywhere may be skipped (callers meet it again in their sums).
[[gnu::always_inline]] inline float largest(const float* x, int64_t n) {
  float best = x[0];
  int64_t i = 0;
  if (n >= 8) {
    F8 top, a;
    load8(top, x);
    for (i = 8; i + 8 <= n; i += 8) {
      load8(a, x + i);
      top = a > top ? a : top;
    }
    best = top[0];
    for (int lane = 1; lane < 8; ++lane) best = top[lane] > best ? top[lane] : best;
  }
  for (; i < n; ++i) best = x[i] > best ? x[i] : best;
  return best;
}

}  // namespace collimate::ops
