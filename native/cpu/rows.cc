// Moves between all rows and the labelled rows.
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

}  // namespace collimate::ops
