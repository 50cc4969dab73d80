// Gradients of attention on the tensor cores.
//
// 1. Probabilities are made again from the log-sum-exp.
// 2. dq is summed by the queries' blocks, dk and dv by the keys' blocks over all query heads of their group in
//    order: no sum crosses blocks.
#include "cuda/attention_tiles.h"
#include "cuda/scratch_layout.h"

namespace collimate::cuda {
namespace attention {
namespace {

// Of a score (before `scale`): its probability, and its gradient from that of the probability.
__device__ __forceinline__ float probability_of(float score, float scale, float log_sum_exp) {
  return exp2_approximate((score * scale - log_sum_exp) * kLog2E);
}

template <int kDim>
__global__ void __launch_bounds__(kThreads) query_gradient_rows(AttentionBackward b, Operands x, const float* delta) {
  const AttentionForward& f = b.forward;
  const ops::AttentionForward& a = f.args;
  const int64_t query = static_cast<int64_t>(blockIdx.x) * kRows, head = blockIdx.y;
  const int64_t kv_head = head / (a.heads / a.kv_heads);
  constexpr int kPitch = kDim + kVector;
  uint16_t* q = dynamic_shared<uint16_t>();
  uint16_t* dout = q + kRows * kPitch;
  uint16_t* k = dout + kRows * kPitch;
  uint16_t* v = k + kOthers * kPitch;
  const int own = static_cast<int>(threadIdx.x) / kWarpSize * kWarpRows * kPitch;
  load_rows<kDim, kRows>(q, x.q, head, query, f.rows);
  load_rows<kDim, kRows>(dout, x.dout, head, query, f.rows);
  const WarpRows w = rows_of_warp(f, query);
  float log_sum_exp[2] = {}, of_row[2] = {}, dq[kDim / 8][4] = {};
  for (int half = 0; half < 2; ++half) {
    if (!w.inside[half]) continue;
    log_sum_exp[half] = a.log_sum_exp[w.row[half] * a.heads + head];
    of_row[half] = delta[w.row[half] * a.heads + head];
  }
  const int64_t last = query + kRows < f.rows ? query + kRows : f.rows;
  for (int64_t key = first_key(f, query) / kOthers * kOthers; key < last; key += kOthers) {
    __syncthreads();
    load_rows<kDim, kOthers>(k, x.k, kv_head, key, f.rows);
    load_rows<kDim, kOthers>(v, x.v, kv_head, key, f.rows);
    __syncthreads();
    if (is_out_of_sight(f, w, key)) continue;
    Scores scores, gradient;
    multiply_rows<kDim>(scores, q + own, k);
    multiply_rows<kDim>(gradient, dout + own, v);
    COLLIMATE_UNROLL
    for (int n = 0; n < kOthers / 8; ++n) {
      COLLIMATE_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int half = e / 2;
        gradient[n][e] =
            is_seen(w, half, key + column_of(n, e))
                ? probability_of(scores[n][e], a.scale, log_sum_exp[half]) * (gradient[n][e] - of_row[half]) * a.scale
                : 0.0f;
      }
    }
    add_weighted<kDim>(dq, gradient, k);
  }
  const float factor[2] = {1.0f, 1.0f};
  if (b.dq_bf16.values)
    store_rows<kDim>(b.dq_bf16.values + head * a.head_dim, b.dq_bf16.stride, a.head_dim, w, dq, factor);
  else
    store_rows<kDim>(b.dq + head * a.head_dim, a.q_stride, a.head_dim, w, dq, factor);
}

// Here a block's rows are keys, and the other side queries.
template <int kDim>
__global__ void __launch_bounds__(kThreads) key_gradient_rows(AttentionBackward b, Operands x, const float* delta) {
  const AttentionForward& f = b.forward;
  const ops::AttentionForward& a = f.args;
  const int64_t key = static_cast<int64_t>(blockIdx.x) * kRows, kv_head = blockIdx.y, group = a.heads / a.kv_heads;
  constexpr int kPitch = kDim + kVector;
  uint16_t* k = dynamic_shared<uint16_t>();
  uint16_t* v = k + kRows * kPitch;
  uint16_t* q = v + kRows * kPitch;
  uint16_t* dout = q + kOthers * kPitch;
  __shared__ float log_sum_exp[kOthers], of_row[kOthers];
  __shared__ int64_t first_seen[kOthers];
  const int own = static_cast<int>(threadIdx.x) / kWarpSize * kWarpRows * kPitch;
  load_rows<kDim, kRows>(k, x.k, kv_head, key, f.rows);
  load_rows<kDim, kRows>(v, x.v, kv_head, key, f.rows);
  const WarpRows w = rows_of_warp(f, key);
  const int64_t last_key = (key + kRows < f.rows ? key + kRows : f.rows) - 1;
  int64_t furthest = 0, furthest_of_warp = 0;  // of the rows that see these keys
  for (int64_t j = key; j <= last_key; ++j) {
    const int64_t end = end_of_queries(f, j);
    furthest = end > furthest ? end : furthest;
    if (j >= w.first && j < w.first + kWarpRows && end > furthest_of_warp) furthest_of_warp = end;
  }
  float dk[kDim / 8][4] = {}, dv[kDim / 8][4] = {};
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    for (int64_t query = key; query < furthest; query += kOthers) {
      __syncthreads();
      load_rows<kDim, kOthers>(q, x.q, head, query, f.rows);
      load_rows<kDim, kOthers>(dout, x.dout, head, query, f.rows);
      if (threadIdx.x < kOthers) {
        const int64_t row = query + threadIdx.x;
        const bool inside = row < f.rows;
        log_sum_exp[threadIdx.x] = inside ? a.log_sum_exp[row * a.heads + head] : 0.0f;
        of_row[threadIdx.x] = inside ? delta[row * a.heads + head] : 0.0f;
        first_seen[threadIdx.x] = inside ? first_key(f, row) : f.rows;
      }
      __syncthreads();
      if (query + kOthers <= w.first || query >= furthest_of_warp) continue;
      Scores scores, gradient;
      multiply_rows<kDim>(scores, k + own, q);
      multiply_rows<kDim>(gradient, v + own, dout);
      COLLIMATE_UNROLL
      for (int n = 0; n < kOthers / 8; ++n) {
        COLLIMATE_UNROLL
        for (int e = 0; e < 4; ++e) {
          const int column = column_of(n, e);
          const int64_t own_key = w.row[e / 2];
          const bool seen = own_key <= query + column && own_key >= first_seen[column];
          const float probability = seen ? probability_of(scores[n][e], a.scale, log_sum_exp[column]) : 0.0f;
          scores[n][e] = probability;
          gradient[n][e] = seen ? probability * (gradient[n][e] - of_row[column]) * a.scale : 0.0f;
        }
      }
      add_weighted<kDim>(dv, scores, dout);
      add_weighted<kDim>(dk, gradient, q);
    }
  }
  const float factor[2] = {1.0f, 1.0f};
  const int64_t column = kv_head * a.head_dim;
  if (b.dk_bf16.values) {
    store_rows<kDim>(b.dk_bf16.values + column, b.dk_bf16.stride, a.head_dim, w, dk, factor);
    store_rows<kDim>(b.dv_bf16.values + column, b.dv_bf16.stride, a.head_dim, w, dv, factor);
  } else {
    store_rows<kDim>(b.dk + column, a.k_stride, a.head_dim, w, dk, factor);
    store_rows<kDim>(b.dv + column, a.v_stride, a.head_dim, w, dv, factor);
  }
}

}  // namespace
}  // namespace attention

