#include "core/residual_quantizer.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "core/failure.h"
#include "core/nearest_centroids.h"
#include "core/residual_beam.h"
#include "core/row_ops.h"
#include "core/tree_sum.h"

namespace collimate {
namespace {

void squared_row_norms(const float* rows, int64_t count, int64_t dim, float* result) {
  for (int64_t i = 0; i < count; ++i) result[i] = wide_dot(rows + i * dim, rows + i * dim, dim);
}

// to = ((row - path[0]) - path[1]) - ..., `to` and `row` the same or apart.
void subtract_all(const float* row, std::span<const float* const> path, int64_t dim, float* to) {
  int64_t c = 0;
  for (; c + 16 <= dim; c += 16) {
    FloatLanes left, right;
    std::memcpy(&left, row + c, sizeof left);
    std::memcpy(&right, row + c + 8, sizeof right);
    for (const float* centroid : path) {
      FloatLanes x, y;
      std::memcpy(&x, centroid + c, sizeof x);
      std::memcpy(&y, centroid + c + 8, sizeof y);
      left -= x;
      right -= y;
    }
    std::memcpy(to + c, &left, sizeof left);
    std::memcpy(to + c + 8, &right, sizeof right);
  }
  for (; c < dim; ++c) {
    to[c] = row[c];
    for (const float* centroid : path) to[c] -= centroid[c];
  }
}

// One tile of rows through every level, its residuals staying in cache.
class TileEncoder {
 public:
  TileEncoder(const ResidualCodebooks& books, const std::vector<CentroidTable>& tables, FiniteRows& finite)
      : books_(books), tables_(tables), finite_(finite) {}

  void encode(const RowSource& rows, int64_t first, int64_t count, const ResidualEncoding& out) {
    const int64_t dim = rows.dim;
    residuals_.resize(count * dim);
    rows.copy(first, count, residuals_.data());
    if (!finite_.check(first, count, residuals_.data())) return;
    level_codes_.resize(count);
    for (int64_t level = 0; level < books_.levels; ++level) {
      tables_[level].nearest(residuals_.data(), count, scratch_, level_codes_.data());
      const float* centroids = books_.level(level).data();
      for (int64_t i = 0; i < count; ++i) subtract(&residuals_[i * dim], centroids + level_codes_[i] * dim, dim);
      if (!out.codes.empty())
        for (int64_t i = 0; i < count; ++i) out.codes[(first + i) * books_.levels + level] = level_codes_[i];
    }
    if (!out.squared_distance.empty()) squared_row_norms(residuals_.data(), count, dim, &out.squared_distance[first]);
  }

