// Intents: products and softmax over all rows of one side at once; the prototypes' gradients in blocks of rows.
#include "cuda/dccf.h"
#include "cuda/gemm.h"
#include "cuda/row_sums.h"
#include "cuda/softmax_rows.h"

namespace collimate::cuda {
namespace {

constexpr int64_t kRowsPerBlock = 4096;  // of a prototype gradient's partial sum

// to [rows, K] = x C
void times_prototypes(Device& device, const float* x, int64_t rows, int64_t dim, int64_t intents,
                      const float* prototypes, float* to) {
  gemm_fp32(device, {.m = rows,
                     .n = intents,
                     .k = dim,
                     .a = x,
                     .lda = dim,
                     .b = prototypes,
                     .ldb = intents,
                     .c = to,
                     .ldc = intents});
}

// to [rows, d] (+)= x C^T
void back_to_rows(Device& device, const float* x, int64_t rows, int64_t dim, int64_t intents, const float* prototypes,
                  float* to, bool accumulate) {
  gemm_fp32(device, {.transpose_b = true,
                     .m = rows,
                     .n = dim,
                     .k = intents,
                     .a = x,
                     .lda = intents,
                     .b = prototypes,
                     .ldb = intents,
                     .accumulate = accumulate,
                     .c = to,
                     .ldc = dim});
}

}  // namespace

void intents_forward(Device& device, const dccf::IntentsForward& a) {
  float* p = device.scratch<float>(a.rows * a.intents);
  times_prototypes(device, a.e, a.rows, a.dim, a.intents, a.prototypes, p);
  softmax_rows(device, p, a.rows, a.intents);
  back_to_rows(device, p, a.rows, a.dim, a.intents, a.prototypes, a.r, /*accumulate=*/false);
}

void intents_backward(Device& device, const dccf::IntentsBackward& a) {
  const int64_t size = a.rows * a.intents, blocks = (a.rows + kRowsPerBlock - 1) / kRowsPerBlock;
  float* p = device.scratch<float>(2 * size + blocks * a.dim * a.intents);
  float* ds = p + size;
  float* partial = ds + size;
  times_prototypes(device, a.e, a.rows, a.dim, a.intents, a.prototypes, p);
  softmax_rows(device, p, a.rows, a.intents);
  times_prototypes(device, a.dr, a.rows, a.dim, a.intents, a.prototypes, ds);
  softmax_rows_backward(device, p, ds, a.rows, a.intents);
  back_to_rows(device, ds, a.rows, a.dim, a.intents, a.prototypes, a.de, /*accumulate=*/true);
  // dC += E^T dS + dR^T P
  const struct {
    const float *rows, *weights;
  } terms[] = {{a.e, ds}, {a.dr, p}};
  for (const auto& term : terms) {
    gemm_fp32(device, {.transpose_a = true,
                       .m = a.dim,
                       .n = a.intents,
                       .k = a.rows,
                       .a = term.rows,
                       .lda = a.dim,
                       .b = term.weights,
                       .ldb = a.intents,
                       .c = partial,
                       .ldc = a.intents,
                       .k_block = kRowsPerBlock});
    add_block_sums(device, partial, blocks, a.dim * a.intents, a.dprototypes);
  }
}

}  // namespace collimate::cuda
