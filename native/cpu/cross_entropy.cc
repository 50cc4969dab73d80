// Softmax cross-entropy of labelled rows: loss and gradient in one pass over each row of logits.
#include <cmath>

#include "core/math.h"
#include "core/ops.h"
#include "cpu/vector.h"

namespace collimate::ops {

namespace {

constexpr int64_t kRowsPerItem = 16;

void shifted_exp(float* x, float shift, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = exp_f32(x[i] - shift);
}

void scale_row(float* x, float factor, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] *= factor;
}

float sum_row(const float* x, int64_t n) { return sum(x, n); }
float largest_of_row(const float* x, int64_t n) { return largest(x, n); }

void one_row(const CrossEntropy& args, int64_t row) {
  const int64_t vocabulary = args.vocabulary;
  float* logits = args.logits + row * vocabulary;
  const int32_t target = args.targets[row];
  const float target_logit = logits[target];
  const float top = largest_of_row(logits, vocabulary);
  shifted_exp(logits, top, vocabulary);
  const float total = sum_row(logits, vocabulary);
  // A NaN or infinite logit must reach the loss even where exp would hide it.
  const bool finite = std::isfinite(total) && std::isfinite(top) && total >= 1.0f;
  args.losses[row] =
      finite ? log_f64(static_cast<double>(total)) + (static_cast<double>(top) - static_cast<double>(target_logit))
             : static_cast<double>(NAN);
  const float scale = args.row_scales != nullptr ? args.row_scales[row] : args.scale;
  scale_row(logits, scale / total, vocabulary);
  logits[target] -= scale;
}

}  // namespace

void cross_entropy(Pool& pool, const CrossEntropy& args) {
  pool.for_blocks(args.rows, kRowsPerItem, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) one_row(args, row);
  });
}

}  // namespace collimate::ops
