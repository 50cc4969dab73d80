// Causal grouped-query attention over packed sequences, forward and backward, in fp32.
//
// 1. A block owns 32 rows (queries, or in the second backward pass keys) of one head and walks over tiles of 32 of
//    the other side; scores of a tile live in shared memory, never rows x rows. Tiles may span sequences: each row
//    knows where its own begins and ends.
// 2. The backward recomputes probabilities from the log-sum-exp. dq is summed by the queries' blocks, dk and dv by the
//    keys' blocks over all query heads of their group in order: no sum crosses blocks.
// 3. A warp owns 8 rows of its block; a lane is a key while scores are made, and columns lane, lane + 32, ... after.
// Written for exactness first: products are fp32 multiply-adds. Runs in bf16 go to attention_bf16.cu.
#include "cuda/attention_rows.h"
#include "cuda/gemm.h"
#include "cuda/launch.h"
#include "cuda/math.h"
#include "cuda/ops.h"
#include "cuda/warp_matrix.h"

namespace collimate::cuda {
namespace {

constexpr int kTile = 32, kThreads = 128, kRowsPerWarp = 8;

// to[i, c] = x[(row + i) * stride + column + c] for rows below `rows`, 0 beyond; `to` has rows of `pitch`.
__device__ __forceinline__ void load_tile(float* to, int pitch, const float* x, int64_t stride, int64_t row,
                                          int64_t rows, int64_t column, int64_t dim) {
  for (int64_t e = threadIdx.x; e < kTile * dim; e += kThreads) {
    const int64_t i = e / dim, c = e % dim;
    to[i * pitch + c] = row + i < rows ? x[(row + i) * stride + column + c] : 0.0f;
  }
}

__device__ __forceinline__ float dot_rows(const float* a, const float* b, int64_t dim) {
  float sum = 0.0f;
  for (int64_t c = 0; c < dim; ++c) sum = fmaf(a[c], b[c], sum);
  return sum;
}

// kColumns = ceil(D / 32): the columns of an output row that a lane owns.
template <int kColumns>
__global__ void __launch_bounds__(kThreads) forward_tile(AttentionForward f) {
  const ops::AttentionForward& a = f.args;
  const int64_t dim = a.head_dim, rows = f.rows, query = static_cast<int64_t>(blockIdx.x) * kTile;
  const int64_t head = blockIdx.y, kv_head = head / (a.heads / a.kv_heads);
  const int pitch = static_cast<int>(dim) + 1, lane = lane_of_thread(),
            warp = static_cast<int>(threadIdx.x) / kWarpSize;
  float* q = dynamic_shared<float>();
  float* k = q + kTile * pitch;
  float* v = k + kTile * pitch;
  load_tile(q, pitch, a.q, a.q_stride, query, rows, head * dim, dim);
  float top[kRowsPerWarp], total[kRowsPerWarp], out[kRowsPerWarp][kColumns] = {};
  COLLIMATE_UNROLL
  for (int r = 0; r < kRowsPerWarp; ++r) {
    top[r] = kMaskedScore;
    total[r] = 0.0f;
  }
  const int64_t last = query + kTile < rows ? query + kTile : rows;
  for (int64_t key = first_key(f, query) / kTile * kTile; key < last; key += kTile) {
    __syncthreads();
    load_tile(k, pitch, a.k, a.k_stride, key, rows, kv_head * dim, dim);
    load_tile(v, pitch, a.v, a.v_stride, key, rows, kv_head * dim, dim);
    __syncthreads();
    COLLIMATE_UNROLL
    for (int r = 0; r < kRowsPerWarp; ++r) {
      const int64_t row = query + warp * kRowsPerWarp + r;
      if (row >= rows) continue;
      const bool seen = sees(f, row, key + lane);
      const float score = a.scale * dot_rows(q + (warp * kRowsPerWarp + r) * pitch, k + lane * pitch, dim);
      const float highest = warp_largest(seen ? score : kMaskedScore);
      if (highest == kMaskedScore) continue;  // nothing of this tile, for the whole warp
      const float higher = highest > top[r] ? highest : top[r];
      const float shrink = exp_f32(top[r] - higher);
      const float weight = seen ? exp_f32(score - higher) : 0.0f;
      top[r] = higher;
      total[r] = total[r] * shrink + warp_sum(weight);
      COLLIMATE_UNROLL
      for (int i = 0; i < kColumns; ++i) out[r][i] *= shrink;
      for (int j = 0; j < kTile; ++j) {
        const float w = __shfl_sync(kAllLanes, weight, j);
        COLLIMATE_UNROLL
        for (int i = 0; i < kColumns; ++i)
          if (lane + i * kWarpSize < dim) out[r][i] = fmaf(w, v[j * pitch + lane + i * kWarpSize], out[r][i]);
      }
    }
  }
  COLLIMATE_UNROLL
  for (int r = 0; r < kRowsPerWarp; ++r) {
    const int64_t row = query + warp * kRowsPerWarp + r;
    if (row >= rows) continue;
    COLLIMATE_UNROLL
    for (int i = 0; i < kColumns; ++i)
      if (lane + i * kWarpSize < dim) a.out[(row * a.heads + head) * dim + lane + i * kWarpSize] = out[r][i] / total[r];
    if (a.log_sum_exp && lane == 0) a.log_sum_exp[row * a.heads + head] = top[r] + log_f32(total[r]);
  }
}

// delta[row, head] = dout . out
__global__ void output_projection(AttentionBackward b, float* delta) {
  const int64_t item = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kWarpSize;
  if (item >= b.forward.rows * b.forward.args.heads) return;
  const ops::AttentionForward& a = b.forward.args;
  const int64_t dim = a.head_dim;
  const uint16_t* rounded =
      a.out_bf16.values ? a.out_bf16.values + item / a.heads * a.out_bf16.stride + item % a.heads * dim : nullptr;
  const uint16_t* dout =
      b.dout_bf16.values ? b.dout_bf16.values + item / a.heads * b.dout_bf16.stride + item % a.heads * dim : nullptr;
  float sum = 0.0f;
  for (int64_t c = lane_of_thread(); c < dim; c += kWarpSize)
    sum += (dout ? from_bf16_bits(dout[c]) : b.dout[item * dim + c]) *
           (rounded ? from_bf16_bits(rounded[c]) : a.out[item * dim + c]);
  sum = warp_sum(sum);
  if (lane_of_thread() == 0) delta[item] = sum;
}

// Of one (query row, key): its probability, and the gradient of its score before `scale`.
struct ScoreGradient {
  float probability, gradient;
};
__device__ __forceinline__ ScoreGradient score_gradient(const AttentionBackward& b, const float* delta, int64_t row,
                                                        int64_t head, float score, float dout_v) {
  const int64_t at = row * b.forward.args.heads + head;
  const float probability = exp_f32(b.forward.args.scale * score - b.forward.args.log_sum_exp[at]);
  return {probability, probability * (dout_v - delta[at]) * b.forward.args.scale};
}

template <int kColumns>
__global__ void __launch_bounds__(kThreads) query_gradient(AttentionBackward b, const float* delta) {
  const AttentionForward& f = b.forward;
  const ops::AttentionForward& a = f.args;
  const int64_t dim = a.head_dim, rows = f.rows, query = static_cast<int64_t>(blockIdx.x) * kTile;
  const int64_t head = blockIdx.y, kv_head = head / (a.heads / a.kv_heads);
  const int pitch = static_cast<int>(dim) + 1, lane = lane_of_thread(),
            warp = static_cast<int>(threadIdx.x) / kWarpSize;
  float* q = dynamic_shared<float>();
  float* dout = q + kTile * pitch;
  float* k = dout + kTile * pitch;
  float* v = k + kTile * pitch;
  load_tile(q, pitch, a.q, a.q_stride, query, rows, head * dim, dim);
  load_tile(dout, pitch, b.dout, a.heads * dim, query, rows, head * dim, dim);
  float dq[kRowsPerWarp][kColumns] = {};
  const int64_t last = query + kTile < rows ? query + kTile : rows;
  for (int64_t key = first_key(f, query) / kTile * kTile; key < last; key += kTile) {
    __syncthreads();
    load_tile(k, pitch, a.k, a.k_stride, key, rows, kv_head * dim, dim);
    load_tile(v, pitch, a.v, a.v_stride, key, rows, kv_head * dim, dim);
    __syncthreads();
    COLLIMATE_UNROLL
    for (int r = 0; r < kRowsPerWarp; ++r) {
      const int own = warp * kRowsPerWarp + r;
      if (query + own >= rows) continue;
      float gradient = 0.0f;
      if (sees(f, query + own, key + lane))
        gradient = score_gradient(b, delta, query + own, head, dot_rows(q + own * pitch, k + lane * pitch, dim),
                                  dot_rows(dout + own * pitch, v + lane * pitch, dim))
                       .gradient;
      for (int j = 0; j < kTile; ++j) {
        const float g = __shfl_sync(kAllLanes, gradient, j);
        COLLIMATE_UNROLL
        for (int i = 0; i < kColumns; ++i)
          if (lane + i * kWarpSize < dim) dq[r][i] = fmaf(g, k[j * pitch + lane + i * kWarpSize], dq[r][i]);
      }
    }
  }
  COLLIMATE_UNROLL
  for (int r = 0; r < kRowsPerWarp; ++r) {
    const int64_t row = query + warp * kRowsPerWarp + r;
    if (row >= rows) continue;
    COLLIMATE_UNROLL
    for (int i = 0; i < kColumns; ++i)
      if (lane + i * kWarpSize < dim) b.dq[row * a.q_stride + head * dim + lane + i * kWarpSize] = dq[r][i];
  }
}

template <int kColumns>
__global__ void __launch_bounds__(kThreads) key_gradient(AttentionBackward b, const float* delta) {
  const AttentionForward& f = b.forward;
  const ops::AttentionForward& a = f.args;
  const int64_t dim = a.head_dim, rows = f.rows, key = static_cast<int64_t>(blockIdx.x) * kTile;
  const int64_t kv_head = blockIdx.y, group = a.heads / a.kv_heads;
  const int pitch = static_cast<int>(dim) + 1, lane = lane_of_thread(),
            warp = static_cast<int>(threadIdx.x) / kWarpSize;
  float* k = dynamic_shared<float>();
  float* v = k + kTile * pitch;
  float* q = v + kTile * pitch;
  float* dout = q + kTile * pitch;
  load_tile(k, pitch, a.k, a.k_stride, key, rows, kv_head * dim, dim);
  load_tile(v, pitch, a.v, a.v_stride, key, rows, kv_head * dim, dim);
  float dk[kRowsPerWarp][kColumns] = {}, dv[kRowsPerWarp][kColumns] = {};
  const int64_t last_key = (key + kTile < rows ? key + kTile : rows) - 1;
  const int64_t end =
      end_of_queries(f, last_key) > end_of_queries(f, key) ? end_of_queries(f, last_key) : end_of_queries(f, key);
  int64_t furthest = end;
  for (int64_t j = key + 1; j < last_key; ++j)
    furthest = end_of_queries(f, j) > furthest ? end_of_queries(f, j) : furthest;
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    for (int64_t query = key; query < furthest; query += kTile) {
      __syncthreads();
      load_tile(q, pitch, a.q, a.q_stride, query, rows, head * dim, dim);
      load_tile(dout, pitch, b.dout, a.heads * dim, query, rows, head * dim, dim);
      __syncthreads();
      // Here a warp owns keys and a lane is a query.
      COLLIMATE_UNROLL
      for (int r = 0; r < kRowsPerWarp; ++r) {
        const int own = warp * kRowsPerWarp + r;
        if (key + own >= rows) continue;
        const int64_t row = query + lane;
        ScoreGradient of{0.0f, 0.0f};
        if (row < rows && sees(f, row, key + own))
          of = score_gradient(b, delta, row, head, dot_rows(q + lane * pitch, k + own * pitch, dim),
                              dot_rows(dout + lane * pitch, v + own * pitch, dim));
        for (int j = 0; j < kTile; ++j) {
          const float p = __shfl_sync(kAllLanes, of.probability, j), g = __shfl_sync(kAllLanes, of.gradient, j);
          COLLIMATE_UNROLL
          for (int i = 0; i < kColumns; ++i) {
            const int c = lane + i * kWarpSize;
            if (c >= dim) continue;
            dv[r][i] = fmaf(p, dout[j * pitch + c], dv[r][i]);
            dk[r][i] = fmaf(g, q[j * pitch + c], dk[r][i]);
          }
        }
      }
    }
  }
  COLLIMATE_UNROLL
  for (int r = 0; r < kRowsPerWarp; ++r) {
    const int64_t row = key + warp * kRowsPerWarp + r;
    if (row >= rows) continue;
    COLLIMATE_UNROLL
    for (int i = 0; i < kColumns; ++i) {
      const int64_t c = lane + i * kWarpSize;
      if (c >= dim) continue;
      b.dk[row * a.k_stride + kv_head * dim + c] = dk[r][i];
      b.dv[row * a.v_stride + kv_head * dim + c] = dv[r][i];
    }
  }
}

Launch tiles_of(const AttentionForward& f, int64_t heads, int64_t tiles) {
  return {{blocks_for(f.rows, kTile), static_cast<unsigned>(heads)},
          kThreads,
          static_cast<size_t>(tiles * kTile * (f.args.head_dim + 1)) * sizeof(float)};
}

}  // namespace

