#include "core/dccf/losses.h"

#include <algorithm>
#include <cmath>

#include "core/dccf/softmax_rows.h"
#include "core/gemm.h"
#include "core/math.h"
#include "core/row_ops.h"
#include "core/tree_sum.h"

namespace collimate::dccf {
namespace {

constexpr int64_t kTriplesPerBlock = 512;
constexpr int64_t kContrastRowsPerBlock = 128;
constexpr float kTinyNorm = 1e-12f;

struct TripleSums {
  double rank = 0;
  double decay = 0;
};

// slopes[b] = d softplus(x) / dx of triple b.
TripleSums score_triples(const Batch& batch, const RankLoss& args, int64_t begin, int64_t end, float* slopes) {
  TripleSums sums;
  const int64_t dim = args.dim;
  for (int64_t b = begin; b < end; ++b) {
    const int64_t u = batch.users[b] * dim, i = batch.positives[b] * dim, j = batch.negatives[b] * dim;
    const float margin = row_dot(args.final + u, args.final + j, dim) - row_dot(args.final + u, args.final + i, dim);
    sums.rank += softplus_f32(margin);
    slopes[b] = sigmoid_f32(margin);
    for (const int64_t row : {u, i, j}) sums.decay += row_dot(args.embedding + row, args.embedding + row, dim);
  }
  return sums;
}

// In batch order on one thread: the rows of a batch repeat, and this is a small part of a step.
void scatter_triples(const Batch& batch, const RankLoss& args, const float* slopes) {
  const int64_t dim = args.dim;
  const float mean = 1.0f / static_cast<float>(batch.size());
  for (int64_t b = 0; b < batch.size(); ++b) {
    const int64_t u = batch.users[b] * dim, i = batch.positives[b] * dim, j = batch.negatives[b] * dim;
    const float slope = slopes[b] * mean;
    row_add_scaled(args.dfinal + u, args.final + j, slope, dim);
    row_add_scaled(args.dfinal + u, args.final + i, -slope, dim);
    row_add_scaled(args.dfinal + i, args.final + u, -slope, dim);
    row_add_scaled(args.dfinal + j, args.final + u, slope, dim);
    for (const int64_t row : {u, i, j})
      row_add_scaled(args.dembedding + row, args.embedding + row, 2.0f * args.weight_decay, dim);
  }
}

// Normalised copies of the rows named, and their inverse norms (0 for a vanishing row).
struct UnitRows {
  std::vector<float> values;
  std::vector<float> inverse_norms;
};

void normalise_rows(const float* x, std::span<const int32_t> nodes, int64_t dim, UnitRows& out) {
  for (size_t i = 0; i < nodes.size(); ++i) {
    const float* row = x + nodes[i] * dim;
    const float norm = std::sqrt(row_dot(row, row, dim));
    const float inverse = norm > kTinyNorm ? 1.0f / norm : 0.0f;
    out.inverse_norms[i] = inverse;
    for (int64_t c = 0; c < dim; ++c) out.values[i * dim + c] = row[c] * inverse;
  }
}

UnitRows unit_rows(const float* x, std::span<const int32_t> nodes, int64_t dim) {
  UnitRows rows{std::vector<float>(nodes.size() * dim), std::vector<float>(nodes.size())};
  normalise_rows(x, nodes, dim, rows);
  return rows;
}

// dx[node] += through the normalisation of d(unit row).
void add_unit_gradients(const UnitRows& rows, const float* dunit, std::span<const int32_t> nodes, int64_t dim,
                        float* dx) {
  for (size_t i = 0; i < nodes.size(); ++i) {
    const float* unit = &rows.values[i * dim];
    const float along = row_dot(dunit + i * dim, unit, dim);
    float* out = dx + nodes[i] * dim;
    for (int64_t c = 0; c < dim; ++c) out[c] += (dunit[i * dim + c] - along * unit[c]) * rows.inverse_norms[i];
  }
}

}  // namespace

RankLossValue rank_loss(Pool& pool, const Batch& batch, const RankLoss& args) {
  const int64_t blocks = (batch.size() + kTriplesPerBlock - 1) / kTriplesPerBlock;
  std::vector<double> rank(blocks), decay(blocks);
  std::vector<float> slopes(batch.size());
  pool.for_blocks(batch.size(), kTriplesPerBlock, [&](int64_t begin, int64_t end) {
    const TripleSums sums = score_triples(batch, args, begin, end, slopes.data());
    rank[begin / kTriplesPerBlock] = sums.rank;
    decay[begin / kTriplesPerBlock] = sums.decay;
  });
  scatter_triples(batch, args, slopes.data());
  return {tree_sum(rank) / static_cast<double>(batch.size()), args.weight_decay * tree_sum(decay)};
}

double contrast_loss(Pool& pool, const ContrastLoss& args) {
  const int64_t rows = static_cast<int64_t>(args.nodes.size()), dim = args.dim;
  const int64_t blocks = (rows + kContrastRowsPerBlock - 1) / kContrastRowsPerBlock;
  const UnitRows anchor = unit_rows(args.anchor, args.nodes, dim);
  const UnitRows view = unit_rows(args.view, args.nodes, dim);
  std::vector<float> danchor(rows * dim), dview(blocks * rows * dim);
  std::vector<double> sums(blocks);
  const float inverse_temperature = 1.0f / args.temperature;
  const float slope = args.scale * inverse_temperature / static_cast<float>(rows);

  pool.for_blocks(rows, kContrastRowsPerBlock, [&](int64_t begin, int64_t end) {
    const int64_t count = end - begin, block = begin / kContrastRowsPerBlock;
    std::vector<float> scores(count * rows), log_sum_exp(count), own(count);
    gemm_single({.transpose_b = true,
                 .m = count,
                 .n = rows,
                 .k = dim,
                 .alpha = inverse_temperature,
                 .a = &anchor.values[begin * dim],
                 .lda = dim,
                 .b = view.values.data(),
                 .ldb = dim,
                 .c = scores.data(),
                 .ldc = rows});
    for (int64_t i = 0; i < count; ++i) own[i] = scores[i * rows + begin + i];
    softmax_rows(scores.data(), count, rows, log_sum_exp.data());
    for (int64_t i = 0; i < count; ++i) {
      sums[block] += static_cast<double>(log_sum_exp[i]) - own[i];
      scores[i * rows + begin + i] -= 1.0f;
    }
    gemm_single({.m = count,
                 .n = dim,
                 .k = rows,
                 .alpha = slope,
                 .a = scores.data(),
                 .lda = rows,
                 .b = view.values.data(),
                 .ldb = dim,
                 .c = &danchor[begin * dim],
                 .ldc = dim});
    gemm_single({.transpose_a = true,
                 .m = rows,
                 .n = dim,
                 .k = count,
                 .alpha = slope,
                 .a = scores.data(),
                 .lda = rows,
                 .b = &anchor.values[begin * dim],
                 .ldb = dim,
                 .c = &dview[block * rows * dim],
                 .ldc = dim});
  });
  const int64_t size = rows * dim;
  for (int64_t stride = 1; stride < blocks; stride *= 2)
    for (int64_t i = 0; i + stride < blocks; i += 2 * stride)
      for (int64_t c = 0; c < size; ++c) dview[i * size + c] += dview[(i + stride) * size + c];
  add_unit_gradients(anchor, danchor.data(), args.nodes, dim, args.danchor);
  add_unit_gradients(view, dview.data(), args.nodes, dim, args.dview);
  return tree_sum(sums) / static_cast<double>(rows);
}

}  // namespace collimate::dccf
