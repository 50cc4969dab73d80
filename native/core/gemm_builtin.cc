// The built-in GEMM kernel, for machines without oneDNN: packed panels and a 6 x 16 register block with explicit FMA.
//
// 1. Each element of C is the ordered sum over blocks of kBlockK of ordered sums inside a block: the bytes depend on
//    the shape, not on the place in C.
#ifndef COLLIMATE_USE_DNNL

#include <immintrin.h>

#include <algorithm>
#include <vector>

#include "core/gemm_library.h"
#include "core/isa.h"

namespace collimate {
namespace {

constexpr int64_t kBlockK = 256;
constexpr int64_t kRows = 6;
constexpr int64_t kCols = 16;

float element_a(const GemmArgs& g, int64_t row, int64_t k) {
  return g.transpose_a ? g.a[k * g.lda + row] : g.a[row * g.lda + k];
}
float element_b(const GemmArgs& g, int64_t k, int64_t col) {
  return g.transpose_b ? g.b[col * g.ldb + k] : g.b[k * g.ldb + col];
}

// panel[k][row], rows behind the end zero.
void pack_a(const GemmArgs& g, int64_t row, int64_t k0, int64_t depth, float* panel) {
  const int64_t rows = std::min(kRows, g.m - row);
  for (int64_t k = 0; k < depth; ++k) {
    for (int64_t r = 0; r < kRows; ++r) panel[k * kRows + r] = r < rows ? element_a(g, row + r, k0 + k) : 0.0f;
  }
}

// All columns: panel[block][k][col], columns behind the end zero.
void pack_b(const GemmArgs& g, int64_t k0, int64_t depth, float* panel) {
  for (int64_t col = 0; col < g.n; col += kCols) {
    const int64_t cols = std::min(kCols, g.n - col);
    for (int64_t k = 0; k < depth; ++k, panel += kCols) {
      for (int64_t c = 0; c < kCols; ++c) panel[c] = c < cols ? element_b(g, k0 + k, col + c) : 0.0f;
    }
  }
}

void multiply_block(const float* a, const float* b, int64_t depth, float* out) {
  __m256 sum[kRows][2];
  for (auto& row : sum) row[0] = row[1] = _mm256_setzero_ps();
  for (int64_t k = 0; k < depth; ++k) {
    const __m256 b0 = _mm256_loadu_ps(b + k * kCols);
    const __m256 b1 = _mm256_loadu_ps(b + k * kCols + 8);
#pragma GCC unroll 6
    for (int64_t r = 0; r < kRows; ++r) {
      const __m256 value = _mm256_broadcast_ss(a + k * kRows + r);
      sum[r][0] = _mm256_fmadd_ps(value, b0, sum[r][0]);
      sum[r][1] = _mm256_fmadd_ps(value, b1, sum[r][1]);
    }
  }
  for (int64_t r = 0; r < kRows; ++r) {
    _mm256_storeu_ps(out + r * kCols, sum[r][0]);
    _mm256_storeu_ps(out + r * kCols + 8, sum[r][1]);
  }
}

void store_block(const GemmArgs& g, int64_t row, int64_t col, bool first, const float* block) {
  const int64_t rows = std::min(kRows, g.m - row);
  const int64_t cols = std::min(kCols, g.n - col);
  for (int64_t r = 0; r < rows; ++r) {
    float* c = g.c + (row + r) * g.ldc + col;
    for (int64_t i = 0; i < cols; ++i) {
      const float before = first ? (g.beta == 0.0f ? 0.0f : g.beta * c[i]) : c[i];
      c[i] = before + g.alpha * block[r * kCols + i];
    }
  }
}

}  // namespace

void gemm_library_call(const GemmArgs& g) {
  thread_local std::vector<float> panel_a;
  thread_local std::vector<float> panel_b;
  panel_a.resize(static_cast<size_t>(kRows * kBlockK));
  panel_b.resize(static_cast<size_t>((g.n + kCols - 1) / kCols * kCols * kBlockK));
  float block[kRows * kCols];
  for (int64_t k0 = 0; k0 < g.k; k0 += kBlockK) {
    const int64_t depth = std::min(kBlockK, g.k - k0);
    pack_b(g, k0, depth, panel_b.data());
    for (int64_t row = 0; row < g.m; row += kRows) {
      pack_a(g, row, k0, depth, panel_a.data());
      for (int64_t col = 0; col < g.n; col += kCols) {
        multiply_block(panel_a.data(), panel_b.data() + col * depth, depth, block);
        store_block(g, row, col, k0 == 0, block);
      }
    }
  }
}

void gemm_library_prepare_thread() { selected_isa(); }

std::string gemm_library_identity() { return "builtin"; }

}  // namespace collimate

#endif  // COLLIMATE_USE_DNNL
