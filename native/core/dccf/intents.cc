#include "core/dccf/intents.h"

#include <algorithm>
#include <vector>

#include "core/dccf/softmax_rows.h"
#include "core/gemm.h"
#include "core/row_ops.h"

namespace collimate::dccf {
namespace {

constexpr int64_t kRowsPerBlock = 256;

// P = softmax(E C) of `count` rows.
void softmax_block(const float* e, const float* prototypes, int64_t count, int64_t dim, int64_t intents, float* p) {
  gemm_single({.m = count,
               .n = intents,
               .k = dim,
               .a = e,
               .lda = dim,
               .b = prototypes,
               .ldb = intents,
               .c = p,
               .ldc = intents});
  softmax_rows(p, count, intents, nullptr);
}

// dp becomes p * (dp - sum(p * dp)), row by row.
void softmax_backward_rows(const float* p, float* dp, int64_t count, int64_t intents) {
  for (int64_t i = 0; i < count; ++i) {
    const float* p_row = p + i * intents;
    float* dp_row = dp + i * intents;
    const float mean = row_dot(p_row, dp_row, intents);
    for (int64_t k = 0; k < intents; ++k) dp_row[k] = p_row[k] * (dp_row[k] - mean);
  }
}

}  // namespace

void intents_forward(Pool& pool, const IntentsForward& args) {
  pool.for_blocks(args.rows, kRowsPerBlock, [&](int64_t begin, int64_t end) {
    std::vector<float> p((end - begin) * args.intents);
    softmax_block(args.e + begin * args.dim, args.prototypes, end - begin, args.dim, args.intents, p.data());
    gemm_single({.transpose_b = true,
                 .m = end - begin,
                 .n = args.dim,
                 .k = args.intents,
                 .a = p.data(),
                 .lda = args.intents,
                 .b = args.prototypes,
                 .ldb = args.intents,
                 .c = args.r + begin * args.dim,
                 .ldc = args.dim});
  });
}

void intents_backward(Pool& pool, const IntentsBackward& args) {
  const int64_t dim = args.dim, intents = args.intents, size = dim * intents;
  const int64_t blocks = (args.rows + kRowsPerBlock - 1) / kRowsPerBlock;
  std::vector<float> partial(blocks * size);
  pool.for_blocks(args.rows, kRowsPerBlock, [&](int64_t begin, int64_t end) {
    const int64_t count = end - begin;
    const float* e = args.e + begin * dim;
    const float* dr = args.dr + begin * dim;
    float* dc = &partial[begin / kRowsPerBlock * size];
    std::vector<float> p(count * intents), ds(count * intents);
    softmax_block(e, args.prototypes, count, dim, intents, p.data());
    const auto product = [](GemmArgs gemm) { gemm_single(gemm); };
    // dP = dR C, then through the softmax.
    product({.m = count,
             .n = intents,
             .k = dim,
             .a = dr,
             .lda = dim,
             .b = args.prototypes,
             .ldb = intents,
             .c = ds.data(),
             .ldc = intents});
    softmax_backward_rows(p.data(), ds.data(), count, intents);
    // dE += dS C^T
    product({.transpose_b = true,
             .m = count,
             .n = dim,
             .k = intents,
             .a = ds.data(),
             .lda = intents,
             .b = args.prototypes,
             .ldb = intents,
             .beta = 1.0f,
             .c = args.de + begin * dim,
             .ldc = dim});
    // dC = E^T dS + dR^T P
    product({.transpose_a = true,
             .m = dim,
             .n = intents,
             .k = count,
             .a = e,
             .lda = dim,
             .b = ds.data(),
             .ldb = intents,
             .c = dc,
             .ldc = intents});
    product({.transpose_a = true,
             .m = dim,
             .n = intents,
             .k = count,
             .a = dr,
             .lda = dim,
             .b = p.data(),
             .ldb = intents,
             .beta = 1.0f,
             .c = dc,
             .ldc = intents});
  });
  for (int64_t stride = 1; stride < blocks; stride *= 2)
    for (int64_t i = 0; i + stride < blocks; i += 2 * stride)
      for (int64_t c = 0; c < size; ++c) partial[i * size + c] += partial[(i + stride) * size + c];
  if (blocks > 0)
    for (int64_t c = 0; c < size; ++c) args.dprototypes[c] += partial[c];
}

}  // namespace collimate::dccf
