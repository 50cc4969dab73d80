// core/ops_bf16.h on a device: activations fp32 in and out, products of bf16 values, fp32 sums, weight gradients too.
#pragma once

#include "core/ops_bf16.h"
#include "cuda/bf16_matrix.h"
#include "cuda/device.h"

namespace collimate::cuda {

// Matrices among the arguments are Bf16Matrix; the ranks of a layer's adapters add up to its room.
void bf16_linear_forward(Device& device, const ops::Bf16LinearForward& args);
void bf16_linear_backward(Device& device, const ops::Bf16LinearBackward& args);

}  // namespace collimate::cuda
