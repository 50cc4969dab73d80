// Counter-based dropout: element e uses word e % 4 of Philox counter e / 4, so forward and backward draw the same mask.
#include <algorithm>

#include "core/ops.h"

namespace collimate::ops {

namespace {
constexpr int64_t kElementsPerItem = 8192;  // a multiple of 4
}

void dropout(Pool& pool, const Dropout& args) {
  if (args.probability <= 0.0f) return;
  const auto threshold = static_cast<uint32_t>(static_cast<double>(args.probability) * 4294967296.0);
  const float scale = 1.0f / (1.0f - args.probability);
  pool.for_blocks(args.elements, kElementsPerItem, [&](int64_t begin, int64_t end) {
    for (int64_t e = begin; e < end; e += 4) {
      const auto words = philox4(args.stream, static_cast<uint32_t>(e / 4));
      const int64_t count = std::min<int64_t>(4, end - e);
      for (int64_t w = 0; w < count; ++w) {
        float& x = args.x[e + w];
        x = words[static_cast<size_t>(w)] < threshold ? 0.0f : x * scale;
      }
    }
  });
}

}  // namespace collimate::ops
