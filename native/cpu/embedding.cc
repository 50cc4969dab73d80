// Embedding lookup and its gradient.
//
// 1. The gradient of a row is the sum over its tokens in ascending position, so no two work items share a row and the
//    order of additions is that of the tokens.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "core/failure.h"
#include "core/ops.h"

namespace collimate::ops {

namespace {
constexpr int64_t kRowsPerItem = 128;
}

void embedding_forward(Pool& pool, const EmbeddingForward& args) {
  for (int64_t i = 0; i < args.rows; ++i) {
    if (args.tokens[i] < 0 || args.tokens[i] >= args.vocabulary) {
      fail_bad_input("token ids must lie in 0.." + std::to_string(args.vocabulary - 1) + ", got " +
                     std::to_string(args.tokens[i]) + "; render the examples with the vocabulary of this model");
    }
  }
  pool.for_blocks(args.rows, kRowsPerItem, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::memcpy(args.y + i * args.dim, args.table + args.tokens[i] * args.dim,
                  static_cast<size_t>(args.dim) * sizeof(float));
    }
  });
}

void embedding_backward(Pool& pool, const EmbeddingBackward& args) {
  // Counting sort of the positions by table row; stable, hence ascending inside a row.
  std::vector<int64_t> begin_of(static_cast<size_t>(args.table_rows) + 1, 0);
  const auto row_of = [&](int64_t i) { return static_cast<int64_t>(args.tokens[i]) - args.first_row; };
  const auto trained = [&](int64_t row) { return row >= 0 && row < args.table_rows; };
  for (int64_t i = 0; i < args.rows; ++i) {
    if (trained(row_of(i))) ++begin_of[static_cast<size_t>(row_of(i)) + 1];
  }
  for (size_t r = 1; r < begin_of.size(); ++r) begin_of[r] += begin_of[r - 1];
  std::vector<int64_t> next(begin_of.begin(), begin_of.end() - 1);
  std::vector<int64_t> positions(static_cast<size_t>(begin_of.back()));
  for (int64_t i = 0; i < args.rows; ++i) {
    if (trained(row_of(i))) positions[static_cast<size_t>(next[static_cast<size_t>(row_of(i))]++)] = i;
  }
  pool.for_blocks(args.table_rows, kRowsPerItem, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float* to = args.dtable + row * args.dim;
      for (int64_t p = begin_of[static_cast<size_t>(row)]; p < begin_of[static_cast<size_t>(row) + 1]; ++p) {
        const float* from = args.dy + positions[static_cast<size_t>(p)] * args.dim;
        for (int64_t c = 0; c < args.dim; ++c) to[c] += from[c];
      }
    }
  });
}

}  // namespace collimate::ops
