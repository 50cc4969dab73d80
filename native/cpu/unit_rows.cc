// Rows scaled to one length: dot products of such rows are cosines.
#include <cmath>

#include "core/ops.h"
#include "cpu/vector.h"

namespace collimate::ops {

namespace {

constexpr int64_t kRowsPerItem = 64;
constexpr float kShortestSquared = 1e-24f;  // a shorter row has no direction

}  // namespace

void unit_rows_forward(Pool& pool, const UnitRowsForward& args) {
  pool.for_blocks(args.rows, kRowsPerItem, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* x = args.x + i * args.dim;
      float* y = args.y + i * args.dim;
      const float squared = dot(x, x, args.dim);
      const float inverse = squared < kShortestSquared ? 0.0f : 1.0f / std::sqrt(squared);
      const float factor = args.length * inverse;
      for (int64_t c = 0; c < args.dim; ++c) y[c] = x[c] * factor;
      args.inverse_length[i] = inverse;
    }
  });
}

// dx = length / |x| (dy - u (u dy)), with u = y / length the row's direction
void unit_rows_backward(Pool& pool, const UnitRowsBackward& args) {
  const float inverse_squared = 1.0f / (args.length * args.length);
  pool.for_blocks(args.rows, kRowsPerItem, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* y = args.y + i * args.dim;
      const float* dy = args.dy + i * args.dim;
      float* dx = args.dx + i * args.dim;
      const float along = dot(y, dy, args.dim) * inverse_squared;
      const float factor = args.length * args.inverse_length[i];
      for (int64_t c = 0; c < args.dim; ++c) dx[c] = factor * (dy[c] - y[c] * along);
    }
  });
}

}  // namespace collimate::ops
