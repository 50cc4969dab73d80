// Residual quantization: encode and decode agree with the definition, the error falls with every level.
#include <doctest/doctest.h>

#include <cmath>

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
