// Sums over rows in fixed blocks, then over blocks pairwise: the order of additions follows from the shape.
#pragma once

#include <cstdint>
#include <vector>

#include "core/pool.h"

namespace collimate::ops {

// Calls add(begin, end, sum) for each block of rows with a zeroed sum [width] of its own, then adds all to `total`.
template <typename Add>
void sum_over_rows(Pool& pool, int64_t rows, int64_t width, float* total, const Add& add) {
  constexpr int64_t kRowsPerItem = 64;
  const int64_t blocks = (rows + kRowsPerItem - 1) / kRowsPerItem;
  if (blocks == 0) return;
  std::vector<float> partial(static_cast<size_t>(blocks * width), 0.0f);
  pool.for_blocks(rows, kRowsPerItem,
                  [&](int64_t begin, int64_t end) { add(begin, end, partial.data() + begin / kRowsPerItem * width); });
  for (int64_t stride = 1; stride < blocks; stride *= 2) {
    for (int64_t block = 0; block + stride < blocks; block += 2 * stride) {
      float* left = partial.data() + block * width;
      const float* right = left + stride * width;
      for (int64_t c = 0; c < width; ++c) left[c] += right[c];
    }
  }
  for (int64_t c = 0; c < width; ++c) total[c] += partial[static_cast<size_t>(c)];
}

}  // namespace collimate::ops
