// Residual encoding with a beam: the definition's codes whatever the products round, and what a wider beam is for.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <tuple>

#include "core/failure.h"
#include "core/residual_beam.h"
#include "core/row_ops.h"
#include "core/unique_ids.h"
#include "test/clustering_data.h"

namespace collimate {
namespace {

struct Case {
  const char* what;
  int64_t rows, dim, levels, codes;
  float offset;  // added to everything: the larger, the less a rounded product can tell
  float spread;  // of the codes around each other
  float scale;
};

std::vector<float> values_of(const Case& shape, int64_t count, float spread, uint64_t stream) {
  std::vector<float> values(count * shape.dim);
  for (size_t i = 0; i < values.size(); ++i)
    values[i] =
        shape.scale * (shape.offset + spread * random_normal({.seed = 21, .stream = stream}, static_cast<uint64_t>(i)));
  return values;
}

// Every partial sum against every code, sorted by the definition's order.
std::vector<int32_t> codes_by_definition(const float* row, const ResidualCodebooks& books, int64_t beam) {
  struct Sum {
    double total = 0;
    std::vector<float> residual;
    std::vector<int32_t> codes;
  };
  std::vector<Sum> sums(1);
  sums[0].residual.assign(row, row + books.dim);
  for (int64_t level = 0; level < books.levels; ++level) {
    std::vector<std::tuple<double, size_t, float, int32_t>> next;  // in the order of comparison
    for (size_t parent = 0; parent < sums.size(); ++parent) {
      for (int32_t code = 0; code < books.codes; ++code) {
        const float* centroid = books.level(level).data() + code * books.dim;
        const float own = 0.5f * wide_dot(centroid, centroid, books.dim) -
                          wide_dot(sums[parent].residual.data(), centroid, books.dim);
        next.emplace_back(sums[parent].total + static_cast<double>(own), parent, own, code);
      }
    }
    std::sort(next.begin(), next.end());
    next.resize(std::min<size_t>(next.size(), beam));
    std::vector<Sum> kept;
    for (const auto& [total, parent, own, code] : next) {
      Sum sum{total, sums[parent].residual, sums[parent].codes};
      const float* centroid = books.level(level).data() + code * books.dim;
      for (int64_t c = 0; c < books.dim; ++c) sum.residual[c] -= centroid[c];
      sum.codes.push_back(code);
      kept.push_back(std::move(sum));
    }
    sums = std::move(kept);
  }
  return sums[0].codes;
}

double sum_of(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) sum += value;
  return sum;
}

}  // namespace

TEST_CASE("residual beam: the definition's codes, by tables and by residuals, on any pool") {
  prepare_compute_thread();
  for (const Case& shape :
       {Case{"plain", 150, 40, 4, 64, 0, 1, 1}, Case{"ragged", 131, 77, 3, 45, 0, 1, 1},
        Case{"one column", 60, 1, 3, 9, 0, 1, 1}, Case{"one code", 20, 8, 3, 1, 0, 1, 1},
        Case{"one level", 40, 16, 1, 33, 0, 1, 1}, Case{"fewer codes than the beam", 40, 12, 5, 3, 0, 1, 1},
        Case{"far from the origin", 60, 24, 3, 32, 100, 1, 1}, Case{"all but equal", 60, 48, 3, 40, 1, 1e-4f, 1},
        Case{"equal", 30, 32, 3, 20, 1, 0, 1}, Case{"tiny", 40, 32, 3, 24, 0, 1, 1e-18f},
        Case{"huge", 40, 32, 3, 24, 0, 1, 1e16f}}) {
    CAPTURE(shape.what);
    const std::vector<float> rows = values_of(shape, shape.rows, 1, 1);
    std::vector<float> centroids = values_of(shape, shape.levels * shape.codes, shape.spread, 2);
    if (shape.codes > 3)  // each level's last code is a copy of its second: it must never win
      for (int64_t level = 0; level < shape.levels; ++level)
        std::copy_n(&centroids[(level * shape.codes + 1) * shape.dim], shape.dim,
                    &centroids[(level * shape.codes + shape.codes - 1) * shape.dim]);
    const RowMatrix matrix(rows.data(), shape.rows, shape.dim);
    const ResidualCodebooks books{shape.levels, shape.codes, shape.dim, centroids};
    for (const int64_t beam : {1, 2, 5, 19}) {
      CAPTURE(beam);
      std::vector<int32_t> expected, codes(shape.rows * shape.levels);
      for (int64_t i = 0; i < shape.rows; ++i)
        for (const int32_t code : codes_by_definition(matrix.row(i), books, beam)) expected.push_back(code);
      for (const int threads : {1, 3}) {
        Pool pool(threads);
        for (const BeamScores scores : {BeamScores::tables, BeamScores::residuals, BeamScores::automatic}) {
          std::fill(codes.begin(), codes.end(), -1);
          beam_encode(pool, matrix, books, {.beam = beam, .codes = codes}, scores);
          REQUIRE(codes == expected);
        }
        residual_encode(pool, matrix, books, {.beam = beam, .codes = codes});  // a beam of one is the greedy encoder
        REQUIRE(codes == expected);
      }
    }
  }
}

