// RMSNorm of rows, fused with the residual addition before it, and of the heads of q or k in place.
//
// One warp a row (or head): lane l adds elements l, l + 32, ...; weight gradients as in row_sums.h.
#include "cuda/launch.h"
#include "cuda/ops.h"
#include "cuda/row_sums.h"
#include "cuda/warp_matrix.h"

namespace collimate::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarpsPerBlock = kThreads / kWarpSize;

__device__ __forceinline__ int64_t warp_number() {
  return static_cast<int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarpSize;
}

__global__ void forward_rows(ops::RmsNormForward args) {
  const int64_t row = warp_number();
  if (row >= args.rows) return;
  const int lane = lane_of_thread();
  const float* x = args.x + row * args.dim;
  const float* delta = args.delta ? args.delta + row * args.dim : nullptr;
  float* sum = args.delta ? args.sum + row * args.dim : nullptr;
  float squares = 0.0f;
  for (int64_t c = lane; c < args.dim; c += kWarpSize) {
    float value = x[c];
    if (delta) {
      value += delta[c];
      sum[c] = value;
    }
    squares += value * value;
  }
  const float inverse = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(args.dim) + args.eps);
  const float* normalised = delta ? sum : x;  // each lane reads back what it wrote itself
  uint16_t* rounded = args.y_bf16.values ? args.y_bf16.values + row * args.y_bf16.stride : nullptr;
  for (int64_t c = lane; c < args.dim; c += kWarpSize) {
    const float y = args.weight[c] * (normalised[c] * inverse);
    if (rounded)
      rounded[c] = static_cast<uint16_t>(bf16_bits(y));
    else
      args.y[row * args.dim + c] = y;
  }
  if (args.inverse_rms && lane == 0) args.inverse_rms[row] = inverse;
}

// dx += r (w dy) - x r^3/C sum(w dy x)
__global__ void backward_rows(ops::RmsNormBackward args) {
  const int64_t row = warp_number();
  if (row >= args.rows) return;
  const int lane = lane_of_thread();
  const float* x = args.x + row * args.dim;
  const float* dy = args.dy + row * args.dim;
  float* dx = args.dx + row * args.dim;
  const float inverse = args.inverse_rms[row];
  float projection = 0.0f;
  for (int64_t c = lane; c < args.dim; c += kWarpSize) projection += args.weight[c] * dy[c] * x[c];
  projection = warp_sum(projection) * inverse * inverse / static_cast<float>(args.dim);
  uint16_t* rounded = args.dx_bf16.values ? args.dx_bf16.values + row * args.dx_bf16.stride : nullptr;
  for (int64_t c = lane; c < args.dim; c += kWarpSize) {
    const float sum = dx[c] + inverse * (args.weight[c] * dy[c] - x[c] * projection);
    dx[c] = sum;
    if (rounded) rounded[c] = static_cast<uint16_t>(bf16_bits(sum));
  }
}

// partial[block, c] = sum of dy x r over the block's rows, in order.
__global__ void weight_gradient(ops::RmsNormBackward args, float* partial) {
  const int64_t column = global_thread();
  if (column >= args.dim) return;
  const int64_t begin = static_cast<int64_t>(blockIdx.y) * kRowsPerSum;
  const int64_t end = begin + kRowsPerSum < args.rows ? begin + kRowsPerSum : args.rows;
  float sum = 0.0f;
  for (int64_t row = begin; row < end; ++row)
    sum += args.dy[row * args.dim + column] * (args.x[row * args.dim + column] * args.inverse_rms[row]);
  partial[blockIdx.y * args.dim + column] = sum;
}

