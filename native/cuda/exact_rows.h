// Sums over one row by one warp, to the bit what core/row_ops.h gives: 32 partial sums, added in its order.
#pragma once

#include "cuda/exact_rows_view.h"
#include "cuda/launch.h"

namespace collimate::cuda {

// Sum over c of term(c), the `wide_sum` of a row of n values; the result is lane 0's, given to all.
template <typename Term>
__device__ __forceinline__ float exact_row_sum(int64_t n, const Term& term) {
  const int lane = lane_of_thread();
  float sum = 0.0f;
  int64_t c = 0;
  for (; c + kWarpSize <= n; c += kWarpSize) sum += term(c + lane);
  for (; c + 8 <= n; c += 8)
    if (lane < 8) sum += term(c + lane);
  sum = sum + __shfl_down_sync(kAllLanes, sum, 8);   // lanes 0..7: s0 + s1; 16..23: s2 + s3
  sum = sum + __shfl_down_sync(kAllLanes, sum, 16);  // lanes 0..7
  sum = sum + __shfl_down_sync(kAllLanes, sum, 4);
  sum = sum + __shfl_down_sync(kAllLanes, sum, 2);
  sum = sum + __shfl_down_sync(kAllLanes, sum, 1);
  for (; c < n; ++c) sum += term(c);  // every lane; only lane 0's counts
  return __shfl_sync(kAllLanes, sum, 0);
}

// Column c of what the first `levels` codes leave of a row: subtracted level by level, as core/residual_quantizer.cc
// does.
__device__ __forceinline__ float residual_at(const ResidualView& v, int64_t row, const int32_t* codes, int levels,
                                             int64_t c) {
  float value = v.values[row * v.dim + c];
  for (int level = 0; level < levels; ++level)
    value -= v.centroids[(level * v.codes_per_level + codes[level]) * v.dim + c];
  return value;
}

}  // namespace collimate::cuda