TEST_CASE("residual beam: distances are those of the decoded rows, and fall as the beam widens") {
  Pool pool(2);
  const int64_t count = 1500, dim = 24, levels = 4, codes = 16;
  const std::vector<float> rows = clustered_rows(count, dim, 300, 0.4f);
  const RowMatrix matrix(rows.data(), count, dim);
  const ResidualQuantizer trained =
      residual_quantize(pool, matrix, {.levels = levels, .codes = codes, .iterations = 8, .seed = 2});
  const ResidualCodebooks books{levels, codes, dim, trained.centroids};
  double before = std::numeric_limits<double>::infinity();
  for (const int64_t beam : {1, 4, 16}) {
    std::vector<int32_t> found(count * levels);
    std::vector<float> distance(count), decoded(rows.size());
    residual_encode(pool, matrix, books, {.beam = beam, .codes = found, .squared_distance = distance});
    if (beam == 1) CHECK(found == trained.codes);
    residual_decode(pool, found, books, decoded);
    for (int64_t i = 0; i < count; ++i)
      REQUIRE(distance[i] ==
              doctest::Approx(wide_squared_distance(matrix.row(i), &decoded[i * dim], dim)).epsilon(1e-4));
    CHECK(sum_of(distance) < before);
    before = sum_of(distance);
  }
}

TEST_CASE("residual beam: as wide as all partial sums, it finds the best of all sums") {
  Pool pool(1);
  const Case shape{"", 80, 6, 3, 5, 0, 1, 1};
  const std::vector<float> rows = values_of(shape, shape.rows, 2, 1), centroids = values_of(shape, 15, 1, 2);
  std::vector<float> distance(shape.rows), greedy(shape.rows);
  const ResidualCodebooks books{3, 5, 6, centroids};
  const RowMatrix matrix(rows.data(), shape.rows, 6);
  residual_encode(pool, matrix, books, {.beam = 25, .squared_distance = distance});
  residual_encode(pool, matrix, books, {.squared_distance = greedy});
  int64_t better = 0;
  for (int64_t i = 0; i < shape.rows; ++i) {
    double least = std::numeric_limits<double>::infinity();
    for (int64_t path = 0; path < 125; ++path) {
      double sum = 0;
      for (int64_t c = 0; c < 6; ++c) {
        const double decoded = static_cast<double>(centroids[path % 5 * 6 + c]) +
                               centroids[(5 + path / 5 % 5) * 6 + c] + centroids[(10 + path / 25) * 6 + c];
        sum += std::pow(matrix.row(i)[c] - decoded, 2);
      }
      least = std::min(least, sum);
    }
    REQUIRE(distance[i] == doctest::Approx(least).epsilon(1e-5));
    better += distance[i] < greedy[i] * (1 - 1e-5) ? 1 : 0;
  }
  CHECK(better > 0);
}

TEST_CASE("residual beam: unique ids keep the beam's prefix and take the next-nearest behind it") {
  Pool pool(2);
  // Rows in pairs of equals: the second of each pair must move, on the last level alone.
  std::vector<float> rows = clustered_rows(600, 10, 300, 0.0f);
  const RowMatrix matrix(rows.data(), 600, 10);
  const ResidualQuantizer trained =
      residual_quantize(pool, matrix, {.levels = 3, .codes = 24, .iterations = 5, .seed = 8});
  const ResidualCodebooks books{3, 24, 10, trained.centroids};
  std::vector<int32_t> nearest(600 * 3);
  residual_encode(pool, matrix, books, {.beam = 6, .codes = nearest});
  CHECK(nearest != trained.codes);  // else the greedy prefix would do
  const UniqueIds ids = fit_unique_ids(pool, matrix, books, nearest);
  const ResidualRows left(matrix, books.first(2), {nearest, 3});
  int64_t moved = 0;
  for (int64_t i = 0; i < 600; ++i) {
    REQUIRE(std::equal(&ids.codes[3 * i], &ids.codes[3 * i + 2], &nearest[3 * i]));
    float residual[10];
    left.copy(i, 1, residual);
    const auto distance = [&](int64_t j) { return row_squared_distance(residual, &books.level(2)[j * 10], 10); };
    for (int64_t j = 0; j < 24; ++j) REQUIRE(distance(nearest[3 * i + 2]) <= distance(j) * (1 + 1e-5f));
    if (ids.codes[3 * i + 2] == nearest[3 * i + 2]) continue;
    ++moved;
    // Whatever is nearer is another item's of the same prefix.
    for (int64_t j = 0; j < 24; ++j) {
      if (distance(j) >= distance(ids.codes[3 * i + 2])) continue;
      bool taken = false;
      for (int64_t other = 0; other < 600; ++other)
        taken = taken || (other != i && std::equal(&nearest[3 * i], &nearest[3 * i + 2], &nearest[3 * other]) &&
                          ids.codes[3 * other + 2] == j);
      REQUIRE(taken);
    }
  }
  CHECK(moved >= 300);
}

TEST_CASE("residual beam: a beam out of range and rows that are no numbers are bad input") {
  Pool pool(1);
  const std::vector<float> centroids(2 * 4 * 3, 1.0f);
  const ResidualCodebooks books{2, 4, 3, centroids};
  std::vector<float> rows(300 * 3, 0.5f);
  const RowMatrix matrix(rows.data(), 300, 3);
  for (const int64_t beam : {int64_t{0}, kBeamMax + 1})
    CHECK_THROWS_WITH_AS(residual_encode(pool, matrix, books, {.beam = beam}), doctest::Contains("1 to 256"),
                         JobFailure);
  rows[270 * 3] = std::nanf("");
  for (const int64_t beam : {1, 4})
    CHECK_THROWS_WITH_AS(residual_encode(pool, matrix, books, {.beam = beam}), doctest::Contains("row 270"),
                         JobFailure);
}

}  // namespace collimate
