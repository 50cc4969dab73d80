// What this machine can do at most, for the rooflines: multiply-adds from registers, a large product, reads from
// memory.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#include "core/gemm.h"
#include "core/gemm_bf16.h"
#include "core/isa.h"
#include "core/pool.h"

namespace collimate::bench {

inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Shortest of five.
template <typename Body>
double best_seconds(const Body& body) {
  double best = 1e30;
  for (int repeat = 0; repeat < 5; ++repeat) {
    const double begin = seconds_now();
    body();
    best = std::min(best, seconds_now() - begin);
  }
  return best;
}

// Twelve independent chains of FMA: enough to hide the latency of two units.
constexpr int64_t kTurns = 20'000'000;
constexpr int kChains = 12;
__attribute__((target("avx512f"))) inline float wide_fma_chains() {
  __m512 sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 factor = _mm512_set1_ps(0.999f), term = _mm512_set1_ps(0.001f);
  for (int64_t turn = 0; turn < kTurns; ++turn) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sums[i] = _mm512_fmadd_ps(sums[i], factor, term);
  }
  for (int i = 1; i < kChains; ++i) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  return _mm512_cvtss_f32(sums[0]);
}

inline float fma_chains() {
  __m256 sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 factor = _mm256_set1_ps(0.999f), term = _mm256_set1_ps(0.001f);
  for (int64_t turn = 0; turn < kTurns; ++turn) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sums[i] = _mm256_fmadd_ps(sums[i], factor, term);
  }
  for (int i = 1; i < kChains; ++i) sums[0] = _mm256_add_ps(sums[0], sums[i]);
  return _mm256_cvtss_f32(sums[0]);
}

inline double read_sum(const std::vector<float>& data, int64_t begin, int64_t end) {
  __m256 sums[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
  for (int64_t i = begin; i + 32 <= end; i += 32) {
    for (int j = 0; j < 4; ++j) sums[j] = _mm256_add_ps(sums[j], _mm256_loadu_ps(data.data() + i + 8 * j));
  }
  return static_cast<double>(_mm256_cvtss_f32(_mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), sums[2] + sums[3])));
}

struct MachinePeaks {
  double fma_gflop_s = 0, gemm_gflop_s = 0;
  double bf16_gemm_gflop_s = 0;  // 0 without a bf16 unit
  double read_gb_s = 0;
  double checksum = 0;  // of what was computed, so that it is
};

inline MachinePeaks measure_peaks(int threads) {
  Pool pool(threads);
  prepare_compute_thread();
  std::vector<double> sink(static_cast<size_t>(threads));
  const bool wide = selected_isa() == Isa::avx512;
  const double fma = best_seconds([&] {
    pool.for_each(threads, [&](int64_t i) {
      sink[static_cast<size_t>(i)] = static_cast<double>(wide ? wide_fma_chains() : fma_chains());
    });
  });
  constexpr int64_t kSide = 1536;
  std::vector<float> a(kSide * kSide, 0.5f), b(kSide * kSide, 0.25f), c(kSide * kSide);
  const double product = best_seconds([&] {
    gemm(pool, {.m = kSide,
                .n = kSide,
                .k = kSide,
                .a = a.data(),
                .lda = kSide,
                .b = b.data(),
                .ldb = kSide,
                .c = c.data(),
                .ldc = kSide});
  });
  double bf16_product = 0.0;
  if (bf16_unit() != Bf16Unit::none) {
    Bf16Panels panels;
    panels.pack(pool, {.values = b.data(), .k = kSide, .n = kSide, .stride = kSide});
    bf16_product = best_seconds(
        [&] { gemm_bf16(pool, {.m = kSide, .a = a.data(), .lda = kSide, .b = &panels, .c = c.data(), .ldc = kSide}); });
  }
  const std::vector<float> large(int64_t{64} << 20, 1.0f);  // 256 MiB: beyond any cache
  const auto size = static_cast<int64_t>(large.size());
  const double read = best_seconds([&] {
    pool.for_each(threads, [&](int64_t i) {
      sink[static_cast<size_t>(i)] = read_sum(large, size * i / threads, size * (i + 1) / threads);
    });
  });
  MachinePeaks peaks;
  for (const double value : sink) peaks.checksum += value;
  peaks.fma_gflop_s =
      static_cast<double>(threads) * static_cast<double>(kTurns) * kChains * (wide ? 32 : 16) / fma * 1e-9;
  peaks.gemm_gflop_s = 2.0 * kSide * kSide * kSide / product * 1e-9;
  peaks.bf16_gemm_gflop_s = bf16_product > 0 ? 2.0 * kSide * kSide * kSide / bf16_product * 1e-9 : 0.0;
  peaks.read_gb_s = static_cast<double>(size) * 4 / read * 1e-9;
  return peaks;
}

}  // namespace collimate::bench
