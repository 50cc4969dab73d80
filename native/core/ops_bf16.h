// Linear layers and their adapters on the bf16 unit: activations fp32 in and out, products of bf16 values, fp32 sums.
//
// Shapes as in core/ops.h. Weight gradients are not here: they are fp32 products. Packed matrices among the arguments
// are those of the backend that runs the op.
#pragma once

#include <cstdint>
#include <span>

#include "core/gemm_bf16.h"
#include "core/pool.h"

namespace collimate::ops {

// W [out, in] in the form that a backend's products read.
struct PackedMatrix {
  struct Source {
    const float* values = nullptr;  // [out, in]
    int64_t out = 0, in = 0;
    float factor = 1.0f;
  };
  virtual ~PackedMatrix() = default;
};

// The processor's: both ways, as its bf16 unit reads them.
struct Bf16Matrix final : PackedMatrix {
  Bf16Panels forward;   // x Wᵀ
  Bf16Panels backward;  // dy W
  void pack(Pool& pool, const Source& source);
  // When only rows from `first_row` on have changed.
  void pack_again(Pool& pool, const Source& source, int64_t first_row);
};

// An adapter on columns [column, column + width) of a layer's output: y += (x Aᵀ) (scale B)ᵀ.
struct Bf16Adapter {
  const PackedMatrix* a = nullptr;  // [R, in]
  const PackedMatrix* b = nullptr;  // [width, R], packed with the scale
  int64_t column = 0, width = 0;
  float* xa = nullptr;  // [T, R]: the forward writes it
};

struct Bf16LinearForward {
  int64_t rows = 0;
  const PackedMatrix* weight = nullptr;
  std::span<const Bf16Adapter> adapters{};
  const float* x = nullptr;  // [T, in]
  int64_t x_stride = 0;
  float* y = nullptr;  // [T, out]
  int64_t y_stride = 0;
};
void bf16_linear_forward(Pool& pool, const Bf16LinearForward& args);

struct Bf16LinearBackward {
  int64_t rows = 0;
  const PackedMatrix* weight = nullptr;
  std::span<const Bf16Adapter> adapters{};
  const float* dy = nullptr;  // [T, out]
  int64_t dy_stride = 0;
  float* dx = nullptr;  // [T, in]
  int64_t dx_stride = 0;
  float* dxa = nullptr;  // [adapters, T, R]: scale dy B of each
};
void bf16_linear_backward(Pool& pool, const Bf16LinearBackward& args);

}  // namespace collimate::ops
