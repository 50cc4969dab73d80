// core/ops_bf16.h on a device: activations fp32 in and out, products of bf16 values, fp32 sums.
//
// 1. One copy of a matrix serves both directions: the tensor cores take it transposed or not.
// 2. At most kLowRankTermsMax adapters a layer (q, k, v).
#pragma once

#include <cstdint>
#include <span>

#include "cuda/device.h"

namespace collimate::cuda {

// W [out, in] in bf16.
class Bf16Matrix {
 public:
  struct Source {
    const float* values = nullptr;  // [out, in], on the device
    int64_t out = 0, in = 0;
    float factor = 1.0f;
  };
  Bf16Matrix(Device& device, const Source& source);
  int64_t out() const { return out_; }
  int64_t in() const { return in_; }
  const uint16_t* values() const { return values_.data(); }

 private:
  DeviceArray<uint16_t> values_;
  int64_t out_, in_;
};

// y[:, column .. column + width) += (x Aᵀ) (scale B)ᵀ
struct Bf16Adapter {
  const Bf16Matrix* a = nullptr;  // [R, in]
  const Bf16Matrix* b = nullptr;  // [width, R], rounded with the scale
  int64_t column = 0;
  float* xa = nullptr;  // [T, R]: the forward writes it
};

struct Bf16LinearForward {
  int64_t rows = 0;
  const Bf16Matrix* weight = nullptr;
  std::span<const Bf16Adapter> adapters{};
  const float* x = nullptr;
  int64_t x_stride = 0;
  float* y = nullptr;
  int64_t y_stride = 0;
};
void bf16_linear_forward(Device& device, const Bf16LinearForward& args);

struct Bf16LinearBackward {
  int64_t rows = 0;
  const Bf16Matrix* weight = nullptr;
  std::span<const Bf16Adapter> adapters{};
  const float* dy = nullptr;
  int64_t dy_stride = 0;
  float* dx = nullptr;
  int64_t dx_stride = 0;
  float* dxa = nullptr;  // [adapters, T, R]
};
void bf16_linear_backward(Device& device, const Bf16LinearBackward& args);

}  // namespace collimate::cuda
