// What attention's kernels on the tensor cores share: rounded operands, tiles in shared memory, and products whose
// results stay in registers.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/attention_rows.h"
#include "cuda/math.h"
#include "cuda/warp_matrix.h"

namespace collimate::cuda::attention {

constexpr int kRows = 64, kOthers = 32, kThreads = 128, kWarpRows = 16;
constexpr int kVector = 8;  // bf16 values of 16 bytes
constexpr float kLog2E = 1.44269504088896340736f, kLn2 = 0.69314718055994530942f;

// Rows of heads in bf16: value c < width of head h of row t is at values[t * stride + h * width + c]. The width is a
// multiple of eight, up to the columns that a kernel is for.
struct Operand {
  const uint16_t* values = nullptr;
  int64_t stride = 0, width = 0;
};
struct Operands {
  Operand q{}, k{}, v{}, dout{};
};

// kCount rows of one head from `row` on into shared memory; zeros beyond the last row and column.
template <int kDim, int kCount>
__device__ __forceinline__ void load_rows(uint16_t* to, const Operand& from, int64_t head, int64_t row, int64_t rows) {
  constexpr int kPitch = kDim + kVector, kAcross = kDim / kVector;
  for (int e = static_cast<int>(threadIdx.x); e < kCount * kAcross; e += kThreads) {
    const int i = e / kAcross, c = e % kAcross * kVector;
    uint4 values{0, 0, 0, 0};
    if (row + i < rows && c < from.width)
      values = *reinterpret_cast<const uint4*>(from.values + (row + i) * from.stride + head * from.width + c);
    *reinterpret_cast<uint4*>(to + i * kPitch + c) = values;
  }
}

// product[16, 32] = a[16, D] b[32, D]ᵀ, both rows of shared memory.
using Scores = float[kOthers / 8][4];
template <int kDim>
__device__ __forceinline__ void multiply_rows(Scores& product, const uint16_t* a, const uint16_t* b) {
  constexpr int kPitch = kDim + kVector;
  const int lane = lane_of_thread();
  COLLIMATE_UNROLL
  for (int n = 0; n < kOthers / 8; ++n) {
    COLLIMATE_UNROLL
    for (int e = 0; e < 4; ++e) product[n][e] = 0.0f;
  }
  COLLIMATE_UNROLL
  for (int c = 0; c < kDim; c += 16) {
    const MatrixFragments of_a = load_matrices<false>(a + lane % 16 * kPitch + c + lane / 16 * 8);
    COLLIMATE_UNROLL
    for (int n = 0; n < kOthers / 16; ++n) {
      const MatrixFragments of_b =
          load_matrices<false>(b + (16 * n + lane / 16 * 8 + lane % 8) * kPitch + c + lane / 8 % 2 * 8);
      multiply_add(product[2 * n], of_a.part, of_b.part[0], of_b.part[1]);
      multiply_add(product[2 * n + 1], of_a.part, of_b.part[2], of_b.part[3]);
    }
  }
}

// sum[16, D] += weights[16, 32] b[32, D]: weights as the product above leaves them, rounded here.
template <int kDim>
__device__ __forceinline__ void add_weighted(float (&sum)[kDim / 8][4], const Scores& weights, const uint16_t* b) {
  constexpr int kPitch = kDim + kVector;
  const int lane = lane_of_thread();
  COLLIMATE_UNROLL
  for (int k = 0; k < kOthers / 16; ++k) {
    const unsigned left[4] = {pack_bf16(weights[2 * k][0], weights[2 * k][1]),
                              pack_bf16(weights[2 * k][2], weights[2 * k][3]),
                              pack_bf16(weights[2 * k + 1][0], weights[2 * k + 1][1]),
                              pack_bf16(weights[2 * k + 1][2], weights[2 * k + 1][3])};
    COLLIMATE_UNROLL
    for (int c = 0; c < kDim / 16; ++c) {
      const MatrixFragments of_b = load_matrices<true>(b + (16 * k + lane % 16) * kPitch + 16 * c + lane / 16 * 8);
      multiply_add(sum[2 * c], left, of_b.part[0], of_b.part[1]);
      multiply_add(sum[2 * c + 1], left, of_b.part[2], of_b.part[3]);
    }
  }
}

// A lane's values of a product: rows lane / 4 and 8 below (`half`), columns 8 n + 2 (lane % 4) and the next one.
__device__ __forceinline__ int row_of(int half) { return lane_of_thread() / 4 + 8 * half; }
__device__ __forceinline__ int column_of(int n, int e) { return 8 * n + lane_of_thread() % 4 * 2 + e % 2; }

// Over the four lanes that share a row.
__device__ __forceinline__ float largest_of_row(float value) {
  for (int distance = 2; distance > 0; distance /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, value, distance);
    value = other > value ? other : value;
  }
  return value;
}
__device__ __forceinline__ float sum_of_row(float value) {
  for (int distance = 2; distance > 0; distance /= 2) value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}

