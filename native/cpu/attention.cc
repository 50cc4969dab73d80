// Causal grouped-query attention over packed sequences, forward and backward.
//
// 1. One work item is one (sequence, key/value head): it alone writes the outputs and gradients of that head's
//    group, so no sums cross items.
// 2. Queries go in tiles of kQueryRows; a tile sees the keys from the first that its first row sees up to its last row.
//    Scratch is kQueryRows x keys, never sequence x sequence.
// 3. The backward recomputes probabilities from the saved log-sum-exp.
#include <algorithm>
#include <vector>

#include "core/gemm.h"
#include "core/math.h"
#include "core/ops.h"
#include "cpu/vector.h"

namespace collimate::ops {

namespace {

constexpr int64_t kQueryRows = 64;
constexpr float kMasked = -1e30f;

// One tile of queries of one head: rows [query, query + rows) of a sequence that starts at packed row `base`, and the
// keys [first_key, first_key + keys) of it.
struct Tile {
  int64_t base = 0, query = 0, rows = 0, first_key = 0, keys = 0, head = 0, kv_head = 0, window = 0;
  int64_t key_row() const { return base + first_key; }
};

// Keys of the tile that its row i does not see.
void mask_row(const Tile& tile, int64_t i, float* row) {
  const int64_t self = tile.query + i - tile.first_key;
  for (int64_t j = self + 1; j < tile.keys; ++j) row[j] = kMasked;
  if (tile.window == 0) return;
  for (int64_t j = 0; j <= self - tile.window; ++j) row[j] = kMasked;
}

const float* row_of(const float* x, int64_t stride, int64_t row, int64_t column) { return x + row * stride + column; }
float* row_of(float* x, int64_t stride, int64_t row, int64_t column) { return x + row * stride + column; }

// scores[rows, keys] = q kᵀ
void scores_of(const AttentionForward& args, const Tile& tile, float* scores) {
  gemm_single({.transpose_b = true,
               .m = tile.rows,
               .n = tile.keys,
               .k = args.head_dim,
               .alpha = args.scale,
               .a = row_of(args.q, args.q_stride, tile.base + tile.query, tile.head * args.head_dim),
               .lda = args.q_stride,
               .b = row_of(args.k, args.k_stride, tile.key_row(), tile.kv_head * args.head_dim),
               .ldb = args.k_stride,
               .c = scores,
               .ldc = tile.keys});
}

// Row-wise softmax under the causal mask; the log-sum-exp of row i goes to lse[i * lse_stride].
void softmax_rows(const Tile& tile, float* scores, float* lse, int64_t lse_stride) {
  for (int64_t i = 0; i < tile.rows; ++i) {
    float* row = scores + i * tile.keys;
    mask_row(tile, i, row);
    const float top = largest(row, tile.keys);
    for (int64_t j = 0; j < tile.keys; ++j) row[j] = exp_f32(row[j] - top);
    const float total = sum(row, tile.keys);
    const float inverse = 1.0f / total;
    for (int64_t j = 0; j < tile.keys; ++j) row[j] *= inverse;
    if (lse) lse[i * lse_stride] = top + log_f32(total);
  }
}

void probabilities_again(const Tile& tile, float* scores, const float* lse, int64_t lse_stride) {
  for (int64_t i = 0; i < tile.rows; ++i) {
    float* row = scores + i * tile.keys;
    const float shift = lse[i * lse_stride];
    mask_row(tile, i, row);
    for (int64_t j = 0; j < tile.keys; ++j) row[j] = exp_f32(row[j] - shift);
  }
}

// dscores = p (dp - Σ dout out) scale, into dp.
void softmax_backward_rows(const AttentionBackward& args, const Tile& tile, const float* p, float* dp) {
  const int64_t width = args.forward.heads * args.forward.head_dim;
  for (int64_t i = 0; i < tile.rows; ++i) {
    const int64_t at = (tile.base + tile.query + i) * width + tile.head * args.forward.head_dim;
    const float delta = dot(args.dout + at, args.forward.out + at, args.forward.head_dim);
    const float* p_row = p + i * tile.keys;
    float* dp_row = dp + i * tile.keys;
    for (int64_t j = 0; j < tile.keys; ++j) dp_row[j] = p_row[j] * (dp_row[j] - delta) * args.forward.scale;
  }
}

// Calls body(tile) for the tiles of every query head of one group, in order.
template <typename Body>
void for_each_tile(const AttentionForward& args, int64_t sequence, int64_t kv_head, const Body& body) {
  const int64_t base = args.offsets[static_cast<size_t>(sequence)];
  const int64_t length = args.offsets[static_cast<size_t>(sequence) + 1] - base;
  const int64_t group = args.heads / args.kv_heads;
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    for (int64_t query = 0; query < length; query += kQueryRows) {
      const int64_t rows = std::min(kQueryRows, length - query);
      const int64_t first_key = args.window > 0 ? std::max<int64_t>(0, query - args.window + 1) : 0;
      body(Tile{.base = base,
                .query = query,
                .rows = rows,
                .first_key = first_key,
                .keys = query + rows - first_key,
                .head = head,
                .kv_head = kv_head,
                .window = args.window});
    }
  }
}

size_t tile_elements(const AttentionForward& args, int64_t sequence) {
  const int64_t length = args.offsets[static_cast<size_t>(sequence) + 1] - args.offsets[static_cast<size_t>(sequence)];
  return static_cast<size_t>(std::min(length, kQueryRows) * length);
}

void forward_item(const AttentionForward& args, int64_t sequence, int64_t kv_head) {
  const int64_t width = args.heads * args.head_dim;
  std::vector<float> scores(tile_elements(args, sequence));
  for_each_tile(args, sequence, kv_head, [&](const Tile& tile) {
    const int64_t row = tile.base + tile.query;
    scores_of(args, tile, scores.data());
    softmax_rows(tile, scores.data(), args.log_sum_exp ? args.log_sum_exp + row * args.heads + tile.head : nullptr,
                 args.heads);
    gemm_single({.m = tile.rows,
                 .n = args.head_dim,
                 .k = tile.keys,
                 .a = scores.data(),
                 .lda = tile.keys,
                 .b = row_of(args.v, args.v_stride, tile.key_row(), kv_head * args.head_dim),
                 .ldb = args.v_stride,
                 .c = row_of(args.out, width, row, tile.head * args.head_dim),
                 .ldc = width});
  });
}

// dk or dv rows of the tile's keys += wᵀ x, with w [rows, keys] and x the tile's rows of queries or output gradients.
struct KeyGradient {
  const float* weights;
  const float* x;
  int64_t x_stride;
  float* to;
  int64_t to_stride;
};
void add_key_gradient(const AttentionForward& args, const Tile& tile, const KeyGradient& g) {
  gemm_single({.transpose_a = true,
               .m = tile.keys,
               .n = args.head_dim,
               .k = tile.rows,
               .a = g.weights,
               .lda = tile.keys,
               .b = row_of(g.x, g.x_stride, tile.base + tile.query, tile.head * args.head_dim),
               .ldb = g.x_stride,
               .beta = 1.0f,
               .c = row_of(g.to, g.to_stride, tile.key_row(), tile.kv_head * args.head_dim),
               .ldc = g.to_stride});
}

void backward_tile(const AttentionBackward& args, const Tile& tile, float* p, float* dp) {
  const AttentionForward& f = args.forward;
  const int64_t width = f.heads * f.head_dim;
  const int64_t row = tile.base + tile.query;
  scores_of(f, tile, p);
  probabilities_again(tile, p, f.log_sum_exp + row * f.heads + tile.head, f.heads);
  add_key_gradient(f, tile, {p, args.dout, width, args.dv, f.v_stride});
  // dp = dout vᵀ
  gemm_single({.transpose_b = true,
               .m = tile.rows,
               .n = tile.keys,
               .k = f.head_dim,
               .a = row_of(args.dout, width, row, tile.head * f.head_dim),
               .lda = width,
               .b = row_of(f.v, f.v_stride, tile.key_row(), tile.kv_head * f.head_dim),
               .ldb = f.v_stride,
               .c = dp,
               .ldc = tile.keys});
  softmax_backward_rows(args, tile, p, dp);
  gemm_single({.m = tile.rows,
               .n = f.head_dim,
               .k = tile.keys,
               .a = dp,
               .lda = tile.keys,
               .b = row_of(f.k, f.k_stride, tile.key_row(), tile.kv_head * f.head_dim),
               .ldb = f.k_stride,
               .c = row_of(args.dq, f.q_stride, row, tile.head * f.head_dim),
               .ldc = f.q_stride});
  add_key_gradient(f, tile, {dp, f.q, f.q_stride, args.dk, f.k_stride});
}

void backward_item(const AttentionBackward& args, int64_t sequence, int64_t kv_head) {
  const AttentionForward& f = args.forward;
  for (int64_t row = f.offsets[static_cast<size_t>(sequence)]; row < f.offsets[static_cast<size_t>(sequence) + 1];
       ++row) {
    std::fill_n(row_of(args.dk, f.k_stride, row, kv_head * f.head_dim), f.head_dim, 0.0f);
    std::fill_n(row_of(args.dv, f.v_stride, row, kv_head * f.head_dim), f.head_dim, 0.0f);
  }
  std::vector<float> p(tile_elements(f, sequence)), dp(p.size());
  for_each_tile(f, sequence, kv_head, [&](const Tile& tile) { backward_tile(args, tile, p.data(), dp.data()); });
}

}  // namespace

void attention_forward(Pool& pool, const AttentionForward& args) {
  const int64_t sequences = static_cast<int64_t>(args.offsets.size()) - 1;
  pool.for_each(sequences * args.kv_heads,
                [&](int64_t item) { forward_item(args, item / args.kv_heads, item % args.kv_heads); });
}

void attention_backward(Pool& pool, const AttentionBackward& args) {
  const int64_t sequences = static_cast<int64_t>(args.forward.offsets.size()) - 1;
  pool.for_each(sequences * args.forward.kv_heads,
                [&](int64_t item) { backward_item(args, item / args.forward.kv_heads, item % args.forward.kv_heads); });
}

}  // namespace collimate::ops
