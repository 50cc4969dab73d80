// Sum of squares for gradient clipping: fixed blocks, then a pairwise tree over the blocks.
#include <vector>

#include "core/ops.h"
#include "core/tree_sum.h"
#include "cpu/vector.h"

namespace collimate::ops {

namespace {

constexpr int64_t kElementsPerBlock = 16384;

double block_sum(const float* x, int64_t n) {
  D4 low{}, high{};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    F4 a, b;
    std::memcpy(&a, x + i, sizeof a);
    std::memcpy(&b, x + i + 4, sizeof b);
    const D4 wide_a = __builtin_convertvector(a, D4), wide_b = __builtin_convertvector(b, D4);
    low += wide_a * wide_a;
    high += wide_b * wide_b;
  }
  double tail = 0.0;
  for (; i < n; ++i) tail += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  const D4 sum = low + high;
  return ((sum[0] + sum[2]) + (sum[1] + sum[3])) + tail;
}

}  // namespace

double sum_squares(Pool& pool, std::span<const float> x) {
  const auto size = static_cast<int64_t>(x.size());
  std::vector<double> blocks(static_cast<size_t>((size + kElementsPerBlock - 1) / kElementsPerBlock), 0.0);
  pool.for_blocks(size, kElementsPerBlock, [&](int64_t begin, int64_t end) {
    blocks[static_cast<size_t>(begin / kElementsPerBlock)] = block_sum(x.data() + begin, end - begin);
  });
  return tree_sum(blocks);
}

}  // namespace collimate::ops
