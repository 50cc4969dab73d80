// Rotary position embedding in Hugging Face's convention: element i of a head turns with element i + D/2.
#include "core/math.h"
#include "core/ops.h"
#include "cpu/vector.h"

namespace collimate::ops {

namespace {

constexpr int64_t kRowsPerItem = 64;

void rotate_rows(const Rope& args, int64_t begin, int64_t end) {
  const int64_t half = args.head_dim / 2;
  const float direction = args.inverse ? -1.0f : 1.0f;
  for (int64_t i = begin; i < end; ++i) {
    const float* cos = args.cos + args.positions[i] * half;
    const float* sin = args.sin + args.positions[i] * half;
    for (int64_t h = 0; h < args.heads; ++h) {
      float* low = args.x + i * args.x_stride + h * args.head_dim;
      float* high = low + half;
      for (int64_t d = 0; d < half; ++d) {
        const float s = direction * sin[d], a = low[d], b = high[d];
        low[d] = a * cos[d] - b * s;
        high[d] = b * cos[d] + a * s;
      }
    }
  }
}

}  // namespace

RopeTable make_rope_table(std::span<const double> inverse_frequency, int64_t positions) {
  RopeTable table;
  table.positions = positions;
  table.half_dim = static_cast<int64_t>(inverse_frequency.size());
  table.cos.reserve(static_cast<size_t>(positions * table.half_dim));
  table.sin.reserve(static_cast<size_t>(positions * table.half_dim));
  for (int64_t p = 0; p < positions; ++p) {
    for (const double frequency : inverse_frequency) {
      table.cos.push_back(static_cast<float>(cos_f64(static_cast<double>(p) * frequency)));
      table.sin.push_back(static_cast<float>(sin_f64(static_cast<double>(p) * frequency)));
    }
  }
  return table;
}

void rope(Pool& pool, const Rope& args) {
  pool.for_blocks(args.rows, kRowsPerItem, [&](int64_t begin, int64_t end) { rotate_rows(args, begin, end); });
}

}  // namespace collimate::ops
