// Products, their error bound, and the decision among what is left.
#include "core/nearest_centroids.h"

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/gemm.h"
#include "core/row_ops.h"

namespace collimate {
namespace {

constexpr int64_t kCentroidsPerItem = 64;
constexpr double kFloatUnit = 1.0 / (1 << 24);  // relative rounding error of one fp32 operation
constexpr double kBf16Unit = 1.0 / (1 << 8);
constexpr double kUnderflow = 1e-33;  // more than all products that underflow can add up to

// How far the products of one row may be off: `scale` times each centroid's own share.
struct Bound {
  const float* shares = nullptr;
  float scale = 0;
};

// Least of what the scores are at most.
float least_upper(const float* scores, int64_t n, const Bound& bound) {
  constexpr int kChains = 4;  // of comparisons, none of which waits for another
  const __m256 scale = _mm256_set1_ps(bound.scale);
  const auto upper = [&](int64_t j) {
    return _mm256_add_ps(_mm256_loadu_ps(scores + j), _mm256_mul_ps(scale, _mm256_loadu_ps(bound.shares + j)));
  };
  __m256 least[kChains];
  for (__m256& chain : least) chain = _mm256_set1_ps(std::numeric_limits<float>::infinity());
  int64_t j = 0;
  for (; j + 8 * kChains <= n; j += 8 * kChains)
    for (int chain = 0; chain < kChains; ++chain) least[chain] = _mm256_min_ps(least[chain], upper(j + 8 * chain));
  for (; j + 8 <= n; j += 8) least[0] = _mm256_min_ps(least[0], upper(j));
  alignas(32) float lanes[8];
  _mm256_store_ps(lanes, _mm256_min_ps(_mm256_min_ps(least[0], least[1]), _mm256_min_ps(least[2], least[3])));
  float result = *std::min_element(lanes, lanes + 8);
  for (; j < n; ++j) result = std::min(result, scores[j] + bound.scale * bound.shares[j]);
  return result;
}

// Calls visit(j) for every score that may be up to `limit`, ascending.
template <typename Visit>
void for_scores_up_to(const float* scores, int64_t n, const Bound& bound, float limit, const Visit& visit) {
  const __m256 limits = _mm256_set1_ps(limit), scale = _mm256_set1_ps(bound.scale);
  const auto found = [&](int64_t j) {
    const __m256 error = _mm256_mul_ps(scale, _mm256_loadu_ps(bound.shares + j));
    const __m256 lower = _mm256_sub_ps(_mm256_loadu_ps(scores + j), error);
    return static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(lower, limits, _CMP_LE_OQ)));
  };
  int64_t j = 0;
  for (; j + 32 <= n; j += 32) {
    unsigned hits = found(j) | found(j + 8) << 8 | found(j + 16) << 16 | found(j + 24) << 24;
    for (; hits != 0; hits &= hits - 1) visit(j + __builtin_ctz(hits));
  }
  for (; j < n; ++j)
    if (scores[j] - bound.scale * bound.shares[j] <= limit) visit(j);
}

double norm_of(const float* row, int64_t dim) { return std::sqrt(static_cast<double>(wide_dot(row, row, dim))); }

}  // namespace

CentroidTable::CentroidTable(Pool& pool, std::span<const float> centroids, int64_t dim)
    : values_(centroids), half_norms_(centroids.size() / dim), dim_(dim) {
  pool.for_blocks(clusters(), kCentroidsPerItem, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j) half_norms_[j] = 0.5f * wide_dot(row(j), row(j), dim);
  });
  // Both the product and the definition err by less than this share of |x| |c| + |c|^2 / 2, whatever their order of
  // sums.
  const double sums = 2.0 * static_cast<double>(dim + 4) * kFloatUnit;
  if (bf16_unit() != Bf16Unit::none) {
    panels_.pack(
        pool,
        {.values = centroids.data(), .transposed = true, .k = dim, .n = clusters(), .stride = dim, .factor = -1.0f});
    product_rounding_ = 2.0 * kBf16Unit + kBf16Unit * kBf16Unit;  // of x and of c
  }
  constexpr double kSlack = 1.01;  // for the arithmetic of the bound itself
  double half_norm = 0.0;
  for (const float half : half_norms_) {
    const double norm = std::sqrt(2.0 * static_cast<double>(half));
    relative_errors_.push_back(static_cast<float>(kSlack * (sums + product_rounding_) * norm));
    norms_.push_back(static_cast<float>(norm));
    half_norm = std::max(half_norm, static_cast<double>(half));
  }
  absolute_error_ = static_cast<float>(kSlack * sums * half_norm + kUnderflow);
}

float CentroidTable::score(const float* row, int64_t centroid) const {
  return half_norms_[centroid] - wide_dot(row, values_.data() + centroid * dim_, dim_);
}

void CentroidTable::products(const float* rows, int64_t count, Scratch& scratch) const {
  const int64_t n = clusters();
  if (static_cast<int64_t>(scratch.scores.size()) < count * n) scratch.scores.resize(count * n);
  if (!panels_.empty()) {
    scratch.rows.pack({rows, count, dim_, dim_});
    gemm_bf16_tile({.a = &scratch.rows,
                    .rows = count,
                    .b = &panels_,
                    .panels = panels_.panels(),
                    .bias = half_norms_.data(),
                    .c = scratch.scores.data(),
                    .ldc = n});
    return;
  }
  gemm_single({.transpose_b = true,
               .m = count,
               .n = n,
               .k = dim_,
               .alpha = -1.0f,
               .a = rows,
               .lda = dim_,
               .b = values_.data(),
               .ldb = dim_,
               .c = scratch.scores.data(),
               .ldc = n});
  for (int64_t i = 0; i < count; ++i)
    for (int64_t j = 0; j < n; ++j) scratch.scores[i * n + j] += half_norms_[j];
}

int32_t CentroidTable::decide(const float* row, const float* scores) const {
  const Bound bound{relative_errors_.data(), static_cast<float>(norm_of(row, dim_))};
  const float limit = least_upper(scores, clusters(), bound) + 2.0f * absolute_error_;
  constexpr int64_t kKept = 32;
  int32_t kept[kKept];  // the first candidates
  int64_t candidates = 0;
  for_scores_up_to(scores, clusters(), bound, limit, [&](int64_t j) {
    if (candidates < kKept) kept[candidates] = static_cast<int32_t>(j);
    ++candidates;
  });
  if (candidates == 1) return kept[0];
  int32_t nearest = 0;
  float least = std::numeric_limits<float>::infinity();
  const auto compare = [&](int64_t j) {
    const float exact = score(row, j);
    if (exact < least) {
      least = exact;
      nearest = static_cast<int32_t>(j);
    }
  };
  if (candidates == 0) {  // products that overflowed rule nothing out
    for (int64_t j = 0; j < clusters(); ++j) compare(j);
  } else if (candidates <= kKept) {
    for (int64_t i = 0; i < candidates; ++i) compare(kept[i]);
  } else {
    for_scores_up_to(scores, clusters(), bound, limit, compare);
  }
  return nearest;
}

void CentroidTable::nearest(const float* rows, int64_t count, Scratch& scratch, int32_t* result) const {
  products(rows, count, scratch);
  for (int64_t i = 0; i < count; ++i) result[i] = decide(rows + i * dim_, scratch.scores.data() + i * clusters());
}

}  // namespace collimate
