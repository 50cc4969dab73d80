// Cross-entropy, rows moved, dropout, the gradient's norm, AdamW: what training does beside its layers.
#include <cfloat>

#include "cuda/launch.h"
#include "cuda/math.h"
#include "cuda/ops.h"
#include "cuda/warp_matrix.h"

namespace collimate::cuda {
namespace {

constexpr int kThreads = 256;

// One block a row of logits. The row is read twice and written once: at 128 k logits it does not fit in shared memory.
__global__ void cross_entropy_rows(ops::CrossEntropy args) {
  __shared__ float sums[kThreads / kWarpSize];
  const int64_t row = blockIdx.x;
  float* logits = args.logits + row * args.vocabulary;
  const int32_t target = args.targets[row];
  const float target_logit = logits[target];
  // The sum so far is over exp(x - largest so far).
  float own_top = -FLT_MAX, total = 0.0f;
  bool finite = true;
  for (int64_t v = threadIdx.x; v < args.vocabulary; v += kThreads) {
    const float x = logits[v];
    finite = finite && x - x == 0.0f;
    if (x > own_top) {
      total = total * exp_f32(own_top - x) + 1.0f;
      own_top = x;
    } else {
      total += exp_f32(x - own_top);
    }
  }
  const float top = block_largest<kThreads>(own_top, sums);
  total = block_sum<kThreads>(total * exp_f32(own_top - top), sums);
  const float bad = block_sum<kThreads>(finite ? 0.0f : 1.0f, sums);
  const float scale = args.row_scales ? args.row_scales[row] : args.scale;
  const float factor = scale / total;
  uint16_t* rounded = args.dlogits_bf16.values ? args.dlogits_bf16.values + row * args.dlogits_bf16.stride : nullptr;
  for (int64_t v = threadIdx.x; v < args.vocabulary; v += kThreads) {
    float gradient = exp_f32(logits[v] - top) * factor;
    if (v == target) gradient -= scale;
    if (rounded)
      rounded[v] = static_cast<uint16_t>(bf16_bits(gradient));
    else
      logits[v] = gradient;
  }
  // A NaN or infinite logit must reach the loss even where exp would hide it.
  if (threadIdx.x == 0)
    args.losses[row] = bad == 0.0f && total >= 1.0f ? log_f64(static_cast<double>(total)) +
                                                          (static_cast<double>(top) - static_cast<double>(target_logit))
                                                    : static_cast<double>(NAN);
}

__global__ void gather(ops::RowMove args) {
  const int64_t element = global_thread();
  if (element >= args.rows * args.dim) return;
  args.to[element] = args.from[args.index[element / args.dim] * args.dim + element % args.dim];
}

__global__ void scatter(ops::RowMove args) {
  const int64_t element = global_thread();
  if (element >= args.rows * args.dim) return;
  args.to[args.index[element / args.dim] * args.dim + element % args.dim] = args.from[element];
}

__global__ void copy_strided(ops::RowCopy args) {
  const int64_t element = global_thread();
  if (element >= args.rows * args.dim) return;
  const int64_t row = element / args.dim, column = element % args.dim;
  const int64_t to_row = args.to_row ? args.to_row[row] : row;
  if (to_row >= 0) args.to[to_row * args.to_stride + column] = args.from[row * args.from_stride + column];
}

__global__ void add_where(ops::RowSum args) {
  const int64_t element = global_thread();
  if (element >= args.rows * args.dim) return;
  if (args.left_out == nullptr || args.left_out[element / args.dim] == 0) args.to[element] += args.from[element];
}

// Four elements a thread, which share one Philox counter.
__global__ void drop(ops::Dropout args, uint32_t threshold, float scale) {
  const int64_t counter = global_thread();
  if (4 * counter >= args.elements) return;
  const auto words = philox4(args.stream, static_cast<uint32_t>(counter));
  for (int w = 0; w < 4; ++w) {
    const int64_t element = 4 * counter + w;
    if (element >= args.elements) return;
    args.x[element] = words[w] >= threshold ? args.x[element] * scale : 0.0f;
  }
}

constexpr int64_t kElementsPerSum = 64 * kThreads;

__global__ void block_squares(const float* x, int64_t elements, double* partial) {
  __shared__ double sums[kThreads / kWarpSize];
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kElementsPerSum;
  const int64_t end = begin + kElementsPerSum < elements ? begin + kElementsPerSum : elements;
  double sum = 0.0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads)
    sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  sum = block_sum<kThreads>(sum, sums);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void add_partials(const double* partial, int64_t blocks, double* result) {
  __shared__ double sums[kThreads / kWarpSize];
  double sum = 0.0;
  for (int64_t i = threadIdx.x; i < blocks; i += kThreads) sum += partial[i];
  sum = block_sum<kThreads>(sum, sums);
  if (threadIdx.x == 0) *result = sum;
}

// The factors that follow from the options alone.
struct AdamWFactors {
  float keep, step, inverse_root;
};

__global__ void update(ops::AdamW args, AdamWFactors factors) {
  const int64_t i = global_thread();
  if (i >= args.elements) return;
  const float g = args.gradient[i] * args.gradient_scale;
  const float m = args.beta1 * args.first_moment[i] + (1.0f - args.beta1) * g;
  const float v = args.beta2 * args.second_moment[i] + (1.0f - args.beta2) * (g * g);
  args.first_moment[i] = m;
  args.second_moment[i] = v;
  args.parameter[i] =
      args.parameter[i] * factors.keep - factors.step * (m / (sqrtf(v) * factors.inverse_root + args.epsilon));
}

Launch threads(int64_t count) { return {blocks_for(count, kThreads), kThreads}; }

}  // namespace

void cross_entropy(Device& device, const ops::CrossEntropy& args) {
  launch(device, "cross_entropy", {static_cast<unsigned>(args.rows), kThreads}, cross_entropy_rows, args);
}

void gather_rows(Device& device, const ops::RowMove& args) {
  launch(device, "gather_rows", threads(args.rows * args.dim), gather, args);
}

void scatter_rows(Device& device, const ops::RowMove& args) {
  launch(device, "scatter_rows", threads(args.rows * args.dim), scatter, args);
}

void copy_rows(Device& device, const ops::RowCopy& args) {
  launch(device, "copy_rows", threads(args.rows * args.dim), copy_strided, args);
}

void add_rows(Device& device, const ops::RowSum& args) {
  launch(device, "add_rows", threads(args.rows * args.dim), add_where, args);
}

void dropout(Device& device, const ops::Dropout& args) {
  if (args.probability <= 0.0f) return;
  const auto threshold = static_cast<uint32_t>(static_cast<double>(args.probability) * 4294967296.0);
  launch(device, "dropout", threads((args.elements + 3) / 4), drop, args, threshold, 1.0f / (1.0f - args.probability));
}

void sum_squares(Device& device, const float* x, int64_t elements, double* sum) {
  const int64_t blocks = (elements + kElementsPerSum - 1) / kElementsPerSum;
  double* partial = device.scratch<double>(blocks);
  launch(device, "sum_squares", {static_cast<unsigned>(blocks), kThreads}, block_squares, x, elements, partial);
  launch(device, "sum_squares", {1, kThreads}, add_partials, partial, blocks, sum);
}

void adamw(Device& device, const ops::AdamW& args) {
  const AdamWFactors factors{1.0f - args.learning_rate * args.weight_decay, args.learning_rate / args.bias_correction1,
                             1.0f / sqrtf(args.bias_correction2)};
  launch(device, "adamw", threads(args.elements), update, args, factors);
}

}  // namespace collimate::cuda
