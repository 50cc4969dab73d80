// What only decoding needs: attention of one user's hypotheses, and the log-sum-exp of rows.
#include "cuda/launch.h"
#include "cuda/math.h"
#include "cuda/ops.h"

namespace collimate::cuda {
namespace {

constexpr int kThreads = 256;

// One warp a (row, head). Scores go to `scores` [R, H, P + S]; the prompt's keys are shared by all rows, and stay in
// the second-level cache.
__global__ void attend(ops::DecodeAttention a, float* scores) {
  const int64_t item = global_thread() / kWarpSize;
  if (item >= a.rows * a.heads) return;
  const int lane = lane_of_thread();
  const int64_t row = item / a.heads, head = item % a.heads, kv = head / (a.heads / a.kv_heads) * a.head_dim;
  const int64_t kv_stride = a.kv_heads * a.head_dim, seen = a.prompt_rows + a.steps;
  const float* q = a.q + row * a.q_stride + head * a.head_dim;
  float* score = scores + item * seen;
  float top = -INFINITY;
  for (int64_t j = lane; j < seen; j += kWarpSize) {
    const int64_t step = j - a.prompt_rows;
    const float* k = step < 0 ? a.prompt_k + j * kv_stride
                              : a.step_k[step] + a.ancestors[row * a.ancestors_stride + step] * kv_stride;
    float sum = 0.0f;
    for (int64_t c = 0; c < a.head_dim; ++c) sum = fmaf(q[c], k[kv + c], sum);
    score[j] = a.scale * sum;
    top = score[j] > top ? score[j] : top;
  }
  top = warp_largest(top);
  float total = 0.0f;
  for (int64_t j = lane; j < seen; j += kWarpSize) {
    score[j] = exp_f32(score[j] - top);
    total += score[j];
  }
  total = warp_sum(total);
  __syncwarp();
  float* out = a.out + item * a.head_dim;
  for (int64_t c = lane; c < a.head_dim; c += kWarpSize) {
    float sum = 0.0f;
    for (int64_t j = 0; j < a.prompt_rows; ++j) sum = fmaf(score[j], a.prompt_v[j * kv_stride + kv + c], sum);
    for (int64_t step = 0; step < a.steps; ++step)
      sum = fmaf(score[a.prompt_rows + step],
                 a.step_v[step][a.ancestors[row * a.ancestors_stride + step] * kv_stride + kv + c], sum);
    out[c] = sum / total;
  }
}

__global__ void rows_log_sum_exp(LogSumExp args) {
  __shared__ float sums[kThreads / kWarpSize];
  const float* x = args.x + blockIdx.x * args.width;
  float top = -INFINITY;
  bool finite = true;
  for (int64_t i = threadIdx.x; i < args.width; i += kThreads) {
    top = x[i] > top ? x[i] : top;
    finite = finite && !(x[i] != x[i]) && x[i] < INFINITY;
  }
  top = block_largest<kThreads>(top, sums);
  float total = 0.0f;
  for (int64_t i = threadIdx.x; i < args.width; i += kThreads) total += exp_f32(x[i] - top);
  total = block_sum<kThreads>(total, sums);
  const float bad = block_sum<kThreads>(finite ? 0.0f : 1.0f, sums);
  if (threadIdx.x == 0)
    args.y[blockIdx.x] =
        bad > 0.0f ? NAN : static_cast<float>(static_cast<double>(top) + log_f64(static_cast<double>(total)));
}

}  // namespace

void decode_attention(Device& device, const ops::DecodeAttention& args) {
  float* scores = device.scratch<float>(args.rows * args.heads * (args.prompt_rows + args.steps));
  launch(device, "decode_attention", {blocks_for(args.rows * args.heads * kWarpSize, kThreads), kThreads}, attend, args,
         scores);
}

void log_sum_exp(Device& device, const LogSumExp& args) {
  launch(device, "log_sum_exp", {static_cast<unsigned>(args.rows), kThreads}, rows_log_sum_exp, args);
}

}  // namespace collimate::cuda
