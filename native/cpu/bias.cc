// Biases of linear layers.
#include "core/ops.h"
#include "cpu/row_sums.h"

namespace collimate::ops {

namespace {

constexpr int64_t kRowsPerItem = 64;

}  // namespace

void add_bias(Pool& pool, const Bias& args) {
  pool.for_blocks(args.rows, kRowsPerItem, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float* y = args.y + i * args.width;
      for (int64_t c = 0; c < args.width; ++c) y[c] += args.bias[c];
    }
  });
}

void bias_backward(Pool& pool, const BiasBackward& args) {
  if (!args.dbias) return;
  sum_over_rows(pool, args.rows, args.width, args.dbias, [&](int64_t begin, int64_t end, float* sum) {
    for (int64_t i = begin; i < end; ++i) {
      const float* dy = args.dy + i * args.width;
      for (int64_t c = 0; c < args.width; ++c) sum[c] += dy[c];
    }
  });
}

}  // namespace collimate::ops
