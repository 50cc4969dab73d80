// RMSNorm y = w * x / sqrt(mean(x²) + eps), fused with the residual addition before it.
//
// 1. The weight gradient is summed over rows in a fixed order (cpu/row_sums.h).
#include <cmath>
#include <vector>

#include "core/ops.h"
#include "cpu/row_sums.h"
#include "cpu/vector.h"

namespace collimate::ops {

namespace {

constexpr int64_t kRowsPerItem = 64;

void forward_rows(const RmsNormForward& args, int64_t begin, int64_t end) {
  const int64_t dim = args.dim;
  for (int64_t i = begin; i < end; ++i) {
    const float* x = args.x + i * dim;
    if (args.delta) {
      const float* delta = args.delta + i * dim;
      float* sum = args.sum + i * dim;
      for (int64_t c = 0; c < dim; ++c) sum[c] = x[c] + delta[c];
      x = sum;
    }
    const float mean = dot(x, x, dim) / static_cast<float>(dim);
    const float inverse = 1.0f / std::sqrt(mean + args.eps);
    float* y = args.y + i * dim;
    for (int64_t c = 0; c < dim; ++c) y[c] = args.weight[c] * (x[c] * inverse);
    if (args.inverse_rms) args.inverse_rms[i] = inverse;
  }
}

// dx += r (w dy) - x r³/C Σ w dy x;  dweight += dy x r
void backward_rows(const RmsNormBackward& args, int64_t begin, int64_t end, float* dweight, float* weighted) {
  const int64_t dim = args.dim;
  for (int64_t i = begin; i < end; ++i) {
    const float* x = args.x + i * dim;
    const float* dy = args.dy + i * dim;
    float* dx = args.dx + i * dim;
    const float inverse = args.inverse_rms[i];
    for (int64_t c = 0; c < dim; ++c) weighted[c] = args.weight[c] * dy[c];
    const float projection = dot(weighted, x, dim) * inverse * inverse / static_cast<float>(dim);
    for (int64_t c = 0; c < dim; ++c) dx[c] += inverse * (weighted[c] - x[c] * projection);
    if (dweight) {
      for (int64_t c = 0; c < dim; ++c) dweight[c] += dy[c] * (x[c] * inverse);
    }
  }
}

}  // namespace

void rmsnorm_forward(Pool& pool, const RmsNormForward& args) {
  pool.for_blocks(args.rows, kRowsPerItem, [&](int64_t begin, int64_t end) { forward_rows(args, begin, end); });
}

void rmsnorm_backward(Pool& pool, const RmsNormBackward& args) {
  const auto rows = [&](int64_t begin, int64_t end, float* dweight) {
    std::vector<float> weighted(static_cast<size_t>(args.dim));
    backward_rows(args, begin, end, dweight, weighted.data());
  };
  if (!args.dweight) {
    pool.for_blocks(args.rows, kRowsPerItem, [&](int64_t begin, int64_t end) { rows(begin, end, nullptr); });
    return;
  }
  sum_over_rows(pool, args.rows, args.dim, args.dweight, rows);
}

}  // namespace collimate::ops
