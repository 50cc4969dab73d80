// bf16 products with AVX512-BF16, and its rounding.
#include <cpuid.h>
#include <immintrin.h>

#include <cstring>

#include "core/gemm_bf16_kernels.h"

#define COLLIMATE_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

namespace collimate {
namespace {

constexpr int kRowsAtOnce = 8;  // 16 sums in registers hide the unit's latency
constexpr int64_t kPairs = 16;  // of k in one block of A
constexpr int64_t kBlock = 16 * 32;

// Eight rows of one block of A (a points at the first) against the panel.
COLLIMATE_BF16 void eight_rows(const Bf16PanelCall& call, const uint16_t* a, float* c) {
  __m512 left[kRowsAtOnce], right[kRowsAtOnce];
  for (int row = 0; row < kRowsAtOnce; ++row) {
    const float* from = call.accumulate ? c + row * call.ldc : call.bias;
    left[row] = from ? _mm512_loadu_ps(from) : _mm512_setzero_ps();
    right[row] = from ? _mm512_loadu_ps(from + 16) : _mm512_setzero_ps();
  }
  const uint16_t* b = call.panel;
  for (int64_t depth = 0; depth < call.k; depth += 2 * kPairs, a += kBlock) {
    for (int64_t pair = 0; pair < kPairs; ++pair, b += 64) {
      const auto b_left = (__m512bh)_mm512_loadu_si512(b);
      const auto b_right = (__m512bh)_mm512_loadu_si512(b + 32);
#pragma GCC unroll 8
      for (int row = 0; row < kRowsAtOnce; ++row) {
        int32_t two;
        std::memcpy(&two, a + row * 32 + 2 * pair, sizeof two);
        const auto both = (__m512bh)_mm512_set1_epi32(two);
        left[row] = _mm512_dpbf16_ps(left[row], both, b_left);
        right[row] = _mm512_dpbf16_ps(right[row], both, b_right);
      }
    }
  }
  for (int row = 0; row < kRowsAtOnce; ++row) {
    _mm512_storeu_ps(c + row * call.ldc, left[row]);
    _mm512_storeu_ps(c + row * call.ldc + 16, right[row]);
  }
}

}  // namespace

bool avx512_bf16_is_there() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 1, &a, &b, &c, &d)) return false;
  constexpr unsigned kAvx512Bf16 = 1u << 5;
  return (a & kAvx512Bf16) != 0;
}

COLLIMATE_BF16 void bf16_panel_avx512(const Bf16PanelCall& call) {
  for (int64_t block = 0; block < call.blocks; ++block) {
    const uint16_t* a = call.a + block * call.a_block;
    float* c = call.c + block * 16 * call.ldc;
    eight_rows(call, a, c);
    eight_rows(call, a + kRowsAtOnce * 32, c + kRowsAtOnce * call.ldc);
  }
}

COLLIMATE_BF16 void bf16_round_row(const float* from, int64_t count, uint16_t* to, int64_t step) {
  int64_t i = 0;
  for (; i + 32 <= count; i += 32, to += step) {
    const __m512bh rounded = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + i + 16), _mm512_loadu_ps(from + i));
    _mm512_storeu_si512(to, (__m512i)rounded);
  }
  if (i == count) return;
  const auto rest = static_cast<uint32_t>((uint64_t{1} << (count - i)) - 1);
  const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(rest), from + i);
  const __m512 high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(rest >> 16), from + i + 16);
  _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

}  // namespace collimate
