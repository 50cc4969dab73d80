// Moves of rows: between all and the labelled ones, between strides; sums of them.
#include <cstring>

#include "core/ops.h"

namespace collimate::ops {

namespace {
constexpr int64_t kRowsPerItem = 256;
}

void gather_rows(Pool& pool, const RowMove& args) {
  pool.for_blocks(args.rows, kRowsPerItem, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::memcpy(args.to + i * args.dim, args.from + args.index[i] * args.dim,
                  static_cast<size_t>(args.dim) * sizeof(float));
    }
  });
}

void scatter_rows(Pool& pool, const RowMove& args) {
  pool.for_blocks(args.rows, kRowsPerItem, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::memcpy(args.to + args.index[i] * args.dim, args.from + i * args.dim,
                  static_cast<size_t>(args.dim) * sizeof(float));
    }
  });
}

void copy_rows(Pool& pool, const RowCopy& args) {
  pool.for_blocks(args.rows, kRowsPerItem, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t to_row = args.to_row ? args.to_row[i] : i;
      if (to_row < 0) continue;
      std::memcpy(args.to + to_row * args.to_stride, args.from + i * args.from_stride,
                  static_cast<size_t>(args.dim) * sizeof(float));
    }
  });
}

void add_rows(Pool& pool, const RowSum& args) {
  pool.for_blocks(args.rows, kRowsPerItem, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (args.left_out != nullptr && args.left_out[i] != 0) continue;
      float* to = args.to + i * args.dim;
      const float* from = args.from + i * args.dim;
      for (int64_t c = 0; c < args.dim; ++c) to[c] += from[c];
    }
  });
}

}  // namespace collimate::ops