void output_projections(Device& device, const AttentionBackward& args, float* delta) {
  const int64_t items = args.forward.rows * args.forward.args.heads;
  launch(device, "attention_backward", {blocks_for(items, kThreads / kWarpSize), kThreads}, output_projection, args,
         delta);
}

void attention_forward(Device& device, const ops::AttentionForward& args) {
  if (is_for_tensor_cores(args)) return attention_forward_bf16(device, args);
  AttentionForward f = for_kernels(args);
  const int64_t width = args.heads * args.head_dim;
  if (args.out_bf16.values) f.args.out = device.scratch<float>(f.rows * width);
  with_lane_columns(f.args.head_dim, [&](auto columns) {
    launch(device, "attention_forward", tiles_of(f, f.args.heads, 3), forward_tile<columns()>, f);
  });
  if (args.out_bf16.values)
    round_rows(device, {.rows = f.rows,
                        .width = width,
                        .from = f.args.out,
                        .from_stride = width,
                        .to = args.out_bf16.values,
                        .to_stride = args.out_bf16.stride,
                        .filled = width});
}

void attention_backward(Device& device, const ops::AttentionBackward& args) {
  if (is_for_tensor_cores(args.forward)) return attention_backward_bf16(device, args);
  const AttentionBackward b = for_kernels(args);
  const AttentionForward& f = b.forward;
  float* delta = device.scratch<float>(f.rows * f.args.heads);
  output_projections(device, b, delta);
  with_lane_columns(f.args.head_dim, [&](auto columns) {
    launch(device, "attention_backward", tiles_of(f, f.args.heads, 4), query_gradient<columns()>, b, delta);
    launch(device, "attention_backward", tiles_of(f, f.args.kv_heads, 4), key_gradient<columns()>, b, delta);
  });
}

}  // namespace collimate::cuda
