#include "core/alignment/map.h"

#include <algorithm>
#include <cmath>

#include "core/failure.h"
#include "core/gemm.h"
#include "core/row_ops.h"

namespace collimate::alignment {
namespace {

constexpr int64_t kAskersPerItem = 16;
constexpr int64_t kWindows = 20, kWindowsAtRest = 5;
constexpr double kRestShare = 0.05;
constexpr double kRidgeShare = 1e-3;

// sum over levels of an item's codes
void decode(const ResidualCodebooks& books, const int32_t* codes, float* to) {
  std::fill(to, to + books.dim, 0.0f);
  for (int64_t level = 0; level < books.levels; ++level)
    row_add_scaled(to, books.level(level).data() + codes[level] * books.dim, 1.0f, books.dim);
}

void add_to(std::vector<double>& sums, const std::vector<float>& values) {
  for (size_t i = 0; i < sums.size(); ++i) sums[i] += static_cast<double>(values[i]);
}

struct Moments {
  std::vector<double> squares;   // sum z zᵀ [D, D]
  std::vector<double> products;  // sum z tᵀ [D, T]
};

Moments moments(Pool& pool, const RowPairs& pairs) {
  const int64_t dim = pairs.from.dim, text_dim = pairs.to.dim, items = static_cast<int64_t>(pairs.items.size());
  Moments sums{std::vector<double>(dim * dim), std::vector<double>(dim * text_dim)};
  std::vector<float> z(kRowsPerItem * dim), t(kRowsPerItem * text_dim), squares(dim * dim), products(dim * text_dim);
  for (int64_t first = 0; first < items; first += kRowsPerItem) {
    const int64_t count = std::min(kRowsPerItem, items - first);
    pool.for_blocks(count, 64, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        pairs.from.copy(pairs.items[first + i], 1, &z[i * dim]);
        pairs.to.copy(pairs.items[first + i], 1, &t[i * text_dim]);
      }
    });
    GemmArgs product{.transpose_a = true, .m = dim, .n = dim, .k = count, .a = z.data(), .lda = dim};
    product.b = z.data(), product.ldb = dim, product.c = squares.data(), product.ldc = dim;
    gemm(pool, product);
    product.n = text_dim, product.b = t.data(), product.ldb = text_dim;
    product.c = products.data(), product.ldc = text_dim;
    gemm(pool, product);
    add_to(sums.squares, squares);
    add_to(sums.products, products);
  }
  return sums;
}

// Lower Cholesky factor in place of a symmetric positive definite matrix.
void factorise(Pool& pool, std::vector<double>& a, int64_t n) {
  for (int64_t j = 0; j < n; ++j) {
    double* pivot = &a[j * n];
    double square = pivot[j];
    for (int64_t k = 0; k < j; ++k) square -= pivot[k] * pivot[k];
    pivot[j] = std::sqrt(std::max(square, 1e-300));
    pool.for_blocks(n - j - 1, 64, [&](int64_t begin, int64_t end) {
      for (int64_t i = j + 1 + begin; i < j + 1 + end; ++i) {
        double value = a[i * n + j];
        for (int64_t k = 0; k < j; ++k) value -= a[i * n + k] * pivot[k];
        a[i * n + j] = value / pivot[j];
      }
    });
  }
}

// x = A⁻¹ b for the factor of A.
void solve(const std::vector<double>& factor, int64_t n, std::vector<double>& x) {
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t k = 0; k < i; ++k) x[i] -= factor[i * n + k] * x[k];
    x[i] /= factor[i * n + i];
  }
  for (int64_t i = n - 1; i >= 0; --i) {
    for (int64_t k = i + 1; k < n; ++k) x[i] -= factor[k * n + i] * x[k];
    x[i] /= factor[i * n + i];
  }
}

double mean_of(std::span<const float> values) {
  double sum = 0;
  for (const float value : values) sum += static_cast<double>(value);
  return sum / static_cast<double>(values.size());
}

}  // namespace

const float* UnitRows::read(int64_t first, int64_t count, float* scratch) const {
  const float* from = from_.read(first, count, scratch);
  for (int64_t i = 0; i < count; ++i) {
    const float* row = from + i * dim;
    const double norm = std::sqrt(static_cast<double>(row_dot(row, row, dim)));
    const float scale = norm > 0 ? static_cast<float>(1.0 / norm) : 0.0f;
    for (int64_t c = 0; c < dim; ++c) scratch[i * dim + c] = row[c] * scale;
  }
  return scratch;
}

const float* DecodedRows::read(int64_t first, int64_t count, float* scratch) const {
  for (int64_t i = 0; i < count; ++i) decode(books_, &codes_[(first + i) * books_.levels], scratch + i * dim);
  return scratch;
}

