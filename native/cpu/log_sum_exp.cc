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

}  // namespace collimate::ops
