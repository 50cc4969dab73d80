// log-sum-exp of one row: f32 inside blocks of a fixed size, double between them.
#include <algorithm>
#include <array>

#include "core/math.h"
#include "core/rank/decode_ops.h"
#include "cpu/vector.h"

namespace collimate::ops {

float log_sum_exp(std::span<const float> x) {
  constexpr size_t kBlock = 1024;
  const float top = largest(x.data(), static_cast<int64_t>(x.size()));
  std::array<float, kBlock> exps;
  double total = 0.0;
  for (size_t begin = 0; begin < x.size(); begin += kBlock) {
    const size_t n = std::min(kBlock, x.size() - begin);
    for (size_t i = 0; i < n; ++i) exps[i] = exp_f32(x[begin + i] - top);
    total += static_cast<double>(sum(exps.data(), static_cast<int64_t>(n)));
  }
  return static_cast<float>(static_cast<double>(top) + log_f64(total));
}

void choose_columns(const ColumnChoice& args) {
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* x = args.x + row * args.width;
    for (int64_t i = 0; i < args.count; ++i) args.y[row * args.count + i] = x[args.chosen[i]];
    args.log_sum_exp[row] = log_sum_exp({x, static_cast<size_t>(args.width)});
  }
}

}  // namespace collimate::ops
