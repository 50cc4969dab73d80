#include "core/residual_quantizer.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "core/failure.h"
#include "core/nearest_centroids.h"
#include "core/row_ops.h"
#include "core/tree_sum.h"

namespace collimate {
namespace {

void subtract_codes(float* residuals, int64_t count, int64_t dim, const float* centroids, const int32_t* codes) {
  for (int64_t i = 0; i < count; ++i) {
    const float* centroid = centroids + codes[i] * dim;
    for (int64_t c = 0; c < dim; ++c) residuals[i * dim + c] -= centroid[c];
  }
}

void squared_row_norms(const float* rows, int64_t count, int64_t dim, float* result) {
  for (int64_t i = 0; i < count; ++i) result[i] = wide_dot(rows + i * dim, rows + i * dim, dim);
}

// One tile of rows through every level, its residuals staying in cache.
class TileEncoder {
 public:
  TileEncoder(const ResidualCodebooks& books, const std::vector<CentroidTable>& tables)
      : books_(books), tables_(tables) {}

  void encode(const RowMatrix& rows, int64_t first, int64_t count, const ResidualEncoding& out) {
    const int64_t dim = rows.dim;
    residuals_.assign(rows.row(first), rows.row(first) + count * dim);
    level_codes_.resize(count);
    for (int64_t level = 0; level < books_.levels; ++level) {
      tables_[level].nearest(residuals_.data(), count, scratch_, level_codes_.data());
      subtract_codes(residuals_.data(), count, dim, books_.level(level).data(), level_codes_.data());
      if (!out.codes.empty())
        for (int64_t i = 0; i < count; ++i) out.codes[(first + i) * books_.levels + level] = level_codes_[i];
    }
    if (!out.residuals.empty())
      std::memcpy(&out.residuals[first * dim], residuals_.data(), count * dim * sizeof(float));
    if (!out.squared_distance.empty()) squared_row_norms(residuals_.data(), count, dim, &out.squared_distance[first]);
  }

 private:
  const ResidualCodebooks& books_;
  const std::vector<CentroidTable>& tables_;
  std::vector<float> residuals_;
  CentroidTable::Scratch scratch_;
  std::vector<int32_t> level_codes_;
};

void check_books(const ResidualCodebooks& books, int64_t dim) {
  if (books.dim != dim)
    fail_bad_input("residual quantizer: codebooks have dim " + std::to_string(books.dim) + ", rows have " +
                   std::to_string(dim) + "; use codebooks trained on rows of this width");
  if (static_cast<int64_t>(books.centroids.size()) != books.levels * books.codes * books.dim)
    fail_bad_input("residual quantizer: expected levels x codes x dim = " +
                   std::to_string(books.levels * books.codes * books.dim) + " centroid values, got " +
                   std::to_string(books.centroids.size()));
}

}  // namespace

void residual_encode(Pool& pool, const RowMatrix& rows, const ResidualCodebooks& books, const ResidualEncoding& out) {
  check_books(books, rows.dim);
  std::vector<CentroidTable> tables;
  for (int64_t level = 0; level < books.levels; ++level) tables.emplace_back(pool, books.level(level), books.dim);
  pool.for_blocks(rows.rows, kAssignRowsPerItem, [&](int64_t begin, int64_t end) {
    TileEncoder encoder(books, tables);
    for (int64_t first = begin; first < end; first += CentroidTable::kRowsPerTile)
      encoder.encode(rows, first, std::min(CentroidTable::kRowsPerTile, end - first), out);
  });
}

void residual_decode(Pool& pool, std::span<const int32_t> codes, const ResidualCodebooks& books,
                     std::span<float> rows) {
  check_books(books, books.dim);
  const int64_t count = static_cast<int64_t>(rows.size()) / books.dim;
  if (static_cast<int64_t>(codes.size()) != count * books.levels)
    fail_bad_input("residual decode: expected rows x levels = " + std::to_string(count * books.levels) +
                   " codes, got " + std::to_string(codes.size()));
  for (const int32_t code : codes)
    if (code < 0 || code >= books.codes)
      fail_bad_input("residual decode: expected codes in [0, " + std::to_string(books.codes) + "), got " +
                     std::to_string(code));
  pool.for_blocks(count, kAssignRowsPerItem, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float* row = &rows[i * books.dim];
      std::fill(row, row + books.dim, 0.0f);
      for (int64_t level = 0; level < books.levels; ++level) {
        const float* centroid = &books.level(level)[codes[i * books.levels + level] * books.dim];
        for (int64_t c = 0; c < books.dim; ++c) row[c] += centroid[c];
      }
    }
  });
}

double relative_error(Pool& pool, const RowMatrix& rows, std::span<const float> squared_distance) {
  const int64_t blocks = (rows.rows + kAssignRowsPerItem - 1) / kAssignRowsPerItem;
  std::vector<double> errors(blocks, 0.0), norms(blocks, 0.0);
  pool.for_blocks(rows.rows, kAssignRowsPerItem, [&](int64_t begin, int64_t end) {
    std::vector<float> row_norms(end - begin);
    squared_row_norms(rows.row(begin), end - begin, rows.dim, row_norms.data());
    for (int64_t i = begin; i < end; ++i) {
      errors[begin / kAssignRowsPerItem] += squared_distance[i];
      norms[begin / kAssignRowsPerItem] += row_norms[i - begin];
    }
  });
  const double norm = tree_sum(norms);
  return norm > 0 ? tree_sum(errors) / norm : 0.0;
}

ResidualQuantizer residual_quantize(Pool& pool, const RowMatrix& rows, const ResidualQuantizerOptions& options) {
  if (options.levels < 1)
    fail_bad_input("residual quantizer: expected levels >= 1, got " + std::to_string(options.levels));
  ResidualQuantizer result;
  std::vector<float> residuals(rows.data, rows.data + rows.rows * rows.dim);
  const RowMatrix left{residuals.data(), rows.rows, rows.dim};
  for (int64_t level = 0; level < options.levels; ++level) {
    const KMeansResult trained = kmeans(pool, left,
                                        {.clusters = options.codes,
                                         .iterations = options.iterations,
                                         .seed = options.seed,
                                         .stream = static_cast<uint64_t>(level)});
    result.centroids.insert(result.centroids.end(), trained.centroids.begin(), trained.centroids.end());
    const ResidualCodebooks last{1, options.codes, rows.dim, trained.centroids};
    residual_encode(pool, left, last, {.residuals = residuals});
  }
  result.codes.resize(rows.rows * options.levels);
  std::vector<float> squared_distance(rows.rows);
  residual_encode(pool, rows, {options.levels, options.codes, rows.dim, result.centroids},
                  {.codes = result.codes, .squared_distance = squared_distance});
  result.relative_error = relative_error(pool, rows, squared_distance);
  return result;
}

}  // namespace collimate
