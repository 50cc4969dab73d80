// Attention of a user's hypotheses over the shared prompt and their own suffixes.
//
// 1. The prompt part is two matrix products per head over all rows at once: the prompt's keys and values are read once
//    per head and step, whatever the number of hypotheses.
// 2. The suffix part is at most a few tokens per row and is summed plainly, after the prompt's, in step order.
#include <algorithm>
#include <vector>

#include "core/gemm.h"
#include "core/math.h"
#include "core/rank/decode_ops.h"
#include "cpu/vector.h"

namespace collimate::ops {

namespace {

// scores[R, P + S] of one head, before the softmax.
void scores_of(const DecodeAttention& args, int64_t head, int64_t kv_head) {
  const int64_t width = args.prompt_rows + args.steps;
  const int64_t kv_dim = args.kv_heads * args.head_dim;
  const float* q = args.q + head * args.head_dim;
  gemm_single({.transpose_b = true,
               .m = args.rows,
               .n = args.prompt_rows,
               .k = args.head_dim,
               .alpha = args.scale,
               .a = q,
               .lda = args.q_stride,
               .b = args.prompt_k + kv_head * args.head_dim,
               .ldb = kv_dim,
               .c = args.scratch,
               .ldc = width});
  for (int64_t r = 0; r < args.rows; ++r) {
    for (int64_t s = 0; s < args.steps; ++s) {
      const float* key =
          args.step_k[s] + args.ancestors[r * args.ancestors_stride + s] * kv_dim + kv_head * args.head_dim;
      args.scratch[r * width + args.prompt_rows + s] = args.scale * dot(q + r * args.q_stride, key, args.head_dim);
    }
  }
}

void softmax_row(float* row, int64_t n) {
  const float top = largest(row, n);
  for (int64_t i = 0; i < n; ++i) row[i] = exp_f32(row[i] - top);
  const float inverse = 1.0f / sum(row, n);
  for (int64_t i = 0; i < n; ++i) row[i] *= inverse;
}

void mix_values(const DecodeAttention& args, int64_t head, int64_t kv_head) {
  const int64_t width = args.prompt_rows + args.steps;
  const int64_t kv_dim = args.kv_heads * args.head_dim;
  const int64_t out_dim = args.heads * args.head_dim;
  gemm_single({.m = args.rows,
               .n = args.head_dim,
               .k = args.prompt_rows,
               .a = args.scratch,
               .lda = width,
               .b = args.prompt_v + kv_head * args.head_dim,
               .ldb = kv_dim,
               .c = args.out + head * args.head_dim,
               .ldc = out_dim});
  for (int64_t r = 0; r < args.rows; ++r) {
    float* out = args.out + r * out_dim + head * args.head_dim;
    for (int64_t s = 0; s < args.steps; ++s) {
      const float p = args.scratch[r * width + args.prompt_rows + s];
      const float* value =
          args.step_v[s] + args.ancestors[r * args.ancestors_stride + s] * kv_dim + kv_head * args.head_dim;
      for (int64_t d = 0; d < args.head_dim; ++d) out[d] += p * value[d];
    }
  }
}

}  // namespace

void decode_attention(const DecodeAttention& args) {
  const int64_t group = args.heads / args.kv_heads;
  const int64_t width = args.prompt_rows + args.steps;
  for (int64_t head = 0; head < args.heads; ++head) {
    scores_of(args, head, head / group);
    for (int64_t r = 0; r < args.rows; ++r) softmax_row(args.scratch + r * width, width);
    mix_values(args, head, head / group);
  }
}

void decode_attention(const GroupAttention& a) {
  const int64_t kv_dim = a.kv_heads * a.head_dim, q_dim = a.heads * a.head_dim;
  std::vector<const float*> step_k, step_v;
  for (int64_t user = 0; user < a.users; ++user) {
    const int64_t prompt_rows = a.prompt_rows[user], live = prompt_rows > 0 ? a.live[user] : 0;
    float* out = a.out + user * a.rows * q_dim;
    std::fill_n(out + live * q_dim, (a.rows - live) * q_dim, 0.0f);
    if (live == 0) continue;
    // All rows stand at the last position; with a window they see no key before `first_seen`.
    const int64_t first_seen = a.window > 0 ? std::max<int64_t>(0, prompt_rows + a.steps - a.window) : 0;
    const int64_t first_row_seen = std::min(first_seen, prompt_rows), first_step = first_seen - first_row_seen;
    step_k.clear();
    step_v.clear();
    for (int64_t s = first_step; s < a.steps; ++s) {
      const int64_t at = s * a.step_stride + user * a.step_rows[s] * kv_dim;
      step_k.push_back(a.step_k + at);
      step_v.push_back(a.step_v + at);
    }
    const int64_t seen = user * a.prompt_stride + first_row_seen * kv_dim;
    decode_attention(DecodeAttention{.rows = live,
                                     .heads = a.heads,
                                     .kv_heads = a.kv_heads,
                                     .head_dim = a.head_dim,
                                     .scale = a.scale,
                                     .q = a.q + user * a.rows * a.q_stride,
                                     .q_stride = a.q_stride,
                                     .prompt_rows = prompt_rows - first_row_seen,
                                     .prompt_k = a.prompt_k + seen,
                                     .prompt_v = a.prompt_v + seen,
                                     .steps = a.steps - first_step,
                                     .step_k = step_k.data(),
                                     .step_v = step_v.data(),
                                     .ancestors = a.ancestors + user * a.ancestors_user_stride + first_step,
                                     .ancestors_stride = a.steps,
                                     .scratch = a.scratch,
                                     .out = out});
  }
}

}  // namespace collimate::ops
