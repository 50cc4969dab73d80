// Row-major fp32 matrix products through one pinned library, called single-threaded per fixed tile.
//
// Tiles depend on (M, N, K) only, and K is never split between threads, so the bytes of C do not depend on the pool.
#pragma once

#include <cstdint>

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

}  // namespace collimate
