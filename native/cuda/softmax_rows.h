// Softmax of the rows of a matrix, in place, and its backward.
#pragma once

#include <cstdint>

#include "cuda/device.h"

namespace collimate::cuda {

void softmax_rows(Device& device, float* x, int64_t rows, int64_t columns);
// dp becomes p * (dp - sum(p * dp)), row by row.
void softmax_rows_backward(Device& device, const float* p, float* dp, int64_t rows, int64_t columns);

}  // namespace collimate::cuda
