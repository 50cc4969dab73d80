// fp32 products: 64 x 64 tiles of the result, sixteen terms of k at a time through shared memory.
//
// Floors at 4096^3 on an H100: 137 GFLOP at 60 TFLOP/s fp32 = 2.3 ms, 0.2 GB = 0.07 ms. It serves what must be fp32
// (weight gradients, fp32 runs); the frozen products of a bf16 run go through gemm_bf16.
#include "cuda/gemm.h"
#include "cuda/launch.h"

namespace collimate::cuda {
namespace {

constexpr int kTile = 64, kDepth = 16, kThreads = 256, kOwn = 4;  // each thread owns 4 x 4 results
constexpr int kPitch = kTile + 4;  // of a shared row: no two of a warp's rows in one bank

// Element (i, p) of op(a), 0 beyond its edges.
__device__ __forceinline__ float left_value(const Fp32Product& g, int64_t i, int64_t p) {
  if (i >= g.m || p >= g.k) return 0.0f;
  return g.transpose_a ? g.a[p * g.lda + i] : g.a[i * g.lda + p];
}
__device__ __forceinline__ float right_value(const Fp32Product& g, int64_t p, int64_t j) {
  if (j >= g.n || p >= g.k) return 0.0f;
  return g.transpose_b ? g.b[j * g.ldb + p] : g.b[p * g.ldb + j];
}

__global__ void __launch_bounds__(kThreads) product_tile(Fp32Product g) {
  __shared__ float left[kDepth][kPitch];
  __shared__ float right[kDepth][kPitch];
  const int64_t row = static_cast<int64_t>(blockIdx.y) * kTile, column = static_cast<int64_t>(blockIdx.x) * kTile;
  const int thread = static_cast<int>(threadIdx.x), own_row = thread / 16 * kOwn, own_column = thread % 16 * kOwn;
  float sum[kOwn][kOwn] = {};
  if (g.k_block > 0) {
    const int64_t begin = blockIdx.z * g.k_block;
    g.a += begin * (g.transpose_a ? g.lda : 1);
    g.b += begin * (g.transpose_b ? 1 : g.ldb);
    g.c += blockIdx.z * g.m * g.n;
    g.k = begin + g.k_block < g.k ? g.k_block : g.k - begin;
  }
  for (int64_t first = 0; first < g.k; first += kDepth) {
    // Neighbouring threads read neighbouring addresses, whichever way the operand lies.
    for (int e = thread; e < kTile * kDepth; e += kThreads) {
      const int ip = g.transpose_a ? e / kTile : e % kDepth, ii = g.transpose_a ? e % kTile : e / kDepth;
      left[ip][ii] = left_value(g, row + ii, first + ip);
      const int jp = g.transpose_b ? e % kDepth : e / kTile, jj = g.transpose_b ? e / kDepth : e % kTile;
      right[jp][jj] = right_value(g, first + jp, column + jj);
    }
    __syncthreads();
    COLLIMATE_UNROLL
    for (int p = 0; p < kDepth; ++p) {
      float a[kOwn], b[kOwn];
      COLLIMATE_UNROLL
      for (int i = 0; i < kOwn; ++i) a[i] = left[p][own_row + i];
      COLLIMATE_UNROLL
      for (int j = 0; j < kOwn; ++j) b[j] = right[p][own_column + j];
      COLLIMATE_UNROLL
      for (int i = 0; i < kOwn; ++i) COLLIMATE_UNROLL
      for (int j = 0; j < kOwn; ++j) sum[i][j] = fmaf(a[i], b[j], sum[i][j]);
    }
    __syncthreads();
  }
  COLLIMATE_UNROLL
  for (int i = 0; i < kOwn; ++i) {
    COLLIMATE_UNROLL
    for (int j = 0; j < kOwn; ++j) {
      if (row + own_row + i >= g.m || column + own_column + j >= g.n) continue;
      float* to = g.c + (row + own_row + i) * g.ldc + column + own_column + j;
      *to = g.accumulate ? *to + g.alpha * sum[i][j] : g.alpha * sum[i][j];
    }
  }
}

}  // namespace

void gemm_fp32(Device& device, const Fp32Product& g) {
  const unsigned parts = g.k_block > 0 ? blocks_for(g.k, g.k_block) : 1;
  launch(device, "gemm_fp32", {{blocks_for(g.n, kTile), blocks_for(g.m, kTile), parts}, kThreads}, product_tile, g);
}

}  // namespace collimate::cuda