__global__ void forward_heads(ops::HeadNormForward args) {
  const int64_t item = warp_number();
  if (item >= args.rows * args.heads) return;
  const int lane = lane_of_thread();
  const int64_t row = item / args.heads, head = item % args.heads;
  float* x = args.x + row * args.x_stride + head * args.head_dim;
  float squares = 0.0f;
  for (int64_t c = lane; c < args.head_dim; c += kWarpSize) squares += x[c] * x[c];
  const float inverse = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(args.head_dim) + args.eps);
  for (int64_t c = lane; c < args.head_dim; c += kWarpSize) {
    const float value = x[c];
    if (args.raw) args.raw[item * args.head_dim + c] = value;
    x[c] = args.weight[c] * (value * inverse);
  }
  if (args.inverse_rms && lane == 0) args.inverse_rms[item] = inverse;
}

// partial[block, c] = sum of dy x r over the block's rows and their heads, in order; before dx is overwritten.
__global__ void head_weight_gradient(ops::HeadNormBackward args, float* partial) {
  const int64_t column = global_thread();
  if (column >= args.head_dim) return;
  const int64_t begin = static_cast<int64_t>(blockIdx.y) * kRowsPerSum;
  const int64_t end = begin + kRowsPerSum < args.rows ? begin + kRowsPerSum : args.rows;
  float sum = 0.0f;
  for (int64_t item = begin * args.heads; item < end * args.heads; ++item) {
    const int64_t row = item / args.heads, head = item % args.heads;
    sum += args.dx[row * args.dx_stride + head * args.head_dim + column] *
           (args.raw[item * args.head_dim + column] * args.inverse_rms[item]);
  }
  partial[blockIdx.y * args.head_dim + column] = sum;
}

__global__ void backward_heads(ops::HeadNormBackward args) {
  const int64_t item = warp_number();
  if (item >= args.rows * args.heads) return;
  const int lane = lane_of_thread();
  const float* x = args.raw + item * args.head_dim;
  float* dx = args.dx + item / args.heads * args.dx_stride + item % args.heads * args.head_dim;
  const float inverse = args.inverse_rms[item];
  float projection = 0.0f;
  for (int64_t c = lane; c < args.head_dim; c += kWarpSize) projection += args.weight[c] * dx[c] * x[c];
  projection = warp_sum(projection) * inverse * inverse / static_cast<float>(args.head_dim);
  for (int64_t c = lane; c < args.head_dim; c += kWarpSize)
    dx[c] = inverse * (args.weight[c] * dx[c] - x[c] * projection);
}

Launch warps(int64_t count) { return {blocks_for(count, kWarpsPerBlock), kThreads}; }

// One thread a column, one grid row a block of rows.
Launch columns(int64_t width, int64_t rows) {
  return {{blocks_for(width, kThreads), static_cast<unsigned>(sum_blocks(rows))}, kThreads};
}

}  // namespace

void rmsnorm_forward(Device& device, const ops::RmsNormForward& args) {
  launch(device, "rmsnorm_forward", warps(args.rows), forward_rows, args);
}

void rmsnorm_backward(Device& device, const ops::RmsNormBackward& args) {
  launch(device, "rmsnorm_backward", warps(args.rows), backward_rows, args);
  if (!args.dweight) return;
  const int64_t blocks = sum_blocks(args.rows);
  float* partial = device.scratch<float>(blocks * args.dim);
  launch(device, "rmsnorm_backward", columns(args.dim, args.rows), weight_gradient, args, partial);
  add_block_sums(device, partial, blocks, args.dim, args.dweight);
}

void head_norm_forward(Device& device, const ops::HeadNormForward& args) {
  launch(device, "head_norm_forward", warps(args.rows * args.heads), forward_heads, args);
}

void head_norm_backward(Device& device, const ops::HeadNormBackward& args) {
  if (args.dweight) {
    const int64_t blocks = sum_blocks(args.rows);
    float* partial = device.scratch<float>(blocks * args.head_dim);
    launch(device, "head_norm_backward", columns(args.head_dim, args.rows), head_weight_gradient, args, partial);
    add_block_sums(device, partial, blocks, args.head_dim, args.dweight);
  }
  launch(device, "head_norm_backward", warps(args.rows * args.heads), backward_heads, args);
}

}  // namespace collimate::cuda