const float* MappedRows::read(int64_t first, int64_t count, float* scratch) const {
  // Row by row: the bytes of a row must not depend on how many are read at once.
  thread_local std::vector<float> values;
  values.resize(from_.dim);
  for (int64_t i = 0; i < count; ++i) {
    from_.copy(first + i, 1, values.data());
    for (int64_t c = 0; c < dim; ++c) scratch[i * dim + c] = row_dot(&map_[c * from_.dim], values.data(), from_.dim);
  }
  return scratch;
}

std::vector<float> ridge_map(Pool& pool, const CodedTexts& texts) {
  const DecodedRows sums(texts.books, texts.codes);
  return ridge_map(pool, RowPairs{sums, texts.text, texts.items});
}

std::vector<float> ridge_map(Pool& pool, const RowPairs& pairs) {
  const int64_t dim = pairs.from.dim, text_dim = pairs.to.dim;
  Moments sums = moments(pool, pairs);
  double trace = 0;
  for (int64_t c = 0; c < dim; ++c) trace += sums.squares[c * dim + c];
  const double ridge = std::max(kRidgeShare * trace / static_cast<double>(dim), 1e-12);
  for (int64_t c = 0; c < dim; ++c) sums.squares[c * dim + c] += ridge;
  factorise(pool, sums.squares, dim);
  std::vector<float> map(text_dim * dim);
  pool.for_each(text_dim, [&](int64_t row) {
    std::vector<double> x(dim);
    for (int64_t c = 0; c < dim; ++c) x[c] = sums.products[c * text_dim + row];
    solve(sums.squares, dim, x);
    for (int64_t c = 0; c < dim; ++c) map[row * dim + c] = static_cast<float>(x[c]);
  });
  return map;
}

Retrieval retrieve(Pool& pool, const CodedTexts& texts, std::span<const float> map) {
  const int64_t dim = texts.books.dim, text_dim = texts.text.dim, items = static_cast<int64_t>(texts.items.size());
  const int64_t askers = std::min(items, kRetrievalItemsMax);
  std::vector<int64_t> ranks(askers);
  pool.for_blocks(askers, kAskersPerItem, [&](int64_t begin, int64_t end) {
    const int64_t count = end - begin;
    std::vector<float> z(count * dim), image(count * text_dim), tile(kRowsPerItem * text_dim), scores(count * items);
    for (int64_t q = 0; q < count; ++q)
      decode(texts.books, &texts.codes[texts.items[(begin + q) * items / askers] * texts.books.levels], &z[q * dim]);
    gemm_single({.transpose_b = true,
                 .m = count,
                 .n = text_dim,
                 .k = dim,
                 .a = z.data(),
                 .lda = dim,
                 .b = map.data(),
                 .ldb = dim,
                 .c = image.data(),
                 .ldc = text_dim});
    for (int64_t first = 0; first < items; first += kRowsPerItem) {
      const int64_t width = std::min(kRowsPerItem, items - first);
      for (int64_t j = 0; j < width; ++j) texts.text.copy(texts.items[first + j], 1, &tile[j * text_dim]);
      gemm_single({.transpose_b = true,
                   .m = count,
                   .n = width,
                   .k = text_dim,
                   .a = image.data(),
                   .lda = text_dim,
                   .b = tile.data(),
                   .ldb = text_dim,
                   .c = &scores[first],
                   .ldc = items});
    }
    for (int64_t q = 0; q < count; ++q) {
      const int64_t own = (begin + q) * items / askers;
      const float* row = &scores[q * items];
      for (int64_t j = 0; j < items; ++j)
        ranks[begin + q] += row[j] > row[own] || (row[j] == row[own] && j < own) ? 1 : 0;
    }
  });
  const auto share_below = [&](int64_t rank) {
    const auto found = std::count_if(ranks.begin(), ranks.end(), [&](int64_t r) { return r < rank; });
    return static_cast<double>(found) / static_cast<double>(std::max<int64_t>(askers, 1));
  };
  return {.items = askers, .recall_at_1 = share_below(1), .recall_at_10 = share_below(10)};
}

Verdict judge_curve(std::span<const float> losses) {
  const int64_t steps = static_cast<int64_t>(losses.size()), windows = std::min(kWindows, steps);
  if (windows == 0) return {};
  std::vector<double> means(windows);
  for (int64_t w = 0; w < windows; ++w)
    means[w] = mean_of(losses.subspan(w * steps / windows, (w + 1) * steps / windows - w * steps / windows));
  Verdict verdict{.first = means.front(), .last = means.back()};
  const double fall = verdict.first - verdict.last;
  if (!(fall > 0)) return verdict;
  int64_t rest = windows;  // from this window on the curve is at rest
  while (rest > 0 && std::fabs(means[rest - 1] - verdict.last) <= kRestShare * fall) --rest;
  verdict.converged = windows - rest >= kWindowsAtRest;
  if (verdict.converged) verdict.step = (rest + 1) * steps / windows;
  return verdict;
}

}  // namespace collimate::alignment
