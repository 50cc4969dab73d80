// Where residuals are made from: plain data, for hosts and kernels.
#pragma once

#include <cstdint>

namespace collimate::cuda {

struct ResidualView {
  const float* values = nullptr;     // [N, D]
  const float* centroids = nullptr;  // [L, K, D]
  int64_t dim = 0, codes_per_level = 0;
};

}  // namespace collimate::cuda
