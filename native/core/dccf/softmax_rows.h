// Softmax of short rows in place, with the fixed-order sums of core/row_ops.h.
#pragma once

#include <cstdint>

namespace collimate::dccf {

// x[i, :] = softmax(x[i, :]); log_sum_exp [rows] or null.
void softmax_rows(float* x, int64_t rows, int64_t columns, float* log_sum_exp);

}  // namespace collimate::dccf
