// k-means and residual encoding against faiss (test/parity/make_clustering_fixtures.py; versions in its files).
//
// Both sides sum in fp32, in different orders: distances of 24 terms agree to about 1e-6 of |x|^2. So a row may go
// elsewhere only where its two choices are that close in double (kTie), and such rows are counted. Centroids are means
// of fp32 sums on faiss's side, of double sums on ours.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "core/residual_quantizer.h"
#include "core/safetensors.h"
#include "fixtures.h"

namespace collimate {
namespace {

constexpr double kTie = 1e-5;         // of |x|^2
constexpr double kCentroids = 1e-5;   // of the largest value's order, which is 1
constexpr double kObjectives = 1e-5;  // relative
constexpr int64_t kTiesMax = 6;       // rows of 600

double squared_distance(const float* row, const std::vector<double>& point) {
  double sum = 0;
  for (size_t c = 0; c < point.size(); ++c) sum += (row[c] - point[c]) * (row[c] - point[c]);
  return sum;
}

double squared_norm(const float* row, int64_t dim) { return squared_distance(row, std::vector<double>(dim, 0.0)); }

std::vector<double> decoded(const ResidualCodebooks& books, const int32_t* codes) {
  std::vector<double> point(books.dim, 0.0);
  for (int64_t level = 0; level < books.levels; ++level)
    for (int64_t c = 0; c < books.dim; ++c) point[c] += books.level(level)[codes[level] * books.dim + c];
  return point;
}

SafetensorsFile open_fixture(const char* name) {
  SafetensorsFile file = SafetensorsFile::open(parity_fixture("clustering") / name);
  REQUIRE(file.metadata().at("faiss-cpu") == "1.15.1");
  return file;
}

}  // namespace

TEST_CASE("clustering parity: k-means from faiss's initial centroids ends where faiss ends") {
  Pool pool(2);
  const SafetensorsFile file = open_fixture("kmeans.safetensors");
  const auto rows = file.f32("rows", {-1, -1}), initial = file.f32("initial", {-1, -1});
  const int64_t count = file.get("rows").shape[0], dim = file.get("rows").shape[1];
  const int64_t clusters = file.get("initial").shape[0];
  for (const int64_t iterations : {1, 8}) {
    CAPTURE(iterations);
    const std::string suffix = "_" + std::to_string(iterations);
    const KMeansResult ours =
        kmeans(pool, RowMatrix(rows.data(), count, dim),
               {.clusters = clusters, .iterations = iterations, .init = KMeansInit::given, .initial = initial});
    const auto centroids = file.f32("centroids" + suffix, {clusters, dim});
    for (int64_t i = 0; i < clusters * dim; ++i) REQUIRE(std::fabs(ours.centroids[i] - centroids[i]) < kCentroids);
    const auto objective = file.f32("objective" + suffix, {iterations});
    // An iteration that changes nothing ends ours; faiss goes on with the same value.
    REQUIRE(!ours.objective.empty());
    for (int64_t i = 0; i < iterations; ++i) {
      const double value = ours.objective[std::min<size_t>(i, ours.objective.size() - 1)];
      CHECK(value == doctest::Approx(objective[i]).epsilon(kObjectives));
    }
    const auto assignment = file.i32("assignment" + suffix, {count});
    int64_t ties = 0;
    for (int64_t i = 0; i < count; ++i) {
      if (ours.assignment[i] == assignment[i]) continue;
      ++ties;
      const float* row = rows.data() + i * dim;
      const auto distance = [&](int32_t cluster) {
        const float* from = &centroids[cluster * dim];
        return squared_distance(row, std::vector<double>(from, from + dim));
      };
      REQUIRE(std::fabs(distance(ours.assignment[i]) - distance(assignment[i])) < kTie * squared_norm(row, dim));
    }
    CHECK(ties <= kTiesMax);
  }
}

TEST_CASE("clustering parity: residual codes of a beam of 1 and of 5 are faiss's") {
  Pool pool(2);
  const SafetensorsFile file = open_fixture("residual.safetensors");
  const auto rows = file.f32("rows", {-1, -1}), centroids = file.f32("codebooks", {-1, -1, -1});
  const std::vector<int64_t>& shape = file.get("codebooks").shape;
  const int64_t count = file.get("rows").shape[0], levels = shape[0], dim = shape[2];
  const ResidualCodebooks books{levels, shape[1], dim, centroids};
  double before = std::numeric_limits<double>::infinity();
  for (const int64_t beam : {1, 5}) {
    CAPTURE(beam);
    const auto theirs = file.i32("codes_" + std::to_string(beam), {count, levels});
    std::vector<int32_t> ours(count * levels);
    residual_encode(pool, RowMatrix(rows.data(), count, dim), books, {.beam = beam, .codes = ours});
    int64_t ties = 0;
    double error = 0;
    for (int64_t i = 0; i < count; ++i) {
      const float* row = rows.data() + i * dim;
      const int32_t *a = &ours[i * levels], *b = &theirs[i * levels];
      error += squared_distance(row, decoded(books, a)) / static_cast<double>(count);
      if (std::equal(a, a + levels, b)) continue;
      ++ties;
      // The sums up to the first level at which they part: what either encoder compared.
      int64_t level = 0;
      while (a[level] == b[level]) ++level;
      const ResidualCodebooks part = beam == 1 ? books.first(level + 1) : books;
      REQUIRE(std::fabs(squared_distance(row, decoded(part, a)) - squared_distance(row, decoded(part, b))) <
              kTie * squared_norm(row, dim));
    }
    CHECK(ties <= kTiesMax);
    CHECK(error == doctest::Approx(file.f32("error_" + std::to_string(beam), {1})[0]).epsilon(kObjectives));
    CHECK(error < before);
    before = error;
  }
}

}  // namespace collimate
