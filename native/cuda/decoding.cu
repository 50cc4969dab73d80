// What only decoding needs: attention of hypotheses over what their users' prompts and they themselves hold, and the
// log-sum-exp of rows.
#include "cuda/launch.h"
#include "cuda/math.h"
#include "cuda/ops.h"

namespace collimate::cuda {
namespace {

constexpr int kThreads = 256;

// One warp a (user, row, head). Scores go to `scores` [users, R, H, P + S]; the prompt's keys are shared by all rows of
// a user, and stay in the second-level cache.
__global__ void attend(ops::GroupAttention a, float* scores) {
  const int64_t item = global_thread() / kWarpSize;
  if (item >= a.users * a.rows * a.heads) return;
  const int lane = lane_of_thread();
  const int64_t head = item % a.heads, row = item / a.heads % a.rows, user = item / a.heads / a.rows;
  float* out = a.out + item * a.head_dim;
  const int64_t prompt_rows = a.prompt_rows[user];
  if (prompt_rows == 0 || row >= a.live[user]) {
    for (int64_t c = lane; c < a.head_dim; c += kWarpSize) out[c] = 0.0f;
    return;
  }
  // All rows stand at the last position; with a window they see no key before `first`.
  const int64_t all = prompt_rows + a.steps, first = a.window > 0 && all > a.window ? all - a.window : 0;
  const int64_t kv_stride = a.kv_heads * a.head_dim, kv = head / (a.heads / a.kv_heads) * a.head_dim;
  const float* q = a.q + (user * a.rows + row) * a.q_stride + head * a.head_dim;
  const float* prompt_k = a.prompt_k + user * a.prompt_stride + kv;
  const float* prompt_v = a.prompt_v + user * a.prompt_stride + kv;
  const int32_t* ancestors = a.ancestors + user * a.ancestors_user_stride + row * a.steps;
  const auto step_row = [&](int64_t step) {
    return step * a.step_stride + (user * a.step_rows[step] + ancestors[step]) * kv_stride + kv;
  };
  float* score = scores + item * (a.prompt_max + a.steps);
  float top = -INFINITY;
  for (int64_t j = first + lane; j < all; j += kWarpSize) {
    const float* k = j < prompt_rows ? prompt_k + j * kv_stride : a.step_k + step_row(j - prompt_rows);
    float sum = 0.0f;
    for (int64_t c = 0; c < a.head_dim; ++c) sum = fmaf(q[c], k[c], sum);
    score[j] = a.scale * sum;
    top = score[j] > top ? score[j] : top;
  }
  top = warp_largest(top);
  float total = 0.0f;
  for (int64_t j = first + lane; j < all; j += kWarpSize) {
    score[j] = exp_f32(score[j] - top);
    total += score[j];
  }
  total = warp_sum(total);
  __syncwarp();
  for (int64_t c = lane; c < a.head_dim; c += kWarpSize) {
    float sum = 0.0f;
    for (int64_t j = first; j < prompt_rows; ++j) sum = fmaf(score[j], prompt_v[j * kv_stride + c], sum);
    for (int64_t j = first > prompt_rows ? first : prompt_rows; j < all; ++j)
      sum = fmaf(score[j], a.step_v[step_row(j - prompt_rows) + c], sum);
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

__global__ void choose(ops::ColumnChoice args) {
  const int64_t element = global_thread();
  if (element < args.rows * args.count)
    args.y[element] = args.x[element / args.count * args.width + args.chosen[element % args.count]];
}

}  // namespace

void choose_columns(Device& device, const ops::ColumnChoice& args) {
  launch(device, "choose_columns", {blocks_for(args.rows * args.count, kThreads), kThreads}, choose, args);
  log_sum_exp(device, {.rows = args.rows, .width = args.width, .x = args.x, .y = args.log_sum_exp});
}

void decode_attention(Device& device, const ops::GroupAttention& args) {
  const int64_t warps = args.users * args.rows * args.heads;
  float* scores = device.scratch<float>(warps * (args.prompt_max + args.steps));
  launch(device, "decode_attention", {blocks_for(warps * kWarpSize, kThreads), kThreads}, attend, args, scores);
}

void log_sum_exp(Device& device, const LogSumExp& args) {
  launch(device, "log_sum_exp", {static_cast<unsigned>(args.rows), kThreads}, rows_log_sum_exp, args);
}

}  // namespace collimate::cuda
