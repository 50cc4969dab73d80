// Linear layers and their adapters on the bf16 unit: products of bf16 values, fp32 sums. Activations are fp32 in and
// out on the processor, fp32 or bf16 on a device.
//
// Shapes as in core/ops.h. Weight gradients are fp32 products on the processor, bf16 products with fp32 sums on a
// device. Packed matrices among the arguments are those of the backend that runs the op.
#pragma once

#include <cstdint>
#include <span>

#include "core/gemm_bf16.h"
#include "core/ops.h"
#include "core/pool.h"

namespace collimate::ops {

// On a device x and dy may come in bf16 (RowsOfBf16), left so by the op before: then each row has room for what
// adapters put beside it, row_with_room() values in all, which are the op's to write. y and dx may be left in bf16.
inline int64_t row_with_room(int64_t width, int64_t room) { return (width + room + 7) / 8 * 8; }

// W [out, in] in the form that a backend's products read.
struct PackedMatrix {
  struct Source {
    const float* values = nullptr;  // [out, in]
    int64_t out = 0, in = 0;
    float factor = 1.0f;
    int64_t room = 0;  // the ranks of the adapters that it will be used with
    bool fp8 = false;  // a device multiplies x and dy by it in eight bits; a processor cannot
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
  float* xa = nullptr;  // [T, R]: the forward writes it, the backward reads it
  // The backward's only. Gradients are added to.
  float scale = 1.0f;
  float* da = nullptr;  // [R, in]
  float* db = nullptr;  // [width, R]
};

struct Bf16LinearForward {
  int64_t rows = 0;
  const PackedMatrix* weight = nullptr;
  std::span<const Bf16Adapter> adapters{};
  const float* x = nullptr;  // [T, in]
  int64_t x_stride = 0;
  RowsOfBf16 x_bf16{};  // in place of x where it is given
  float* y = nullptr;   // [T, out]
  int64_t y_stride = 0;
  RowsOfBf16 y_bf16{};  // in place of y where it is given
};
void bf16_linear_forward(Pool& pool, const Bf16LinearForward& args);

struct Bf16LinearBackward {
  int64_t rows = 0;
  const PackedMatrix* weight = nullptr;
  std::span<const Bf16Adapter> adapters{};
  const float* dy = nullptr;  // [T, out]
  int64_t dy_stride = 0;
  RowsOfBf16 dy_bf16{};  // in place of dy where it is given
  float* dx = nullptr;   // [T, in]
  int64_t dx_stride = 0;
  RowsOfBf16 dx_bf16{};  // in place of dx where it is given
  float* dxa = nullptr;  // [adapters, T, R]: scale dy B of each
  // What the gradients of the weight and of adapters need; not read where there are none.
  const float* x = nullptr;  // [T, in]
  int64_t x_stride = 0;
  RowsOfBf16 x_bf16{};       // in place of x where it is given
  float* dweight = nullptr;  // [dweight_rows, in], added to: of W's rows from dweight_first on; null: frozen
  int64_t dweight_first = 0, dweight_rows = 0;
};
void bf16_linear_backward(Pool& pool, const Bf16LinearBackward& args);

}  // namespace collimate::ops
