// bf16 products on the tensor cores.
//
// 1. A block owns a 128 x 128 tile of the result; eight warps own 32 x 64 each, and its k runs from first to last.
// 2. An operand lies in shared memory as it lies in memory, along k or across it: the matrix loads transpose.
// 3. While a slice of 32 terms is multiplied the next one is on its way from memory into registers.
// Floors at 4096 x 4096 x 4096 on an H100: 137 GFLOP at 778 TFLOP/s = 0.18 ms; mma.sync reaches about 60 % of that,
// cuBLASLt's wgmma the rest. Not measured yet: no card.
#include "cuda/cublaslt.h"
#include "cuda/gemm.h"
#include "cuda/launch.h"
#include "cuda/warp_matrix.h"

namespace collimate::cuda {
namespace {

constexpr int kTile = 128, kDepth = 32, kThreads = 256;
constexpr int kWarpRows = 32, kWarpColumns = 64;
constexpr int kPitch = kDepth + 8;       // of rows along k: ldmatrix meets eight different bank groups
constexpr int kPitchAcross = kTile + 8;  // of rows across k
constexpr int kVector = 8;               // values of a 16-byte load
constexpr int kVectorsPerThread = kTile * kDepth / kVector / kThreads;  // 2

// One operand as a tile sees it: `size` rows or columns of c from `first` on.
struct Operand {
  const uint16_t* values;
  int64_t stride, first, size, k;
  bool aligned;  // rows begin on 16 bytes
};

__device__ __forceinline__ bool on_16_bytes(const uint16_t* values, int64_t stride) {
  return reinterpret_cast<uintptr_t>(values) % 16 == 0 && stride % kVector == 0;
}

// Vector number `number` of a slice: which of the operand's rows it belongs to, and which of its terms. Along k it
// holds eight terms of a row, across k one term of eight rows.
template <bool kAlong>
struct Place {
  int row, term;
  __device__ __forceinline__ explicit Place(int number)
      : row(kAlong ? number / (kDepth / kVector) : number % (kTile / kVector) * kVector),
        term(kAlong ? number % (kDepth / kVector) * kVector : number / (kTile / kVector)) {}
};

template <bool kAlong>
__device__ __forceinline__ uint4 fetch_vector(const Operand& x, int number, int64_t first_term) {
  const Place<kAlong> place(number);
  const int64_t row = x.first + place.row, term = first_term + place.term;
  const uint16_t* from = x.values + (kAlong ? row * x.stride + term : term * x.stride + row);
  const int64_t inside = kAlong ? (row < x.size ? x.k - term : 0) : (term < x.k ? x.size - row : 0);
  if (x.aligned && inside >= kVector) return *reinterpret_cast<const uint4*>(from);
  const auto value = [&](int i) { return i < inside ? static_cast<unsigned>(from[i]) : 0u; };
  return {value(0) | value(1) << 16, value(2) | value(3) << 16, value(4) | value(5) << 16, value(6) | value(7) << 16};
}

// What a thread holds of the next slice of one operand.
struct Slice {
  uint4 vectors[kVectorsPerThread];
};

template <bool kAlong>
__device__ __forceinline__ void fetch(Slice& slice, const Operand& x, int64_t first_term) {
  COLLIMATE_UNROLL
  for (int v = 0; v < kVectorsPerThread; ++v)
    slice.vectors[v] = fetch_vector<kAlong>(x, v * kThreads + static_cast<int>(threadIdx.x), first_term);
}

template <bool kAlong>
__device__ __forceinline__ void put(const Slice& slice, uint16_t* shared) {
  COLLIMATE_UNROLL
  for (int v = 0; v < kVectorsPerThread; ++v) {
    const Place<kAlong> place(v * kThreads + static_cast<int>(threadIdx.x));
    const int at = kAlong ? place.row * kPitch + place.term : place.term * kPitchAcross + place.row;
    *reinterpret_cast<uint4*>(shared + at) = slice.vectors[v];
  }
}

template <bool kAlong>
constexpr int kSharedValues = kAlong ? kTile * kPitch : kDepth * kPitchAcross;

// The fragments of a 16 x 16 part of `a` (rows from `row`) and of `b` (columns from `column`), terms from `term`.
template <bool kAlong>
__device__ __forceinline__ MatrixFragments left_fragments(const uint16_t* left, int row, int term) {
  const int lane = lane_of_thread();
  if constexpr (kAlong) return load_matrices<false>(left + (row + lane % 16) * kPitch + term + lane / 16 * 8);
  return load_matrices<true>(left + (term + lane / 16 * 8 + lane % 8) * kPitchAcross + row + lane / 8 % 2 * 8);
}
template <bool kAlong>
__device__ __forceinline__ MatrixFragments right_fragments(const uint16_t* right, int column, int term) {
  const int lane = lane_of_thread();
  if constexpr (kAlong)
    return load_matrices<false>(right + (column + lane / 16 * 8 + lane % 8) * kPitch + term + lane / 8 % 2 * 8);
  return load_matrices<true>(right + (term + lane % 16) * kPitchAcross + column + lane / 16 * 8);
}

template <bool kLeftAlong, bool kRightAlong>
__global__ void __launch_bounds__(kThreads) product_tile(Bf16Product g) {
  __shared__ __align__(16) uint16_t left[kSharedValues<kLeftAlong>];
  __shared__ __align__(16) uint16_t right[kSharedValues<kRightAlong>];
  const int64_t row = static_cast<int64_t>(blockIdx.y) * kTile, column = static_cast<int64_t>(blockIdx.x) * kTile;
  const int64_t begin = blockIdx.z * g.k_block,
                end = g.k_block > 0 && begin + g.k_block < g.k ? begin + g.k_block : g.k;
  const Operand a{g.a, g.lda, row, g.m, end, on_16_bytes(g.a, g.lda)};
  const Operand b{g.b, g.ldb, column, g.n, end, on_16_bytes(g.b, g.ldb)};
  const int lane = lane_of_thread(), warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int warp_row = warp / 2 * kWarpRows, warp_column = warp % 2 * kWarpColumns;
  float sum[kWarpRows / 16][kWarpColumns / 8][4] = {};
  Slice next_left, next_right;
  fetch<kLeftAlong>(next_left, a, begin);
  fetch<kRightAlong>(next_right, b, begin);
  for (int64_t first = begin; first < end; first += kDepth) {
    put<kLeftAlong>(next_left, left);
    put<kRightAlong>(next_right, right);
    __syncthreads();
    if (first + kDepth < end) {
      fetch<kLeftAlong>(next_left, a, first + kDepth);
      fetch<kRightAlong>(next_right, b, first + kDepth);
    }
    COLLIMATE_UNROLL
    for (int term = 0; term < kDepth; term += 16) {
      MatrixFragments of_a[kWarpRows / 16];
      COLLIMATE_UNROLL
      for (int i = 0; i < kWarpRows / 16; ++i) of_a[i] = left_fragments<kLeftAlong>(left, warp_row + 16 * i, term);
      COLLIMATE_UNROLL
      for (int j = 0; j < kWarpColumns / 16; ++j) {
        const MatrixFragments of_b = right_fragments<kRightAlong>(right, warp_column + 16 * j, term);
        COLLIMATE_UNROLL
        for (int i = 0; i < kWarpRows / 16; ++i) {
          multiply_add(sum[i][2 * j], of_a[i].part, of_b.part[0], of_b.part[1]);
          multiply_add(sum[i][2 * j + 1], of_a[i].part, of_b.part[2], of_b.part[3]);
        }
      }
    }
    __syncthreads();
  }
  float* c = g.c_bf16 ? nullptr : g.c + blockIdx.z * g.m * g.ldc;
  COLLIMATE_UNROLL
  for (int i = 0; i < kWarpRows / 16; ++i) {
    COLLIMATE_UNROLL
    for (int j = 0; j < kWarpColumns / 8; ++j) {
      COLLIMATE_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int64_t at_row = row + warp_row + 16 * i + lane / 4 + e / 2 * 8;
        const int64_t at_column = column + warp_column + 8 * j + lane % 4 * 2 + e % 2;
        if (at_row >= g.m || at_column >= g.n) continue;
        const float value = g.alpha * sum[i][j][e];
        const int64_t at = at_row * g.ldc + at_column;
        if (g.c_bf16) {
          uint16_t* to = g.c_bf16 + at;
          *to = static_cast<uint16_t>(bf16_bits(g.accumulate ? from_bf16_bits(*to) + value : value));
        } else {
          c[at] = g.accumulate ? c[at] + value : value;
        }
      }
    }
  }
}

void run_own_kernel(Device& device, const Bf16Product& g) {
  const unsigned blocks = g.k_block > 0 ? blocks_for(g.k, g.k_block) : 1;
  const Launch shape{{blocks_for(g.n, kTile), blocks_for(g.m, kTile), blocks}, kThreads};
  const auto kernel = g.transpose_a ? (g.transpose_b ? product_tile<false, true> : product_tile<false, false>)
                                    : (g.transpose_b ? product_tile<true, true> : product_tile<true, false>);
  launch(device, "gemm_bf16", shape, kernel, g);
}

// One thread rounds eight columns of a row.
__global__ void round_columns(RoundedRows g) {
  const int64_t across = (g.filled + kVector - 1) / kVector;
  const int64_t row = global_thread() / across, first = global_thread() % across * kVector;
  if (row >= g.rows) return;
  const float* from = g.from + row * g.from_stride + first;
  uint16_t* to = g.to + row * g.to_stride + first;
  const bool whole = first + kVector <= g.width && reinterpret_cast<uintptr_t>(from) % 16 == 0 &&
                     reinterpret_cast<uintptr_t>(to) % 16 == 0;
  if (whole) {
    const float4 low = *reinterpret_cast<const float4*>(from), high = *reinterpret_cast<const float4*>(from + 4);
    *reinterpret_cast<uint4*>(to) = {
        pack_bf16(g.factor * low.x, g.factor * low.y), pack_bf16(g.factor * low.z, g.factor * low.w),
        pack_bf16(g.factor * high.x, g.factor * high.y), pack_bf16(g.factor * high.z, g.factor * high.w)};
    return;
  }
  for (int i = 0; i < kVector && first + i < g.filled; ++i)
    to[i] = first + i < g.width ? static_cast<uint16_t>(bf16_bits(g.factor * from[i])) : uint16_t{0};
}

}  // namespace

void gemm_bf16(Device& device, const Bf16Product& product) {
  if (product.m == 0 || product.n == 0) return;
  if (product.k_block == 0 && device.cublaslt().multiply(device, product)) return;
  run_own_kernel(device, product);
}

void round_rows(Device& device, const RoundedRows& args) {
  const int64_t across = (args.filled + kVector - 1) / kVector;
  launch(device, "round_rows", {blocks_for(args.rows * across, kThreads), kThreads}, round_columns, args);
}

void round_to_bf16(Device& device, const float* from, int64_t count, float factor, uint16_t* to) {
  round_rows(device, {.rows = 1,
                      .width = count,
                      .from = from,
                      .from_stride = count,
                      .factor = factor,
                      .to = to,
                      .to_stride = count,
                      .filled = count});
}

}  // namespace collimate::cuda
