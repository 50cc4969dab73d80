// Causal grouped-query attention over packed sequences on the tensor cores, forward and backward: bf16 products, fp32
// sums and softmax.
//
// 1. What is multiplied is rounded once, into [rows, heads, D] with D filled up by zeros: no kernel looks for the end
// of
//    a row.
// 2. A block owns 64 rows (queries; in the last pass keys) of one head, a warp 16 of them, and walks over tiles of 32
// of
//    the other side. A tile that a row does not see leaves the row's bits as they are: what a row comes to depends on
//    its own sequence, and on where that begins within 32 rows.
// 3. Scores never leave registers: what a warp's product leaves in a lane is what its next product takes there.
// 4. The backward recomputes probabilities from the log-sum-exp. dq is summed by the queries' blocks, dk and dv by the
//    keys' blocks over all query heads of their group in order: no sum crosses blocks.
// Floors at D 128 on an H100, 16 sequences of 512 and 32 heads: forward 34 GFLOP and 0.3 GB, 0.1 ms; mma.sync and the
// exponentials are expected to take 0.25 ms. Not measured yet: no card.
#include <type_traits>

#include "core/failure.h"
#include "cuda/attention_rows.h"
#include "cuda/math.h"
#include "cuda/scratch_layout.h"
#include "cuda/warp_matrix.h"

