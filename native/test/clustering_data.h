// Rows with clusters for the k-means, quantizer and codebook tests.
#pragma once

#include <cstdint>
#include <vector>

#include "core/philox.h"

namespace collimate {

// `rows` rows around `centres` normal centres with standard deviation `spread`; row i belongs to centre i mod centres.
inline std::vector<float> clustered_rows(int64_t rows, int64_t dim, int64_t centres, float spread) {
  std::vector<float> values(rows * dim);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t c = 0; c < dim; ++c)
      values[i * dim + c] = random_normal({.seed = 7, .stream = 1}, (i % centres) * dim + c) +
                            spread * random_normal({.seed = 7, .stream = 2}, i * dim + c);
  return values;
}

}  // namespace collimate