 private:
  const ResidualCodebooks& books_;
  const std::vector<CentroidTable>& tables_;
  FiniteRows& finite_;
  std::vector<float> residuals_;
  CentroidTable::Scratch scratch_;
  std::vector<int32_t> level_codes_;
};

}  // namespace

void check_books(const ResidualCodebooks& books, int64_t dim) {
  if (books.dim != dim)
    fail_bad_input("residual quantizer: codebooks have dim " + std::to_string(books.dim) + ", rows have " +
                   std::to_string(dim) + "; use codebooks trained on rows of this width");
  if (books.levels < 0 || (books.levels > 0 && books.codes < 1))
    fail_bad_input("residual quantizer: expected at least one code a level, got " + std::to_string(books.levels) +
                   " levels of " + std::to_string(books.codes) + " codes");
  if (static_cast<int64_t>(books.centroids.size()) != books.levels * books.codes * books.dim)
    fail_bad_input("residual quantizer: expected levels x codes x dim = " +
                   std::to_string(books.levels * books.codes * books.dim) + " centroid values, got " +
                   std::to_string(books.centroids.size()));
}

ResidualRows::ResidualRows(const RowSource& rows, const ResidualCodebooks& books, const Codes& codes)
    : RowSource(rows.rows, rows.dim), from_(rows), books_(books), codes_(codes) {
  check_books(books, rows.dim);
}

const float* ResidualRows::read(int64_t first, int64_t count, float* scratch) const {
  const float* from = from_.read(first, count, scratch);
  if (books_.levels == 0) return from;
  std::vector<const float*> path(books_.levels);
  for (int64_t i = 0; i < count; ++i) {
    const int32_t* codes = &codes_.values[(first + i) * codes_.stride];
    for (int64_t level = 0; level < books_.levels; ++level)
      path[level] = books_.level(level).data() + codes[level] * dim;
    subtract_all(from + i * dim, path, dim, scratch + i * dim);
  }
  return scratch;
}

void residual_encode(Pool& pool, const RowSource& rows, const ResidualCodebooks& books, const ResidualEncoding& out) {
  check_books(books, rows.dim);
  if (out.beam < 1 || out.beam > kBeamMax)
    fail_bad_input("residual encode: expected a beam of 1 to " + std::to_string(kBeamMax) + ", got " +
                   std::to_string(out.beam));
  check_rows(pool, RowMatrix(books.centroids.data(), books.levels * books.codes, books.dim), "residual codebooks");
  if (out.beam > 1 && books.levels > 0) return beam_encode(pool, rows, books, out);
  FiniteRows finite(rows);
  std::vector<CentroidTable> tables;
  for (int64_t level = 0; level < books.levels; ++level) tables.emplace_back(pool, books.level(level), books.dim);
  pool.for_blocks(rows.rows, kRowsPerItem, [&](int64_t begin, int64_t end) {
    TileEncoder encoder(books, tables, finite);
    for (int64_t first = begin; first < end; first += CentroidTable::kRowsPerTile)
      encoder.encode(rows, first, std::min(CentroidTable::kRowsPerTile, end - first), out);
  });
  finite.fail_if_bad("residual encode rows");
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
  pool.for_blocks(count, kRowsPerItem, [&](int64_t begin, int64_t end) {
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

double relative_error(Pool& pool, const RowSource& rows, std::span<const float> squared_distance) {
  const int64_t blocks = (rows.rows + kRowsPerItem - 1) / kRowsPerItem;
  std::vector<double> errors(blocks, 0.0), norms(blocks, 0.0);
  for_row_tiles(pool, rows, CentroidTable::kRowsPerTile, [&](int64_t first, int64_t count, const float* values) {
    for (int64_t i = 0; i < count; ++i) {
      errors[first / kRowsPerItem] += squared_distance[first + i];
      norms[first / kRowsPerItem] += wide_dot(values + i * rows.dim, values + i * rows.dim, rows.dim);
    }
  });
  const double norm = tree_sum(norms);
  return norm > 0 ? tree_sum(errors) / norm : 0.0;
}

ResidualQuantizer residual_quantize(Pool& pool, const RowSource& rows, const ResidualQuantizerOptions& options) {
  if (options.levels < 1)
    fail_bad_input("residual quantizer: expected levels >= 1, got " + std::to_string(options.levels));
  ResidualQuantizer result;
  result.codes.resize(rows.rows * options.levels);
  const auto books = [&](int64_t levels) {
    return ResidualCodebooks{levels, options.codes, rows.dim, result.centroids};
  };
  for (int64_t level = 0; level < options.levels; ++level) {
    const ResidualRows left(rows, books(level), {result.codes, options.levels});
    const KMeansResult trained = kmeans(pool, left,
                                        {.clusters = options.codes,
                                         .iterations = options.iterations,
                                         .seed = options.seed,
                                         .stream = static_cast<uint64_t>(level)});
    result.centroids.insert(result.centroids.end(), trained.centroids.begin(), trained.centroids.end());
    for (int64_t i = 0; i < rows.rows; ++i) result.codes[i * options.levels + level] = trained.assignment[i];
  }
  const ResidualRows left(rows, books(options.levels), {result.codes, options.levels});
  std::vector<float> squared_distance(rows.rows);
  for_row_tiles(pool, left, CentroidTable::kRowsPerTile, [&](int64_t first, int64_t count, const float* values) {
    squared_row_norms(values, count, rows.dim, &squared_distance[first]);
  });
  result.relative_error = relative_error(pool, rows, squared_distance);
  return result;
}

}  // namespace collimate