// The rows of a block's warp, and what they see.
struct WarpRows {
  int64_t first, row[2], first_key[2];
  bool inside[2];
};
__device__ __forceinline__ WarpRows rows_of_warp(const AttentionForward& f, int64_t block_row) {
  WarpRows w;
  w.first = block_row + static_cast<int>(threadIdx.x) / kWarpSize * kWarpRows;
  for (int half = 0; half < 2; ++half) {
    w.row[half] = w.first + row_of(half);
    w.inside[half] = w.row[half] < f.rows;
    w.first_key[half] = w.inside[half] ? first_key(f, w.row[half]) : f.rows;
  }
  return w;
}
__device__ __forceinline__ bool is_seen(const WarpRows& w, int half, int64_t key) {
  return key <= w.row[half] && key >= w.first_key[half];
}
// Whether no row of the warp sees any of the tile; the same in all lanes.
__device__ __forceinline__ bool is_out_of_sight(const AttentionForward& f, const WarpRows& w, int64_t key) {
  return w.first >= f.rows || key > w.first + kWarpRows - 1 || key + kOthers <= first_key(f, w.first);
}

// c[16, D] of a warp to rows of `stride` floats.
template <int kDim>
__device__ __forceinline__ void store_rows(float* to, int64_t stride, int64_t dim, const WarpRows& w,
                                           const float (&c)[kDim / 8][4], const float (&factor)[2]) {
  COLLIMATE_UNROLL
  for (int n = 0; n < kDim / 8; ++n) {
    COLLIMATE_UNROLL
    for (int e = 0; e < 4; ++e)
      if (w.inside[e / 2] && column_of(n, e) < dim)
        to[w.row[e / 2] * stride + column_of(n, e)] = c[n][e] * factor[e / 2];
  }
}

// The same in bf16; `dim` is even, and so are stride and alignment.
template <int kDim>
__device__ __forceinline__ void store_rows(uint16_t* to, int64_t stride, int64_t dim, const WarpRows& w,
                                           const float (&c)[kDim / 8][4], const float (&factor)[2]) {
  COLLIMATE_UNROLL
  for (int n = 0; n < kDim / 8; ++n) {
    COLLIMATE_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int column = column_of(n, 0);
      if (w.inside[half] && column < dim)
        *reinterpret_cast<unsigned*>(to + w.row[half] * stride + column) =
            pack_bf16(c[n][2 * half] * factor[half], c[n][2 * half + 1] * factor[half]);
    }
  }
}

template <int kDim>
constexpr size_t shared_bytes(int rows) {
  return static_cast<size_t>(rows) * (kDim + kVector) * sizeof(uint16_t);
}

// Calls body with an integral constant: the columns of a head, filled up.
template <typename Body>
void with_columns(int64_t head_dim, const Body& body) {
  if (head_dim <= 32) return body(std::integral_constant<int, 32>{});
  if (head_dim <= 64) return body(std::integral_constant<int, 64>{});
  return body(std::integral_constant<int, 128>{});
}
inline int64_t filled_columns(int64_t head_dim) {
  int64_t filled = 0;
  with_columns(head_dim, [&](auto columns) { filled = columns(); });
  return filled;
}

inline Launch blocks_of(const AttentionForward& f, int64_t heads, size_t shared) {
  return {{blocks_for(f.rows, kRows), static_cast<unsigned>(heads)}, kThreads, shared};
}

// One operand of `heads` heads: as it was given, or rounded into `to`, [rows, heads, D] with columns filled up by
// zeros.
Operand in_bf16(Device& device, const AttentionForward& f, int64_t heads, const float* from, int64_t stride,
                const ops::RowsOfBf16& given, uint16_t* to);

}  // namespace collimate::cuda::attention