namespace collimate::cuda {
namespace {

constexpr int kRows = 64, kOthers = 32, kThreads = 128, kWarpRows = 16;
constexpr int kVector = 8;  // bf16 values of 16 bytes
constexpr float kLog2E = 1.44269504088896340736f, kLn2 = 0.69314718055994530942f;

// Rounded operands, [rows, heads, D].
struct Operands {
  const uint16_t *q = nullptr, *k = nullptr, *v = nullptr, *dout = nullptr;
};

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

// kCount rows of one head from `row` on into shared memory; zeros beyond the last row.
template <int kDim, int kCount>
__device__ __forceinline__ void load_rows(uint16_t* to, const uint16_t* from, int64_t heads, int64_t head, int64_t row,
                                          int64_t rows) {
  constexpr int kPitch = kDim + kVector, kAcross = kDim / kVector;
  for (int e = static_cast<int>(threadIdx.x); e < kCount * kAcross; e += kThreads) {
    const int i = e / kAcross, c = e % kAcross * kVector;
    uint4 values{0, 0, 0, 0};
    if (row + i < rows) values = *reinterpret_cast<const uint4*>(from + ((row + i) * heads + head) * kDim + c);
    *reinterpret_cast<uint4*>(to + i * kPitch + c) = values;
  }
}

// product[16, 32] = a[16, D] b[32, D]ᵀ, both rows of shared memory.
using Scores = float[kOthers / 8][4];
template <int kDim>
__device__ __forceinline__ void multiply_rows(Scores& product, const uint16_t* a, const uint16_t* b) {
  constexpr int kPitch = kDim + kVector;
  const int lane = lane_of_thread();
  COLLIMATE_UNROLL
  for (int n = 0; n < kOthers / 8; ++n) {
    COLLIMATE_UNROLL
    for (int e = 0; e < 4; ++e) product[n][e] = 0.0f;
  }
  COLLIMATE_UNROLL
  for (int c = 0; c < kDim; c += 16) {
    const MatrixFragments of_a = load_matrices<false>(a + lane % 16 * kPitch + c + lane / 16 * 8);
    COLLIMATE_UNROLL
    for (int n = 0; n < kOthers / 16; ++n) {
      const MatrixFragments of_b =
          load_matrices<false>(b + (16 * n + lane / 16 * 8 + lane % 8) * kPitch + c + lane / 8 % 2 * 8);
      multiply_add(product[2 * n], of_a.part, of_b.part[0], of_b.part[1]);
      multiply_add(product[2 * n + 1], of_a.part, of_b.part[2], of_b.part[3]);
    }
  }
}

// sum[16, D] += weights[16, 32] b[32, D]: weights as the product above leaves them, rounded here.
template <int kDim>
__device__ __forceinline__ void add_weighted(float (&sum)[kDim / 8][4], const Scores& weights, const uint16_t* b) {
  constexpr int kPitch = kDim + kVector;
  const int lane = lane_of_thread();
  COLLIMATE_UNROLL
  for (int k = 0; k < kOthers / 16; ++k) {
    const unsigned left[4] = {pack_bf16(weights[2 * k][0], weights[2 * k][1]),
                              pack_bf16(weights[2 * k][2], weights[2 * k][3]),
                              pack_bf16(weights[2 * k + 1][0], weights[2 * k + 1][1]),
                              pack_bf16(weights[2 * k + 1][2], weights[2 * k + 1][3])};
    COLLIMATE_UNROLL
    for (int c = 0; c < kDim / 16; ++c) {
      const MatrixFragments of_b = load_matrices<true>(b + (16 * k + lane % 16) * kPitch + 16 * c + lane / 16 * 8);
      multiply_add(sum[2 * c], left, of_b.part[0], of_b.part[1]);
      multiply_add(sum[2 * c + 1], left, of_b.part[2], of_b.part[3]);
    }
  }
}

// A lane's values of a product: rows lane / 4 and 8 below (`half`), columns 8 n + 2 (lane % 4) and the next one.
__device__ __forceinline__ int row_of(int half) { return lane_of_thread() / 4 + 8 * half; }
__device__ __forceinline__ int column_of(int n, int e) { return 8 * n + lane_of_thread() % 4 * 2 + e % 2; }

// Over the four lanes that share a row.
__device__ __forceinline__ float largest_of_row(float value) {
  for (int distance = 2; distance > 0; distance /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, value, distance);
    value = other > value ? other : value;
  }
  return value;
}
__device__ __forceinline__ float sum_of_row(float value) {
  for (int distance = 2; distance > 0; distance /= 2) value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}

// The rows of a block's warp, and what they see.
struct WarpRows {
  int64_t first, row[2], first_key[2];
  bool inside[2];
};
__device__ __forceinline__ WarpRows rows_of_warp(const AttentionForward& f, int64_t block_row) {
  WarpRows w;
  w.first = block_row + static_cast<int>(threadIdx.x) / kWarpSize * kWarpRows;
  for (int half = 0; half < 2; ++half) {
    w.row[half] = w.first + row_of(half);
    w.inside[half] = w.row[half] < f.rows;
    w.first_key[half] = w.inside[half] ? first_key(f, w.row[half]) : f.rows;
  }
  return w;
}
__device__ __forceinline__ bool is_seen(const WarpRows& w, int half, int64_t key) {
  return key <= w.row[half] && key >= w.first_key[half];
}
// Whether no row of the warp sees any of the tile; the same in all lanes.
__device__ __forceinline__ bool is_out_of_sight(const AttentionForward& f, const WarpRows& w, int64_t key) {
  return w.first >= f.rows || key > w.first + kWarpRows - 1 || key + kOthers <= first_key(f, w.first);
}

// c[16, D] of a warp to rows of `stride` floats.
template <int kDim>
__device__ __forceinline__ void store_rows(float* to, int64_t stride, int64_t dim, const WarpRows& w,
                                           const float (&c)[kDim / 8][4], const float (&factor)[2]) {
  COLLIMATE_UNROLL
  for (int n = 0; n < kDim / 8; ++n) {
    COLLIMATE_UNROLL
    for (int e = 0; e < 4; ++e)
      if (w.inside[e / 2] && column_of(n, e) < dim)
        to[w.row[e / 2] * stride + column_of(n, e)] = c[n][e] * factor[e / 2];
  }
}

template <int kDim>
constexpr size_t shared_bytes(int rows) {
  return static_cast<size_t>(rows) * (kDim + kVector) * sizeof(uint16_t);
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
  load_rows<kDim, kRows>(q, x.q, a.heads, head, query, f.rows);
  const WarpRows w = rows_of_warp(f, query);
  const float scale = a.scale * kLog2E;  // scores are powers of two
  float top[2] = {kMaskedScore, kMaskedScore}, total[2] = {}, out[kDim / 8][4] = {};
  const int64_t last = query + kRows < f.rows ? query + kRows : f.rows;
  for (int64_t key = first_key(f, query) / kOthers * kOthers; key < last; key += kOthers) {
    __syncthreads();
    load_rows<kDim, kOthers>(k, x.k, a.kv_heads, kv_head, key, f.rows);
    load_rows<kDim, kOthers>(v, x.v, a.kv_heads, kv_head, key, f.rows);
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
  store_rows<kDim>(a.out + head * a.head_dim, a.heads * a.head_dim, a.head_dim, w, out, factor);
  if (a.log_sum_exp != nullptr && lane_of_thread() % 4 == 0) {
    for (int half = 0; half < 2; ++half)
      if (w.inside[half]) a.log_sum_exp[w.row[half] * a.heads + head] = top[half] * kLn2 + log_f32(total[half]);
  }
}

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
  load_rows<kDim, kRows>(q, x.q, a.heads, head, query, f.rows);
  load_rows<kDim, kRows>(dout, x.dout, a.heads, head, query, f.rows);
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
    load_rows<kDim, kOthers>(k, x.k, a.kv_heads, kv_head, key, f.rows);
    load_rows<kDim, kOthers>(v, x.v, a.kv_heads, kv_head, key, f.rows);
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
  load_rows<kDim, kRows>(k, x.k, a.kv_heads, kv_head, key, f.rows);
  load_rows<kDim, kRows>(v, x.v, a.kv_heads, kv_head, key, f.rows);
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
      load_rows<kDim, kOthers>(q, x.q, a.heads, head, query, f.rows);
      load_rows<kDim, kOthers>(dout, x.dout, a.heads, head, query, f.rows);
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
  store_rows<kDim>(b.dk + kv_head * a.head_dim, a.k_stride, a.head_dim, w, dk, factor);
  store_rows<kDim>(b.dv + kv_head * a.head_dim, a.v_stride, a.head_dim, w, dv, factor);
}

// Calls body with an integral constant: the columns of a head, filled up.
template <typename Body>
void with_columns(int64_t head_dim, const Body& body) {
  if (head_dim <= 32) return body(std::integral_constant<int, 32>{});
  if (head_dim <= 64) return body(std::integral_constant<int, 64>{});
  return body(std::integral_constant<int, 128>{});
}
int64_t filled_columns(int64_t head_dim) {
  int64_t filled = 0;
  with_columns(head_dim, [&](auto columns) { filled = columns(); });
  return filled;
}

void round_operand(Device& device, const AttentionForward& f, int64_t heads, const float* from, int64_t stride,
                   uint16_t* to) {
  const int64_t filled = filled_columns(f.args.head_dim);
  const HeadRows rows{f.rows, heads, f.args.head_dim, stride, from, to, filled};
  launch(device, "round_heads", {blocks_for(f.rows * heads * filled / kVector, kThreads), kThreads}, round_heads, rows);
}

Launch blocks_of(const AttentionForward& f, int64_t heads, size_t shared) {
  return {{blocks_for(f.rows, kRows), static_cast<unsigned>(heads)}, kThreads, shared};
}

}  // namespace

