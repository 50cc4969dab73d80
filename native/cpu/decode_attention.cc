// Attention of a user's hypotheses over the shared prompt and their own suffixes.
//
// 1. The prompt part is two matrix products per head over all rows at once: the prompt's keys and values are read once
//    per head and step, whatever the number of hypotheses.
// 2. The suffix part is at most a few tokens per row and is summed plainly, after the prompt's, in step order.
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

}  // namespace collimate::ops
