// What decoding takes from logits: the log-sum-exp of rows, and chosen columns.
#include "cuda/launch.h"
#include "cuda/math.h"
#include "cuda/ops.h"

namespace collimate::cuda {
namespace {

constexpr int kThreads = 256;

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

void log_sum_exp(Device& device, const LogSumExp& args) {
  launch(device, "log_sum_exp", {static_cast<unsigned>(args.rows), kThreads}, rows_log_sum_exp, args);
}

}  // namespace collimate::cuda
