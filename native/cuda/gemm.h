// Matrix products on a device, row-major, one order of sums per shape.
//
// 1. The order of a sum over k is a function of the shape: from first to last, or, where a caller asks, in blocks of
//    k_block terms that it adds itself. It never depends on the card's size.
// 2. `gemm_fp32` multiplies and adds in fp32 (explicit fused multiply-adds). `gemm_bf16` multiplies bf16 values and
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

// c[m, n] = alpha op(a) op(b) (+ c), operands in bf16, c in fp32 or rounded to bf16
struct Bf16Product {
  bool transpose_a = false, transpose_b = false;
  int64_t m = 0, n = 0, k = 0;
  float alpha = 1.0f;
  const uint16_t* a = nullptr;  // [m, k], or [k, m] transposed
  int64_t lda = 0;
  const uint16_t* b = nullptr;  // [k, n], or [n, k] transposed
  int64_t ldb = 0;
  bool accumulate = false;
  float* c = nullptr;          // [m, n]
  uint16_t* c_bf16 = nullptr;  // [m, n], in place of c where it is given; not with k_block
  int64_t ldc = 0;
  // As above. Such a product is always a kernel of ours.
  int64_t k_block = 0;
};
// By cuBLASLt where the device has it (cuda/cublaslt.h), else by a kernel of ours.
void gemm_bf16(Device& device, const Bf16Product& product);

// Columns [0, width) of `to` = bf16(factor from), columns [width, filled) zero.
struct RoundedRows {
  int64_t rows = 0, width = 0;
  const float* from = nullptr;
  int64_t from_stride = 0;
  float factor = 1.0f;
  uint16_t* to = nullptr;
  int64_t to_stride = 0;
  int64_t filled = 0;
};
void round_rows(Device& device, const RoundedRows& args);
// to[i] = bf16(factor * from[i])
void round_to_bf16(Device& device, const float* from, int64_t count, float factor, uint16_t* to);

}  // namespace collimate::cuda