void attention_forward_bf16(Device& device, const ops::AttentionForward& args) {
  const AttentionForward f = for_kernels(args);
  const int64_t q_values = f.rows * args.heads * filled_columns(args.head_dim);
  const int64_t kv_values = f.rows * args.kv_heads * filled_columns(args.head_dim);
  uint16_t* q = device.scratch<uint16_t>(q_values + 2 * kv_values);
  uint16_t *k = q + q_values, *v = k + kv_values;
  round_operand(device, f, args.heads, args.q, args.q_stride, q);
  round_operand(device, f, args.kv_heads, args.k, args.k_stride, k);
  round_operand(device, f, args.kv_heads, args.v, args.v_stride, v);
  with_columns(args.head_dim, [&](auto columns) {
    launch(device, "attention_forward_bf16", blocks_of(f, args.heads, shared_bytes<columns()>(kRows + 2 * kOthers)),
           forward_rows<columns()>, f, Operands{.q = q, .k = k, .v = v});
  });
}

void attention_backward_bf16(Device& device, const ops::AttentionBackward& args) {
  const AttentionBackward b = for_kernels(args);
  const AttentionForward& f = b.forward;
  const int64_t heads = f.args.heads, kv_heads = f.args.kv_heads, filled = filled_columns(f.args.head_dim);
  ScratchLayout layout;
  const int64_t q_at = layout.add<uint16_t>(f.rows * heads * filled);
  const int64_t dout_at = layout.add<uint16_t>(f.rows * heads * filled);
  const int64_t k_at = layout.add<uint16_t>(f.rows * kv_heads * filled);
  const int64_t v_at = layout.add<uint16_t>(f.rows * kv_heads * filled);
  const int64_t delta_at = layout.add<float>(f.rows * heads);
  unsigned char* base = device.scratch<unsigned char>(layout.bytes());
  const auto rounded = [&](int64_t at, int64_t head_count, const float* from, int64_t stride) {
    uint16_t* to = array_at<uint16_t>(base, at);
    round_operand(device, f, head_count, from, stride, to);
    return to;
  };
  const Operands x{.q = rounded(q_at, heads, f.args.q, f.args.q_stride),
                   .k = rounded(k_at, kv_heads, f.args.k, f.args.k_stride),
                   .v = rounded(v_at, kv_heads, f.args.v, f.args.v_stride),
                   .dout = rounded(dout_at, heads, b.dout, heads * f.args.head_dim)};
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
