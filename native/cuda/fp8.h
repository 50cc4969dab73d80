// Eight-bit floats for frozen products: e4m3 for weights and activations, e5m2 for gradients, with one scale a matrix.
//
// 1. A scale is a power of two, from the largest magnitude: scaling rounds nothing, and a value is rounded once.
// 2. Values beyond the largest are not there by construction; NaN stays NaN.
#pragma once

#include <cstdint>

#include "cuda/device.h"

namespace collimate::cuda {

enum class Fp8Format { e4m3, e5m2 };

// Rows in fp32 or, where `bf16` is not null, in bf16.
struct RowsToRound {
  const float* fp32 = nullptr;
  const uint16_t* bf16 = nullptr;
  int64_t stride = 0;
  RowsToRound from_row(int64_t row) const {
    return {fp32 ? fp32 + row * stride : nullptr, bf16 ? bf16 + row * stride : nullptr, stride};
  }
};

// largest[0] = the largest |x| of rows of `width` values. NaN counts as larger than all.
struct Magnitudes {
  int64_t rows = 0, width = 0;
  RowsToRound x{};
  float* largest = nullptr;
};
void largest_magnitude(Device& device, const Magnitudes& args);

// What `from` is in eight bits: as codes, and as bf16 values (which hold them exactly). Either may be null.
struct Fp8Rows {
  Fp8Format format = Fp8Format::e4m3;
  int64_t rows = 0, width = 0;
  RowsToRound from{};
  const float* largest = nullptr;   // of `from`
  uint8_t* codes = nullptr;         // [rows, width], scaled
  uint8_t* codes_across = nullptr;  // [width, rows]
  float* inverse_scale = nullptr;   // [1]: a value is its code times this; goes with the codes
  uint16_t* values = nullptr;       // not scaled
  int64_t values_stride = 0;
};
void round_to_fp8(Device& device, const Fp8Rows& args);

}  // namespace collimate::cuda
