// Counter-based dropout: element e uses word e % 4 of Philox counter e / 4, so forward and backward draw the same mask.
#include <algorithm>
#include <bit>

#include "core/ops.h"

namespace collimate::ops {

namespace {
constexpr int64_t kElementsPerBatch = 4 * kPhiloxLanes;
constexpr int64_t kElementsPerItem = 8192;  // a multiple of a batch

// All ones where an element stays: half of the branches on a random mask would be guessed wrong.
void drop_batch(const PhiloxWords& words, uint32_t threshold, float scale, float* __restrict x, int64_t count) {
  uint32_t kept[kElementsPerBatch];
  for (int lane = 0; lane < kPhiloxLanes; ++lane)
    for (int w = 0; w < 4; ++w) kept[4 * lane + w] = -static_cast<uint32_t>(words[w][lane] >= threshold);
  for (int64_t i = 0; i < count; ++i) x[i] = std::bit_cast<float>(std::bit_cast<uint32_t>(x[i] * scale) & kept[i]);
}

}  // namespace

void dropout(Pool& pool, const Dropout& args) {
  if (args.probability <= 0.0f) return;
  const auto threshold = static_cast<uint32_t>(static_cast<double>(args.probability) * 4294967296.0);
  const float scale = 1.0f / (1.0f - args.probability);
  pool.for_blocks(args.elements, kElementsPerItem, [&](int64_t begin, int64_t end) {
    for (int64_t e = begin; e < end; e += kElementsPerBatch)
      drop_batch(philox4_lanes(args.stream, static_cast<uint32_t>(e / 4)), threshold, scale, args.x + e,
                 std::min(kElementsPerBatch, end - e));
  });
}

}  // namespace collimate::ops
