// bf16 products on the tensor cores, with an adapter's low-rank term added to the same accumulators.
//
// 1. A block owns a 128 x 128 tile of the result; eight warps own 32 x 64 each. Its k runs through the frozen operand
// and
//    then through each term that touches the tile: the low-rank part costs rank / k of the product and no pass over c.
// 2. While a slice of 32 terms is multiplied the next one is on its way from memory into registers.
// Floors at 4096 x 4096 x 4096 on an H100: 137 GFLOP at 778 TFLOP/s = 0.18 ms; mma.sync reaches about 60 % of that,
// wgmma the rest. Not measured yet: no card.
#include "cuda/gemm.h"
#include "cuda/launch.h"
#include "cuda/warp_matrix.h"

namespace collimate::cuda {
namespace {

constexpr int kRows = 128, kColumns = 128, kDepth = 32, kThreads = 256;
constexpr int kWarpRows = 32, kWarpColumns = 64;
constexpr int kPitch = kDepth + 8;          // of rows along k: ldmatrix meets eight different bank groups
constexpr int kPitchAcross = kColumns + 8;  // of rows along n
constexpr int kLeftPerThread = kRows * kDepth / kThreads;      // 16
constexpr int kRightPerThread = kColumns * kDepth / kThreads;  // 16

// One run of k: the frozen operand or a term, as the tile's columns [shift, shift + width) see it.
struct Run {
  const float* a;
  int64_t lda;
  const uint16_t* b;
  int64_t ldb, k;
  int64_t column, width;  // of c
};

__device__ __forceinline__ Run run_of(const Bf16Product& g, int number) {
  if (number == 0) return {g.a, g.lda, g.b, g.transpose_b ? g.k : g.n, g.k, 0, g.n};
  const LowRankTerm& t = g.term[number - 1];
  return {t.x, t.rank, t.right, g.transpose_b ? t.rank : t.width, t.rank, t.column, t.width};
}

// What a thread holds of the next slice.
struct Slice {
  unsigned left[kLeftPerThread / 2];
  uint16_t right[kRightPerThread];
};

// Two neighbours along k of 8 rows of `a`.
__device__ __forceinline__ void fetch_left(Slice& slice, const Bf16Product& g, const Run& run, int64_t row,
                                           int64_t first) {
  const int thread = static_cast<int>(threadIdx.x);
  COLLIMATE_UNROLL
  for (int e = 0; e < kLeftPerThread / 2; ++e) {
    const int pair = e * kThreads + thread;
    const int64_t i = row + pair / (kDepth / 2), p = first + 2 * (pair % (kDepth / 2));
    const float low = i < g.m && p < run.k ? run.a[i * run.lda + p] : 0.0f;
    const float high = i < g.m && p + 1 < run.k ? run.a[i * run.lda + p + 1] : 0.0f;
    slice.left[e] = pack_bf16(low, high);
  }
}

template <bool kTransposed>
__device__ __forceinline__ void fetch_right(Slice& slice, const Run& run, int64_t column, int64_t first) {
  const int thread = static_cast<int>(threadIdx.x);
  COLLIMATE_UNROLL
  for (int e = 0; e < kRightPerThread; ++e) {
    const int element = e * kThreads + thread;
    const int64_t j = column - run.column + (kTransposed ? element / kDepth : element % kColumns);
    const int64_t p = first + (kTransposed ? element % kDepth : element / kColumns);
    const bool inside = j >= 0 && j < run.width && p < run.k;
    slice.right[e] = inside ? (kTransposed ? run.b[j * run.ldb + p] : run.b[p * run.ldb + j]) : uint16_t{0};
  }
}

template <bool kTransposed>
__device__ __forceinline__ void put(const Slice& slice, uint16_t* left, uint16_t* right) {
  const int thread = static_cast<int>(threadIdx.x);
  COLLIMATE_UNROLL
  for (int e = 0; e < kLeftPerThread / 2; ++e) {
    const int pair = e * kThreads + thread;
    *reinterpret_cast<unsigned*>(left + pair / (kDepth / 2) * kPitch + 2 * (pair % (kDepth / 2))) = slice.left[e];
  }
  COLLIMATE_UNROLL
  for (int e = 0; e < kRightPerThread; ++e) {
    const int element = e * kThreads + thread;
    right[kTransposed ? element / kDepth * kPitch + element % kDepth
                      : element / kColumns * kPitchAcross + element % kColumns] = slice.right[e];
  }
}

template <bool kTransposed>
__global__ void __launch_bounds__(kThreads) product_tile(Bf16Product g) {
  __shared__ __align__(16) uint16_t left[kRows * kPitch];
  __shared__ __align__(16) uint16_t right[kTransposed ? kColumns * kPitch : kDepth * kPitchAcross];
  const int64_t row = static_cast<int64_t>(blockIdx.y) * kRows, column = static_cast<int64_t>(blockIdx.x) * kColumns;
  const int lane = lane_of_thread(), warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int warp_row = warp / 2 * kWarpRows, warp_column = warp % 2 * kWarpColumns;
  float sum[kWarpRows / 16][kWarpColumns / 8][4] = {};
  for (int number = 0; number <= g.terms; ++number) {
    const Run run = run_of(g, number);
    if (column + kColumns <= run.column || column >= run.column + run.width) continue;
    Slice slice;
    fetch_left(slice, g, run, row, 0);
    fetch_right<kTransposed>(slice, run, column, 0);
    for (int64_t first = 0; first < run.k; first += kDepth) {
      put<kTransposed>(slice, left, right);
      __syncthreads();
      if (first + kDepth < run.k) {
        fetch_left(slice, g, run, row, first + kDepth);
        fetch_right<kTransposed>(slice, run, column, first + kDepth);
      }
      COLLIMATE_UNROLL
      for (int depth = 0; depth < kDepth; depth += 16) {
        MatrixFragments a[kWarpRows / 16];
        COLLIMATE_UNROLL
        for (int i = 0; i < kWarpRows / 16; ++i)
          a[i] = load_matrices<false>(left + (warp_row + 16 * i + lane % 16) * kPitch + depth + lane / 16 * 8);
        COLLIMATE_UNROLL
        for (int j = 0; j < kWarpColumns / 16; ++j) {
          // Rows of b along k give, transposed as they are loaded, what rows along n give as they are.
          const int n = warp_column + 16 * j;
          const MatrixFragments b =
              kTransposed
                  ? load_matrices<false>(right + (n + lane / 16 * 8 + lane % 8) * kPitch + depth + lane / 8 % 2 * 8)
                  : load_matrices<true>(right + (depth + lane % 16) * kPitchAcross + n + lane / 16 * 8);
          COLLIMATE_UNROLL
          for (int i = 0; i < kWarpRows / 16; ++i) {
            multiply_add(sum[i][2 * j], a[i].part, b.part[0], b.part[1]);
            multiply_add(sum[i][2 * j + 1], a[i].part, b.part[2], b.part[3]);
          }
        }
      }
      __syncthreads();
    }
  }
  COLLIMATE_UNROLL
  for (int i = 0; i < kWarpRows / 16; ++i) {
    COLLIMATE_UNROLL
    for (int j = 0; j < kWarpColumns / 8; ++j) {
      COLLIMATE_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int64_t at_row = row + warp_row + 16 * i + lane / 4 + e / 2 * 8;
        const int64_t at_column = column + warp_column + 8 * j + lane % 4 * 2 + e % 2;
        if (at_row >= g.m || at_column >= g.n) continue;
        float* to = g.c + at_row * g.ldc + at_column;
        *to = g.accumulate ? *to + sum[i][j][e] : sum[i][j][e];
      }
    }
  }
}

__global__ void round_values(const float* from, int64_t count, float factor, uint16_t* to) {
  const int64_t i = global_thread();
  if (i < count) to[i] = static_cast<uint16_t>(bf16_bits(factor * from[i]));
}

}  // namespace

void gemm_bf16(Device& device, const Bf16Product& g) {
  const Launch shape{{blocks_for(g.n, kColumns), blocks_for(g.m, kRows)}, kThreads};
  if (g.transpose_b)
    launch(device, "gemm_bf16", shape, product_tile<true>, g);
  else
    launch(device, "gemm_bf16", shape, product_tile<false>, g);
}

void round_to_bf16(Device& device, const float* from, int64_t count, float factor, uint16_t* to) {
  launch(device, "round_to_bf16", {blocks_for(count, kThreads), kThreads}, round_values, from, count, factor, to);
}

}  // namespace collimate::cuda
