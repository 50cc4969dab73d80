// Attention of hypotheses over their user's prompt, which all of them share, and over their own steps; in fp32.
//
// 1. A block owns 32 (row, head) pairs of one user and one key/value head, a warp 8 of them, and walks over tiles of 32
//    of the prompt's keys, which are read once for all pairs. A lane is a key while scores are made, and columns lane,
//    lane + 32, ... after.
// 2. The steps come last, each pair's own rows of them, a lane a step.
// 3. What a row comes to is a function of its query and of its own keys, in their order.
// Floors at 64 users, 20 rows, 32 heads of 128 over 8, prompts of 512, a layer: 11 GFLOP at 20 TFLOP/s of fp32 = 0.5
// ms; 0.3 GB = 0.1 ms. Not measured yet: no card.
#include "cuda/attention_rows.h"
#include "cuda/math.h"

namespace collimate::cuda {
namespace {

constexpr int kTile = 32, kThreads = 128, kPairsPerWarp = 8;

// One running softmax: the largest score, the sum of weights, and the weighted sum of values.
template <int kColumns>
struct Running {
  float top = kMaskedScore, total = 0.0f, out[kColumns] = {};
};

// A lane's weight of a score (kMaskedScore: none), after what came before has been scaled to the new top.
template <int kColumns>
__device__ __forceinline__ float take_scores(Running<kColumns>& run, float score) {
  const float highest = warp_largest(score);
  const float higher = highest > run.top ? highest : run.top;
  const float shrink = exp_f32(run.top - higher);
  const float weight = score == kMaskedScore ? 0.0f : exp_f32(score - higher);
  run.top = higher;
  run.total = run.total * shrink + warp_sum(weight);
  COLLIMATE_UNROLL
  for (int i = 0; i < kColumns; ++i) run.out[i] *= shrink;
  return weight;
}

template <int kColumns>
__global__ void __launch_bounds__(kThreads) attend_tile(ops::GroupAttention a) {
  const int64_t dim = a.head_dim, group = a.heads / a.kv_heads, kv_head = blockIdx.y, user = blockIdx.z;
  const int64_t first_pair = static_cast<int64_t>(blockIdx.x) * kTile, pairs = a.rows * group;
  const int lane = lane_of_thread(), warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int pitch = static_cast<int>(dim) + 1;
  const int64_t prompt_rows = a.prompt_rows[user], live = prompt_rows > 0 ? a.live[user] : 0;
  // Pair p is row p / group and head p % group of the group.
  const auto out_of = [&](int64_t pair) {
    return a.out + ((user * a.rows + pair / group) * a.heads + kv_head * group + pair % group) * dim;
  };
  if (first_pair / group >= live) {  // for the whole block
    for (int64_t e = threadIdx.x; e < kTile * dim; e += kThreads)
      if (first_pair + e / dim < pairs) out_of(first_pair + e / dim)[e % dim] = 0.0f;
    return;
  }
  float* q = dynamic_shared<float>();  // [D, 32]: the pairs of a warp side by side
  float* k = q + kTile * dim;
  float* v = k + kTile * pitch;
  for (int64_t e = threadIdx.x; e < kTile * dim; e += kThreads) {
    const int64_t own = e / dim, pair = first_pair + own, c = e % dim;
    q[c * kTile + own] =
        pair < pairs ? a.q[(user * a.rows + pair / group) * a.q_stride + (kv_head * group + pair % group) * dim + c]
                     : 0.0f;
  }
  const int64_t first_of_warp = first_pair + warp * kPairsPerWarp;
  const bool is_idle = first_of_warp >= pairs || first_of_warp / group >= live;
  Running<kColumns> run[kPairsPerWarp];
  // All rows stand at the last position; with a window they see no key before `first`.
  const int64_t all = prompt_rows + a.steps, first = a.window > 0 && all > a.window ? all - a.window : 0;
  const int64_t kv_stride = a.kv_heads * dim, kv = kv_head * dim;
  for (int64_t key = first / kTile * kTile; key < prompt_rows; key += kTile) {
    __syncthreads();
    for (int64_t e = threadIdx.x; e < kTile * dim; e += kThreads) {
      const int64_t row = key + e / dim, c = e % dim, at = user * a.prompt_stride + row * kv_stride + kv + c;
      k[e / dim * pitch + c] = row < prompt_rows ? a.prompt_k[at] : 0.0f;
      v[e / dim * pitch + c] = row < prompt_rows ? a.prompt_v[at] : 0.0f;
    }
    __syncthreads();
    if (is_idle) continue;
    float score[kPairsPerWarp] = {};
    for (int64_t c = 0; c < dim; ++c) {
      const float of_key = k[lane * pitch + c];
      COLLIMATE_UNROLL
      for (int p = 0; p < kPairsPerWarp; ++p)
        score[p] = fmaf(q[c * kTile + warp * kPairsPerWarp + p], of_key, score[p]);
    }
    const bool seen = key + lane >= first && key + lane < prompt_rows;
    COLLIMATE_UNROLL
    for (int p = 0; p < kPairsPerWarp; ++p) score[p] = take_scores(run[p], seen ? a.scale * score[p] : kMaskedScore);
    for (int j = 0; j < kTile; ++j) {
      float of_value[kColumns];
      COLLIMATE_UNROLL
      for (int i = 0; i < kColumns; ++i)
        of_value[i] = lane + i * kWarpSize < dim ? v[j * pitch + lane + i * kWarpSize] : 0.0f;
      COLLIMATE_UNROLL
      for (int p = 0; p < kPairsPerWarp; ++p) {
        const float weight = __shfl_sync(kAllLanes, score[p], j);
        COLLIMATE_UNROLL
        for (int i = 0; i < kColumns; ++i) run[p].out[i] = fmaf(weight, of_value[i], run[p].out[i]);
      }
    }
  }
  __syncthreads();  // q is there, even where no tile was
  COLLIMATE_UNROLL
  for (int p = 0; p < kPairsPerWarp; ++p) {
    const int own = warp * kPairsPerWarp + p;
    const int64_t pair = first_pair + own, row = pair / group;
    if (pair >= pairs) continue;
    if (row < live) {
      const int32_t* ancestors = a.ancestors + user * a.ancestors_user_stride + row * a.steps;
      for (int64_t step = 0; step < a.steps; step += kWarpSize) {
        const int64_t mine = step + lane;
        const bool seen = mine < a.steps && prompt_rows + mine >= first;
        const int64_t at =
            seen ? mine * a.step_stride + (user * a.step_rows[mine] + ancestors[mine]) * kv_stride + kv : 0;
        float score = 0.0f;
        if (seen)
          for (int64_t c = 0; c < dim; ++c) score = fmaf(q[c * kTile + own], a.step_k[at + c], score);
        const float weight = take_scores(run[p], seen ? a.scale * score : kMaskedScore);
        for (int j = 0; j < kWarpSize && step + j < a.steps; ++j) {
          const float w = __shfl_sync(kAllLanes, weight, j);
          const int64_t from = __shfl_sync(kAllLanes, at, j);
          COLLIMATE_UNROLL
          for (int i = 0; i < kColumns; ++i)
            if (lane + i * kWarpSize < dim)
              run[p].out[i] = fmaf(w, a.step_v[from + lane + i * kWarpSize], run[p].out[i]);
        }
      }
    }
    COLLIMATE_UNROLL
    for (int i = 0; i < kColumns; ++i)
      if (lane + i * kWarpSize < dim)
        out_of(pair)[lane + i * kWarpSize] = row < live ? run[p].out[i] / run[p].total : 0.0f;
  }
}

}  // namespace

void decode_attention(Device& device, const ops::GroupAttention& args) {
  const Launch shape{{blocks_for(args.rows * (args.heads / args.kv_heads), kTile), static_cast<unsigned>(args.kv_heads),
                      static_cast<unsigned>(args.users)},
                     kThreads,
                     static_cast<size_t>(kTile * (3 * args.head_dim + 2)) * sizeof(float)};
  with_lane_columns(args.head_dim,
                    [&](auto columns) { launch(device, "decode_attention", shape, attend_tile<columns()>, args); });
}

}  // namespace collimate::cuda
