// Causal grouped-query attention over packed sequences on the tensor cores: bf16 products, fp32 sums and softmax. Its
// gradients: attention_bf16_backward.cu.
//
// 1. What is multiplied comes in bf16, or is rounded once; in shared memory the columns of a head are filled up by
//    zeros.
// 2. A block owns 64 queries of one head, a warp 16 of them, and walks over tiles of 32 keys. A tile that a row does
//    not see leaves the row's bits as they are: what a row comes to depends on its own sequence, and on where that
//    begins within 32 rows.
// 3. Scores never leave registers: what a warp's product leaves in a lane is what its next product takes there.
// Floors at D 128 on an H100, 16 sequences of 512 and 32 heads: forward 34 GFLOP and 0.3 GB, 0.1 ms; mma.sync and the
// exponentials are expected to take 0.25 ms. Not measured yet: no card.
#include "cuda/attention_tiles.h"

namespace collimate::cuda {
namespace attention {
namespace {

// to[row, head, c] = bf16(from[row * stride + head * dim + c]), zero for c from dim on; one thread eight columns.
struct HeadRows {
  int64_t rows, heads, dim, stride;
  const float* from;
  uint16_t* to;
  int64_t filled;
};
__global__ void round_heads(HeadRows h) {
  const int64_t across = h.filled / kVector;
  const int64_t item = global_thread() / across, first = global_thread() % across * kVector;
  if (item >= h.rows * h.heads) return;
  const float* from = h.from + item / h.heads * h.stride + item % h.heads * h.dim + first;
  const auto value = [&](int i) { return first + i < h.dim ? from[i] : 0.0f; };
  *reinterpret_cast<uint4*>(h.to + item * h.filled + first) = {
      pack_bf16(value(0), value(1)), pack_bf16(value(2), value(3)), pack_bf16(value(4), value(5)),
      pack_bf16(value(6), value(7))};
}

template <int kDim>
__global__ void __launch_bounds__(kThreads) forward_rows(AttentionForward f, Operands x) {
  const ops::AttentionForward& a = f.args;
  const int64_t query = static_cast<int64_t>(blockIdx.x) * kRows, head = blockIdx.y;
  const int64_t kv_head = head / (a.heads / a.kv_heads);
  constexpr int kPitch = kDim + kVector;
  uint16_t* q = dynamic_shared<uint16_t>();
  uint16_t* k = q + kRows * kPitch;
  uint16_t* v = k + kOthers * kPitch;
  const uint16_t* own_q = q + static_cast<int>(threadIdx.x) / kWarpSize * kWarpRows * kPitch;
  load_rows<kDim, kRows>(q, x.q, head, query, f.rows);
  const WarpRows w = rows_of_warp(f, query);
  const float scale = a.scale * kLog2E;  // scores are powers of two
  float top[2] = {kMaskedScore, kMaskedScore}, total[2] = {}, out[kDim / 8][4] = {};
  const int64_t last = query + kRows < f.rows ? query + kRows : f.rows;
  for (int64_t key = first_key(f, query) / kOthers * kOthers; key < last; key += kOthers) {
    __syncthreads();
    load_rows<kDim, kOthers>(k, x.k, kv_head, key, f.rows);
    load_rows<kDim, kOthers>(v, x.v, kv_head, key, f.rows);
    __syncthreads();
    if (is_out_of_sight(f, w, key)) continue;
    Scores scores;
    multiply_rows<kDim>(scores, own_q, k);
    COLLIMATE_UNROLL
    for (int half = 0; half < 2; ++half) {
      float highest = kMaskedScore;
      COLLIMATE_UNROLL
      for (int n = 0; n < kOthers / 8; ++n) {
        COLLIMATE_UNROLL
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          scores[n][e] = is_seen(w, half, key + column_of(n, e)) ? scores[n][e] * scale : kMaskedScore;
          highest = scores[n][e] > highest ? scores[n][e] : highest;
        }
      }
      highest = largest_of_row(highest);
      const float higher = highest > top[half] ? highest : top[half];
      const float shrink = exp2_approximate(top[half] - higher);
      float sum = 0.0f;
      COLLIMATE_UNROLL
      for (int n = 0; n < kOthers / 8; ++n) {
        COLLIMATE_UNROLL
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          scores[n][e] = scores[n][e] > kMaskedScore ? exp2_approximate(scores[n][e] - higher) : 0.0f;
          sum += scores[n][e];
        }
      }
      top[half] = higher;
      total[half] = total[half] * shrink + sum_of_row(sum);
      COLLIMATE_UNROLL
      for (int n = 0; n < kDim / 8; ++n) {
        out[n][2 * half] *= shrink;
        out[n][2 * half + 1] *= shrink;
      }
    }
    add_weighted<kDim>(out, scores, v);
  }
  const float factor[2] = {1.0f / total[0], 1.0f / total[1]};
  if (a.out_bf16.values)
    store_rows<kDim>(a.out_bf16.values + head * a.head_dim, a.out_bf16.stride, a.head_dim, w, out, factor);
  else
    store_rows<kDim>(a.out + head * a.head_dim, a.heads * a.head_dim, a.head_dim, w, out, factor);
  if (a.log_sum_exp != nullptr && lane_of_thread() % 4 == 0) {
    for (int half = 0; half < 2; ++half)
      if (w.inside[half]) a.log_sum_exp[w.row[half] * a.heads + head] = top[half] * kLn2 + log_f32(total[half]);
  }
}

}  // namespace

Operand in_bf16(Device& device, const AttentionForward& f, int64_t heads, const float* from, int64_t stride,
                const ops::RowsOfBf16& given, uint16_t* to) {
  if (given.values) return {given.values, given.stride, f.args.head_dim};
  const int64_t filled = filled_columns(f.args.head_dim);
  const HeadRows rows{f.rows, heads, f.args.head_dim, stride, from, to, filled};
  launch(device, "round_heads", {blocks_for(f.rows * heads * filled / kVector, kThreads), kThreads}, round_heads, rows);
  return {to, heads * filled, filled};
}

}  // namespace attention

void attention_forward_bf16(Device& device, const ops::AttentionForward& args) {
  using namespace attention;
  const AttentionForward f = for_kernels(args);
  const bool is_given = args.q_bf16.values != nullptr;
  const int64_t q_values = is_given ? 0 : f.rows * args.heads * filled_columns(args.head_dim);
  const int64_t kv_values = is_given ? 0 : f.rows * args.kv_heads * filled_columns(args.head_dim);
  uint16_t* q = device.scratch<uint16_t>(q_values + 2 * kv_values);
  uint16_t *k = q + q_values, *v = k + kv_values;
  const Operands x{.q = in_bf16(device, f, args.heads, args.q, args.q_stride, args.q_bf16, q),
                   .k = in_bf16(device, f, args.kv_heads, args.k, args.k_stride, args.k_bf16, k),
                   .v = in_bf16(device, f, args.kv_heads, args.v, args.v_stride, args.v_bf16, v)};
  with_columns(args.head_dim, [&](auto columns) {
    launch(device, "attention_forward_bf16", blocks_of(f, args.heads, shared_bytes<columns()>(kRows + 2 * kOthers)),
           forward_rows<columns()>, f, x);
  });
}

}  // namespace collimate::cuda
