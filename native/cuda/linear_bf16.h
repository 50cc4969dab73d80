// core/ops_bf16.h on a device: activations fp32 in and out, products of bf16 values, fp32 sums.
//
// 1. One copy of a matrix serves both directions: the tensor cores take it transposed or not.
// 2. At most kLowRankTermsMax adapters a layer (q, k, v).
#pragma once

#include <cstdint>

#include "core/ops_bf16.h"
#include "cuda/device.h"

namespace collimate::cuda {

// W [out, in] in bf16.
class Bf16Matrix final : public ops::PackedMatrix {
 public:
  // `source.values` lie on the device.
  Bf16Matrix(Device& device, const Source& source);
  // The same matrix from other values, its rows from `first_row` on.
  void pack_again(Device& device, const Source& source, int64_t first_row);
  int64_t out() const { return out_; }
  int64_t in() const { return in_; }
  const uint16_t* values() const { return values_.data(); }

 private:
  DeviceArray<uint16_t> values_;
  int64_t out_, in_;
};

// Matrices among the arguments are of the class above.
void bf16_linear_forward(Device& device, const ops::Bf16LinearForward& args);
void bf16_linear_backward(Device& device, const ops::Bf16LinearBackward& args);

}  // namespace collimate::cuda
