// Residual quantization: encode and decode agree with the definition, the error falls with every level.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/failure.h"
#include "core/residual_quantizer.h"
#include "test/clustering_data.h"

namespace collimate {

TEST_CASE("residual quantizer: codes are level-by-level nearest, decode and error agree with them") {
  Pool pool(2);
  const int64_t count = 1500, dim = 12, levels = 3, codes = 16;
  const std::vector<float> rows = clustered_rows(count, dim, 40, 0.5f);
  const RowMatrix matrix{rows.data(), count, dim};
  const ResidualQuantizer trained =
      residual_quantize(pool, matrix, {.levels = levels, .codes = codes, .iterations = 8, .seed = 2});
  const ResidualCodebooks books{levels, codes, dim, trained.centroids};

  std::vector<float> decoded(rows.size());
  residual_decode(pool, trained.codes, books, decoded);
  double error = 0, norm = 0;
  for (int64_t i = 0; i < count; ++i) {
    std::vector<double> left(rows.begin() + i * dim, rows.begin() + (i + 1) * dim);
    for (int64_t level = 0; level < levels; ++level) {
      std::vector<double> distance(codes, 0.0);
      for (int64_t j = 0; j < codes; ++j)
        for (int64_t c = 0; c < dim; ++c) distance[j] += std::pow(left[c] - books.level(level)[j * dim + c], 2);
      const int32_t code = trained.codes[i * levels + level];
      for (int64_t j = 0; j < codes; ++j) REQUIRE(distance[code] <= distance[j] + 1e-4);
      for (int64_t c = 0; c < dim; ++c) left[c] -= books.level(level)[code * dim + c];
    }
    for (int64_t c = 0; c < dim; ++c) {
      REQUIRE(std::fabs(rows[i * dim + c] - decoded[i * dim + c] - left[c]) < 1e-5);
      error += left[c] * left[c];
      norm += static_cast<double>(rows[i * dim + c]) * rows[i * dim + c];
    }
  }
  CHECK(trained.relative_error == doctest::Approx(error / norm).epsilon(1e-4));
}

TEST_CASE("residual quantizer: more levels lower the error; threads do not change bytes") {
  const std::vector<float> rows = clustered_rows(3000, 20, 200, 0.3f);
  const RowMatrix matrix{rows.data(), 3000, 20};
  double before = 1.0;
  for (const int64_t levels : {1, 2, 4}) {
    const ResidualQuantizerOptions options{.levels = levels, .codes = 32, .iterations = 6, .seed = 4};
    Pool one(1), three(3);
    const ResidualQuantizer trained = residual_quantize(one, matrix, options);
    const ResidualQuantizer again = residual_quantize(three, matrix, options);
    CHECK(trained.relative_error < 0.9 * before);
    CHECK(trained.centroids == again.centroids);
    CHECK(trained.codes == again.codes);
    before = trained.relative_error;
  }
}

TEST_CASE("residual quantizer: one row, one column, one code, zero and equal rows are defined") {
  Pool pool(2);
  const auto quantize = [&](const std::vector<float>& rows, int64_t dim, int64_t codes) {
    const RowMatrix matrix(rows.data(), static_cast<int64_t>(rows.size()) / dim, dim);
    return residual_quantize(pool, matrix, {.levels = 3, .codes = codes, .iterations = 4, .seed = 1});
  };
  const ResidualQuantizer alone = quantize({1, 2, 3, 4}, 4, 5);  // fewer rows than codes
  CHECK(alone.relative_error == 0.0);
  CHECK(std::equal(alone.centroids.begin(), alone.centroids.begin() + 4, std::vector<float>{1, 2, 3, 4}.begin()));
  const ResidualQuantizer equal = quantize(std::vector<float>(900, 0.75f), 3, 4);
  CHECK(equal.relative_error == 0.0);
  CHECK(equal.codes == std::vector<int32_t>(300 * 3, 0));
  const ResidualQuantizer zeros = quantize(std::vector<float>(900, 0.0f), 3, 4);
  CHECK(zeros.relative_error == 0.0);
  CHECK(zeros.codes == std::vector<int32_t>(300 * 3, 0));
  const std::vector<float> rows = clustered_rows(500, 1, 40, 0.1f);
  CHECK(quantize(rows, 1, 8).relative_error < 1e-3);
  const ResidualQuantizer mean = quantize(rows, 1, 1);  // the mean, then nothing that is left to find
  CHECK(mean.codes == std::vector<int32_t>(500 * 3, 0));
  CHECK(std::fabs(mean.centroids[1]) < 1e-6f);
}

TEST_CASE("residual quantizer: rows and codebooks that are no numbers are named") {
  Pool pool(2);
  std::vector<float> rows = clustered_rows(300, 4, 5, 0.1f), centroids = clustered_rows(2 * 6, 4, 5, 0.1f);
  const RowMatrix matrix(rows.data(), 300, 4);
  const ResidualCodebooks books{2, 6, 4, centroids};
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    rows[4 * 211 + 2] = bad;
    CHECK_THROWS_WITH_AS(residual_quantize(pool, matrix, {.levels = 2, .codes = 6}), doctest::Contains("row 211"),
                         JobFailure);
    CHECK_THROWS_WITH_AS(residual_encode(pool, matrix, books, {}), doctest::Contains("row 211"), JobFailure);
    rows[4 * 211 + 2] = 0;
    centroids[4 * 7] = bad;
    CHECK_THROWS_WITH_AS(residual_encode(pool, matrix, books, {}), doctest::Contains("codebooks"), JobFailure);
    centroids[4 * 7] = 0;
  }
  CHECK_THROWS_WITH_AS(residual_quantize(pool, matrix, {.levels = 0, .codes = 6}), doctest::Contains("levels >= 1"),
                       JobFailure);
  CHECK_THROWS_AS(residual_quantize(pool, matrix, {.levels = 2, .codes = 0}), JobFailure);
  CHECK_THROWS_WITH_AS(residual_encode(pool, matrix, {2, 0, 4, {}}, {}), doctest::Contains("at least one code"),
                       JobFailure);
}

TEST_CASE("residual quantizer: wrong widths and codes out of range are bad input") {
  Pool pool(1);
  const std::vector<float> centroids(2 * 4 * 3, 1.0f);
  const ResidualCodebooks books{2, 4, 3, centroids};
  std::vector<float> rows(2 * 5, 0.0f);
  CHECK_THROWS_AS(residual_encode(pool, RowMatrix{rows.data(), 2, 5}, books, {}), JobFailure);
  std::vector<float> decoded(3);
  CHECK_THROWS_AS(residual_decode(pool, std::vector<int32_t>{0, 4}, books, decoded), JobFailure);
  CHECK_THROWS_AS(residual_decode(pool, std::vector<int32_t>{0}, books, decoded), JobFailure);
}

}  // namespace collimate
