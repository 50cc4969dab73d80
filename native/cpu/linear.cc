// Linear layers and their low-rank adapters, as matrix products of packed rows.
#include "core/gemm.h"
#include "core/ops.h"

namespace collimate::ops {

void linear_forward(Pool& pool, const LinearForward& args) {
  gemm(pool, {.transpose_b = true,
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

void linear_backward(Pool& pool, const LinearBackward& args) {
  if (args.dx) {
    gemm(pool, {.m = args.rows,
                .n = args.in,
                .k = args.out,
                .a = args.dy,
                .lda = args.dy_stride,
                .b = args.weight,
                .ldb = args.in,
                .beta = args.accumulate_dx ? 1.0f : 0.0f,
                .c = args.dx,
                .ldc = args.dx_stride});
  }
  if (args.dweight) {
    gemm(pool, {.transpose_a = true,
                .m = args.out,
                .n = args.in,
                .k = args.rows,
                .a = args.dy,
                .lda = args.dy_stride,
                .b = args.x,
                .ldb = args.x_stride,
                .beta = 1.0f,
                .c = args.dweight,
                .ldc = args.in});
  }
}

void lora_forward(Pool& pool, const LoraForward& args) {
  linear_forward(pool, {.rows = args.rows,
                        .in = args.in,
                        .out = args.rank,
                        .x = args.x,
                        .x_stride = args.x_stride,
                        .weight = args.a,
                        .y = args.xa,
                        .y_stride = args.rank});
  gemm(pool, {.transpose_b = true,
              .m = args.rows,
              .n = args.out,
              .k = args.rank,
              .alpha = args.scale,
              .a = args.xa,
              .lda = args.rank,
              .b = args.b,
              .ldb = args.rank,
              .beta = 1.0f,
              .c = args.y,
              .ldc = args.y_stride});
}

void lora_backward(Pool& pool, const LoraBackward& args) {
  // d(x Aᵀ) = scale dy B
  gemm(pool, {.m = args.rows,
              .n = args.rank,
              .k = args.out,
              .alpha = args.scale,
              .a = args.dy,
              .lda = args.dy_stride,
              .b = args.b,
              .ldb = args.rank,
              .c = args.dxa,
              .ldc = args.rank});
  linear_backward(pool, {.rows = args.rows,
                         .in = args.in,
                         .out = args.rank,
                         .weight = args.a,
                         .dy = args.dxa,
                         .dy_stride = args.rank,
                         .dx = args.dx,
                         .dx_stride = args.dx_stride,
                         .accumulate_dx = true});
  lora_gradient(pool, {.rows = args.rows,
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

}  // namespace collimate::ops
