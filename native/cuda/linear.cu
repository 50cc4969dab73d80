// Linear layers, biases and adapters in fp32.
#include "cuda/gemm.h"
#include "cuda/launch.h"
#include "cuda/ops.h"
#include "cuda/row_sums.h"

namespace collimate::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void add_to_rows(ops::Bias args) {
  const int64_t element = global_thread();
  if (element < args.rows * args.width) args.y[element] += args.bias[element % args.width];
}

__global__ void block_column_sums(ops::BiasBackward args, float* partial) {
  const int64_t column = global_thread();
  if (column >= args.width) return;
  const int64_t begin = static_cast<int64_t>(blockIdx.y) * kRowsPerSum;
  const int64_t end = begin + kRowsPerSum < args.rows ? begin + kRowsPerSum : args.rows;
  float sum = 0.0f;
  for (int64_t row = begin; row < end; ++row) sum += args.dy[row * args.width + column];
  partial[blockIdx.y * args.width + column] = sum;
}

}  // namespace

void linear_forward(Device& device, const ops::LinearForward& args) {
  gemm_fp32(device, {.transpose_b = true,
                     .m = args.rows,
                     .n = args.out,
                     .k = args.in,
                     .a = args.x,
                     .lda = args.x_stride,
                     .b = args.weight,
                     .ldb = args.in,
                     .c = args.y,
                     .ldc = args.y_stride});
}

void linear_backward(Device& device, const ops::LinearBackward& args) {
  if (args.dx)
    gemm_fp32(device, {.m = args.rows,
                       .n = args.in,
                       .k = args.out,
                       .a = args.dy,
                       .lda = args.dy_stride,
                       .b = args.weight,
                       .ldb = args.in,
                       .accumulate = args.accumulate_dx,
                       .c = args.dx,
                       .ldc = args.dx_stride});
  if (args.dweight)
    gemm_fp32(device, {.transpose_a = true,
                       .m = args.out,
                       .n = args.in,
                       .k = args.rows,
                       .a = args.dy,
                       .lda = args.dy_stride,
                       .b = args.x,
                       .ldb = args.x_stride,
                       .accumulate = true,
                       .c = args.dweight,
                       .ldc = args.in});
}

void add_bias(Device& device, const ops::Bias& args) {
  launch(device, "add_bias", {blocks_for(args.rows * args.width, kThreads), kThreads}, add_to_rows, args);
}

void bias_backward(Device& device, const ops::BiasBackward& args) {
  if (!args.dbias) return;
  const int64_t blocks = sum_blocks(args.rows);
  float* partial = device.scratch<float>(blocks * args.width);
  launch(device, "bias_backward", {{blocks_for(args.width, kThreads), static_cast<unsigned>(blocks)}, kThreads},
         block_column_sums, args, partial);
  add_block_sums(device, partial, blocks, args.width, args.dbias);
}

void lora_forward(Device& device, const ops::LoraForward& args) {
  gemm_fp32(device, {.transpose_b = true,
                     .m = args.rows,
                     .n = args.rank,
                     .k = args.in,
                     .a = args.x,
                     .lda = args.x_stride,
                     .b = args.a,
                     .ldb = args.in,
                     .c = args.xa,
                     .ldc = args.rank});
  gemm_fp32(device, {.transpose_b = true,
                     .m = args.rows,
                     .n = args.out,
                     .k = args.rank,
                     .alpha = args.scale,
                     .a = args.xa,
                     .lda = args.rank,
                     .b = args.b,
                     .ldb = args.rank,
                     .accumulate = true,
                     .c = args.y,
                     .ldc = args.y_stride});
}

void lora_backward(Device& device, const ops::LoraBackward& args) {
  gemm_fp32(device, {.m = args.rows,
                     .n = args.rank,
                     .k = args.out,
                     .alpha = args.scale,
                     .a = args.dy,
                     .lda = args.dy_stride,
                     .b = args.b,
                     .ldb = args.rank,
                     .c = args.dxa,
                     .ldc = args.rank});
  if (args.dx)
    gemm_fp32(device, {.m = args.rows,
                       .n = args.in,
                       .k = args.rank,
                       .a = args.dxa,
                       .lda = args.rank,
                       .b = args.a,
                       .ldb = args.in,
                       .accumulate = true,
                       .c = args.dx,
                       .ldc = args.dx_stride});
  lora_gradient(device, {.rows = args.rows,
                         .in = args.in,
                         .out = args.out,
                         .rank = args.rank,
                         .scale = args.scale,
                         .x = args.x,
                         .x_stride = args.x_stride,
                         .xa = args.xa,
                         .dy = args.dy,
                         .dy_stride = args.dy_stride,
                         .dxa = args.dxa,
                         .da = args.da,
                         .db = args.db});
}

void lora_gradient(Device& device, const ops::LoraGradient& args) {
  gemm_fp32(device, {.transpose_a = true,
                     .m = args.rank,
                     .n = args.in,
                     .k = args.rows,
                     .a = args.dxa,
                     .lda = args.rank,
                     .b = args.x,
                     .ldb = args.x_stride,
                     .accumulate = true,
                     .c = args.da,
                     .ldc = args.in});
  gemm_fp32(device, {.transpose_a = true,
                     .m = args.out,
                     .n = args.rank,
                     .k = args.rows,
                     .alpha = args.scale,
                     .a = args.dy,
                     .lda = args.dy_stride,
                     .b = args.xa,
                     .ldb = args.rank,
                     .accumulate = true,
                     .c = args.db,
                     .ldc = args.rank});
}

}  // namespace collimate::cuda
