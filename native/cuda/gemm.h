// Matrix products on a device, row-major, one order of sums per shape.
//
// 1. The sum over k runs in one thread block from first to last: never split, so never added in an order that depends
// on
//    the card.
// 2. `gemm_fp32` multiplies and adds in fp32 (explicit fused multiply-adds). `gemm_bf16` rounds both operands to bf16
// and
//    adds in fp32 on the tensor cores.
#pragma once

#include <cstdint>

#include "cuda/device.h"

namespace collimate::cuda {

// c[m, n] = alpha op(a) op(b) (+ c)
struct Fp32Product {
  bool transpose_a = false, transpose_b = false;
  int64_t m = 0, n = 0, k = 0;
  float alpha = 1.0f;
  const float* a = nullptr;  // [m, k], or [k, m] transposed
  int64_t lda = 0;
  const float* b = nullptr;  // [k, n], or [n, k] transposed
  int64_t ldb = 0;
  bool accumulate = false;
  float* c = nullptr;  // [m, n]
  int64_t ldc = 0;
  // Above 0: c is [ceil(k / k_block), m, n], contiguous, one sum for each block of so many terms.
  int64_t k_block = 0;
};
void gemm_fp32(Device& device, const Fp32Product& product);

// A low-rank part of a product: columns [column, column + width) of c += x right.
struct LowRankTerm {
  int64_t column = 0, width = 0, rank = 0;
  const float* x = nullptr;         // [m, rank], contiguous
  const uint16_t* right = nullptr;  // as `b`: [width, rank] transposed, else [rank, width]
};
constexpr int kLowRankTermsMax = 3;  // q, k and v; gate and up

// c[m, n] = a op(b) + terms (+ c)
struct Bf16Product {
  bool transpose_b = false;
  int64_t m = 0, n = 0, k = 0;
  const float* a = nullptr;  // [m, k], rounded as it is read
  int64_t lda = 0;
  const uint16_t* b = nullptr;  // bf16 [k, n], or [n, k] transposed, contiguous
  int terms = 0;
  LowRankTerm term[kLowRankTermsMax];
  bool accumulate = false;
  float* c = nullptr;
  int64_t ldc = 0;
};
void gemm_bf16(Device& device, const Bf16Product& product);

// to[i] = bf16(factor * from[i])
void round_to_bf16(Device& device, const float* from, int64_t count, float factor, uint16_t* to);

}  // namespace collimate::cuda
