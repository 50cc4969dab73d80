#include "core/alignment/loss.h"

#include <numeric>
#include <vector>

#include "core/dccf/losses.h"
#include "core/gemm.h"
#include "core/row_ops.h"
#include "core/tree_sum.h"

namespace collimate::alignment {
namespace {

constexpr int64_t kItemsPerBlock = 64;

// sums [levels, B, D]
std::vector<float> prefix_sums(Pool& pool, const Shape& shape, const Batch& batch, std::span<const float> centroids) {
  const int64_t dim = shape.dim, items = static_cast<int64_t>(batch.rows.size()) / dim;
  std::vector<float> sums(shape.levels * items * dim);
  pool.for_blocks(items, kItemsPerBlock, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t level = 0; level < shape.levels; ++level) {
        const float* code = &centroids[level * shape.level_elements() + batch.codes[i * shape.levels + level] * dim];
        const float* before = level == 0 ? nullptr : &sums[((level - 1) * items + i) * dim];
        float* sum = &sums[(level * items + i) * dim];
        for (int64_t c = 0; c < dim; ++c) sum[c] = (before == nullptr ? 0.0f : before[c]) + code[c];
      }
    }
  });
  return sums;
}

// Mean squared distance of a level's sums to the rows, over S; dsums += scale * its derivative.
double reconstruction(Pool& pool, std::span<const float> rows, std::span<const float> sums, double scale,
                      std::span<float> dsums) {
  constexpr int64_t kElementsPerBlock = 16384;
  const int64_t size = static_cast<int64_t>(rows.size());
  std::vector<double> terms((size + kElementsPerBlock - 1) / kElementsPerBlock);
  const float slope = static_cast<float>(2.0 * scale);
  pool.for_blocks(size, kElementsPerBlock, [&](int64_t begin, int64_t end) {
    terms[begin / kElementsPerBlock] = wide_squared_distance(&sums[begin], &rows[begin], end - begin);
    for (int64_t c = begin; c < end; ++c) dsums[c] += slope * (sums[c] - rows[c]);
  });
  return scale * tree_sum(terms);
}

// A code of level l is part of the sums of levels l, l + 1, …: each level takes what they all hand back, in batch
// order.
void scatter(Pool& pool, const Shape& shape, const Batch& batch, std::span<float> dsums, std::span<float> dcentroids) {
  const int64_t dim = shape.dim, items = static_cast<int64_t>(batch.rows.size()) / dim, size = items * dim;
  for (int64_t level = shape.levels - 1; level > 0; --level)
    row_add_scaled(&dsums[(level - 1) * size], &dsums[level * size], 1.0f, size);
  pool.for_each(shape.levels, [&](int64_t level) {
    float* to = &dcentroids[level * shape.level_elements()];
    for (int64_t i = 0; i < items; ++i)
      row_add_scaled(to + batch.codes[i * shape.levels + level] * dim, &dsums[level * size + i * dim], 1.0f, dim);
  });
}

}  // namespace

Loss loss(Pool& pool, const Shape& shape, const Options& options, const Batch& batch, std::span<const float> parameters,
          std::span<float> gradient) {
  const int64_t dim = shape.dim, text_dim = shape.text_dim, levels = shape.levels;
  const int64_t items = static_cast<int64_t>(batch.rows.size()) / dim, size = items * dim;
  const float* map = &parameters[shape.centroid_elements()];
  const std::vector<float> sums = prefix_sums(pool, shape, batch, parameters);
  std::vector<float> dsums(levels * size), images(items * text_dim), dimages, dtext(items * text_dim);
  std::vector<int32_t> order(items);
  std::iota(order.begin(), order.end(), 0);

  Loss result;
  for (int64_t level = 0; level < levels; ++level) {
    const float* z = &sums[level * size];
    float* dz = &dsums[level * size];
    const bool last = level == levels - 1;
    const double scale = options.prefix_weight / static_cast<double>(levels) + (last ? options.weight : 0.0);
    gemm(pool, {.transpose_b = true,
                .m = items,
                .n = text_dim,
                .k = dim,
                .a = z,
                .lda = dim,
                .b = map,
                .ldb = dim,
                .c = images.data(),
                .ldc = text_dim});
    dimages.assign(items * text_dim, 0.0f);
    const double contrast = dccf::contrast_loss(pool, {.nodes = order,
                                                       .dim = text_dim,
                                                       .temperature = options.temperature,
                                                       .scale = static_cast<float>(scale),
                                                       .anchor = images.data(),
                                                       .view = batch.text.data(),
                                                       .danchor = dimages.data(),
                                                       .dview = dtext.data()});
    gemm(pool, {.m = items,
                .n = dim,
                .k = text_dim,
                .a = dimages.data(),
                .lda = text_dim,
                .b = map,
                .ldb = dim,
                .c = dz,
                .ldc = dim});
    gemm(pool, {.transpose_a = true,
                .m = text_dim,
                .n = dim,
                .k = items,
                .a = dimages.data(),
                .lda = text_dim,
                .b = z,
                .ldb = dim,
                .beta = 1.0f,
                .c = &gradient[shape.centroid_elements()],
                .ldc = dim});
    result.prefixes += contrast / static_cast<double>(levels);
    if (last) result.whole = contrast;
    const double share = 1.0 / (static_cast<double>(levels * items) * options.mean_squared_norm);
    result.reconstruction +=
        reconstruction(pool, batch.rows, {z, static_cast<size_t>(size)}, share, {dz, static_cast<size_t>(size)});
  }
  scatter(pool, shape, batch, dsums, gradient.first(shape.centroid_elements()));
  result.total = result.reconstruction + options.weight * result.whole + options.prefix_weight * result.prefixes;
  return result;
}

}  // namespace collimate::alignment