void attention_backward_bf16(Device& device, const ops::AttentionBackward& args) {
  using namespace attention;
  const AttentionBackward b = for_kernels(args);
  const AttentionForward& f = b.forward;
  const int64_t heads = f.args.heads, kv_heads = f.args.kv_heads, filled = filled_columns(f.args.head_dim);
  const bool is_given = f.args.q_bf16.values != nullptr;
  const int64_t q_values = is_given ? 0 : f.rows * heads * filled,
                kv_values = is_given ? 0 : f.rows * kv_heads * filled;
  ScratchLayout layout;
  const int64_t q_at = layout.add<uint16_t>(q_values), dout_at = layout.add<uint16_t>(q_values);
  const int64_t k_at = layout.add<uint16_t>(kv_values), v_at = layout.add<uint16_t>(kv_values);
  const int64_t delta_at = layout.add<float>(f.rows * heads);
  unsigned char* base = device.scratch<unsigned char>(layout.bytes());
  const auto operand = [&](int64_t at, int64_t head_count, const float* from, int64_t stride,
                           const ops::RowsOfBf16& given) {
    return in_bf16(device, f, head_count, from, stride, given, array_at<uint16_t>(base, at));
  };
  const Operands x{.q = operand(q_at, heads, f.args.q, f.args.q_stride, f.args.q_bf16),
                   .k = operand(k_at, kv_heads, f.args.k, f.args.k_stride, f.args.k_bf16),
                   .v = operand(v_at, kv_heads, f.args.v, f.args.v_stride, f.args.v_bf16),
                   .dout = operand(dout_at, heads, b.dout, heads * f.args.head_dim, b.dout_bf16)};
  float* delta = array_at<float>(base, delta_at);
  output_projections(device, b, delta);
  with_columns(f.args.head_dim, [&](auto columns) {
    const size_t shared = shared_bytes<columns()>(2 * kRows + 2 * kOthers);
    launch(device, "attention_backward_bf16", blocks_of(f, heads, shared), query_gradient_rows<columns()>, b, x, delta);
    launch(device, "attention_backward_bf16", blocks_of(f, kv_heads, shared), key_gradient_rows<columns()>, b, x,
           delta);
  });
}

}  // namespace collimate::cuda
