// Row-major fp32 matrix products through one pinned library, called single-threaded per fixed tile.
//
// Tiles depend on (M, N, K) only, and K is never split between threads, so the bytes of C do not depend on the pool.
#pragma once

#include <cstdint>
#include <string>

#include "core/pool.h"

namespace collimate {

// C[M,N] = alpha * op(A)[M,K] * op(B)[K,N] + beta * C. op transposes when the flag is set; ld* are row strides.
struct GemmArgs {
  bool transpose_a = false;
  bool transpose_b = false;
  int64_t m = 0, n = 0, k = 0;
  float alpha = 1.0f;
  const float* a = nullptr;
  int64_t lda = 0;
  const float* b = nullptr;
  int64_t ldb = 0;
  float beta = 0.0f;
  float* c = nullptr;
  int64_t ldc = 0;
};

void gemm(Pool& pool, const GemmArgs& args);
// One single-threaded library call on the calling thread, for use inside pool items.
void gemm_single(const GemmArgs& args);

// How gemm() cuts C: a function of the shape alone.
struct GemmTiling {
  int64_t rows = 0;
  int64_t cols = 0;
};
GemmTiling gemm_tiling(int64_t m, int64_t n, int64_t k);

// Pins the library's thread count to one for the calling thread (see prepare_compute_thread).
void prepare_gemm_thread();
// What computes: "builtin", or "dnnl" and the SHA-256 of the library's file. Part of the numerics class.
std::string gemm_identity();

}  // namespace collimate
