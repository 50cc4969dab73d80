// RMSNorm of each head of q or k, as Qwen 3 has it: y = w * x / sqrt(mean(x²) + eps) over the width of one head.
#include <algorithm>
#include <cmath>
#include <vector>

#include "core/ops.h"
#include "cpu/row_sums.h"
#include "cpu/vector.h"

namespace collimate::ops {

namespace {

constexpr int64_t kRowsPerItem = 64;

void forward_rows(const HeadNormForward& args, int64_t begin, int64_t end) {
  const int64_t dim = args.head_dim, width = args.heads * dim;
  for (int64_t i = begin; i < end; ++i) {
    if (args.raw) std::copy_n(args.x + i * args.x_stride, width, args.raw + i * width);
    for (int64_t head = 0; head < args.heads; ++head) {
      float* x = args.x + i * args.x_stride + head * dim;
      const float inverse = 1.0f / std::sqrt(dot(x, x, dim) / static_cast<float>(dim) + args.eps);
      for (int64_t c = 0; c < dim; ++c) x[c] = args.weight[c] * (x[c] * inverse);
      if (args.inverse_rms) args.inverse_rms[i * args.heads + head] = inverse;
    }
  }
}

// dx = r (w dy) - x r³/D Σ w dy x;  dweight += dy x r
void backward_rows(const HeadNormBackward& args, int64_t begin, int64_t end, float* dweight) {
  const int64_t dim = args.head_dim;
  std::vector<float> weighted(static_cast<size_t>(dim));
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t head = 0; head < args.heads; ++head) {
      const float* x = args.raw + (i * args.heads + head) * dim;
      float* d = args.dx + i * args.dx_stride + head * dim;
      const float inverse = args.inverse_rms[i * args.heads + head];
      if (dweight) {
        for (int64_t c = 0; c < dim; ++c) dweight[c] += d[c] * (x[c] * inverse);
      }
      for (int64_t c = 0; c < dim; ++c) weighted[static_cast<size_t>(c)] = args.weight[c] * d[c];
      const float projection = dot(weighted.data(), x, dim) * inverse * inverse / static_cast<float>(dim);
      for (int64_t c = 0; c < dim; ++c) d[c] = inverse * (weighted[static_cast<size_t>(c)] - x[c] * projection);
    }
  }
}

}  // namespace

void head_norm_forward(Pool& pool, const HeadNormForward& args) {
  pool.for_blocks(args.rows, kRowsPerItem, [&](int64_t begin, int64_t end) { forward_rows(args, begin, end); });
}

void head_norm_backward(Pool& pool, const HeadNormBackward& args) {
  if (!args.dweight) {
    pool.for_blocks(args.rows, kRowsPerItem,
                    [&](int64_t begin, int64_t end) { backward_rows(args, begin, end, nullptr); });
    return;
  }
  sum_over_rows(pool, args.rows, args.head_dim, args.dweight,
                [&](int64_t begin, int64_t end, float* sum) { backward_rows(args, begin, end, sum); });
}

}  // namespace collimate::ops
