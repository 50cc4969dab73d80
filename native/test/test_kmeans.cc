// k-means: equal to a plain double reference, monotone, defined at the edges, and the same bytes on any pool.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/failure.h"
#include "core/kmeans.h"
#include "test/clustering_data.h"

namespace collimate {
namespace {

// One Lloyd iteration by the definition, in double; `centroids` in place, returns the objective before the update.
double reference_lloyd(const std::vector<float>& rows, int64_t dim, std::vector<double>& centroids) {
  const int64_t count = static_cast<int64_t>(rows.size()) / dim,
                clusters = static_cast<int64_t>(centroids.size()) / dim;
  std::vector<double> sums(centroids.size(), 0.0);
  std::vector<int64_t> sizes(clusters, 0);
  double objective = 0;
  for (int64_t i = 0; i < count; ++i) {
    int64_t best = 0;
    double least = std::numeric_limits<double>::infinity();
    for (int64_t j = 0; j < clusters; ++j) {
      double distance = 0;
      for (int64_t c = 0; c < dim; ++c) distance += std::pow(rows[i * dim + c] - centroids[j * dim + c], 2);
      if (distance < least) {
        least = distance;
        best = j;
      }
    }
    objective += least;
    ++sizes[best];
    for (int64_t c = 0; c < dim; ++c) sums[best * dim + c] += rows[i * dim + c];
  }
  for (int64_t j = 0; j < clusters; ++j)
    for (int64_t c = 0; c < dim && sizes[j] > 0; ++c) centroids[j * dim + c] = sums[j * dim + c] / sizes[j];
  return objective;
}

FailureCause cause_of(Pool& pool, const RowMatrix& rows, const KMeansOptions& options) {
  try {
    kmeans(pool, rows, options);
  } catch (const JobFailure& failure) {
    return failure.cause();
  }
  return FailureCause::internal;
}

}  // namespace

TEST_CASE("k-means: Lloyd's iterations follow the plain reference") {
  Pool pool(2);
  const int64_t dim = 19, clusters = 13;
  const std::vector<float> rows = clustered_rows(3001, dim, 20, 0.4f);
  const RowMatrix matrix{rows.data(), 3001, dim};
  std::vector<float> centroids = kmeans_initial_centroids(pool, matrix, {.clusters = clusters, .seed = 5});
  std::vector<double> reference(centroids.begin(), centroids.end());
  for (int iteration = 0; iteration < 5; ++iteration) {
    const LloydStep step = lloyd_step(pool, matrix, centroids);
    const double expected = reference_lloyd(rows, dim, reference);
    CHECK(step.objective == doctest::Approx(expected).epsilon(1e-5));
    CHECK(step.empty_clusters == 0);
    for (size_t i = 0; i < centroids.size(); ++i) REQUIRE(std::fabs(centroids[i] - reference[i]) < 1e-4);
  }
}

TEST_CASE("k-means: the objective never rises, stops when nothing changes, and finds planted clusters") {
  Pool pool(1);
  const std::vector<float> rows = clustered_rows(2000, 16, 10, 0.05f);
  const RowMatrix matrix{rows.data(), 2000, 16};
  const KMeansResult result = kmeans(pool, matrix, {.clusters = 10, .iterations = 50, .seed = 3});
  CHECK(result.converged);
  CHECK(result.objective.size() < 50);
  for (size_t i = 1; i < result.objective.size(); ++i)
    CHECK(result.objective[i] <= result.objective[i - 1] * (1 + 1e-9));
  CHECK(result.final_objective == result.objective.back());
  // 2000 rows * 16 columns * 0.05^2 of noise.
  CHECK(result.final_objective < 1.1 * 80.0);
  for (int64_t i = 10; i < 2000; ++i) REQUIRE(result.assignment[i] == result.assignment[i % 10]);
}

TEST_CASE("k-means: 1, 2 and 3 threads give the same bytes, single steps the same as the whole") {
  const std::vector<float> rows = clustered_rows(5000, 24, 50, 0.5f);
  const RowMatrix matrix{rows.data(), 5000, 24};
  const KMeansOptions options{.clusters = 37, .iterations = 6, .seed = 11};
  Pool one(1);
  const KMeansResult first = kmeans(one, matrix, options);
  for (const int threads : {2, 3}) {
    Pool pool(threads);
    const KMeansResult other = kmeans(pool, matrix, options);
    CHECK(std::memcmp(first.centroids.data(), other.centroids.data(), first.centroids.size() * sizeof(float)) == 0);
    CHECK(first.assignment == other.assignment);
    CHECK(first.objective == other.objective);
  }
  std::vector<float> centroids = kmeans_initial_centroids(one, matrix, options);
  for (int i = 0; i < 6; ++i) lloyd_step(one, matrix, centroids);
  CHECK(centroids == first.centroids);
}

TEST_CASE("k-means: ties go to the lowest index") {
  Pool pool(1);
  const std::vector<float> rows = {0, 0, 1, 0, 0, 1};
  const std::vector<float> centroids = {1, 1, -1, 1, 1, 1, -1, 1, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 0.5f, 0.5f, 0.5f, 0.5f};
  std::vector<int32_t> assignment(3);
  assign_rows(pool, RowMatrix{rows.data(), 3, 2}, std::span<const float>(centroids).first(8), assignment, {});
  CHECK(assignment == std::vector<int32_t>{0, 0, 0});
  // Beyond eight clusters (one vector of lanes): 9 and 10 are equal and nearest.
  std::vector<float> distance(3);
  assign_rows(pool, RowMatrix{rows.data(), 3, 2}, centroids, assignment, distance);
  CHECK(assignment == std::vector<int32_t>{9, 9, 9});
  CHECK(distance[0] == 0.5f);
}

TEST_CASE("k-means: dead clusters are re-seeded from the worst-quantised rows") {
  Pool pool(1);
  const std::vector<float> rows = {0, 0, 1, 0, 0, 1, 100, 100, 90, 90};
  std::vector<float> centroids = {0, 0, -500, 0, -600, 0};
  const LloydStep step = lloyd_step(pool, RowMatrix{rows.data(), 5, 2}, centroids);
  CHECK(step.empty_clusters == 2);
  CHECK(std::vector<float>(centroids.begin() + 2, centroids.end()) == std::vector<float>{100, 100, 90, 90});
}

TEST_CASE("k-means: duplicates and fewer rows than clusters are defined") {
  Pool pool(2);
  const std::vector<float> rows = {1, 2, 1, 2, 3, 4};
  for (const KMeansInit init : {KMeansInit::plus_plus, KMeansInit::random}) {
    const KMeansResult result =
        kmeans(pool, RowMatrix{rows.data(), 3, 2}, {.clusters = 5, .iterations = 10, .seed = 1, .init = init});
    CHECK(result.final_objective == 0.0);
    CHECK(result.empty_clusters == 3);
    CHECK(result.converged);
    CHECK(result.assignment[0] == result.assignment[1]);
    for (const float value : result.centroids) CHECK(std::isfinite(value));
  }
}

TEST_CASE("k-means: one row, one column, one cluster and zero rows are defined") {
  Pool pool(2);
  const std::vector<float> row = {3, -1, 2};
  const KMeansResult alone = kmeans(pool, RowMatrix{row.data(), 1, 3}, {.clusters = 1});
  CHECK(alone.centroids == row);
  CHECK(alone.assignment == std::vector<int32_t>{0});
  CHECK(alone.final_objective == 0.0);

  std::vector<float> column;
  for (int i = 0; i < 4000; ++i) column.push_back(static_cast<float>(i % 2 == 0 ? i % 10 : 1000 + i % 10));
  const KMeansResult two = kmeans(pool, RowMatrix{column.data(), 4000, 1}, {.clusters = 2, .seed = 1});
  CHECK(std::min(two.centroids[0], two.centroids[1]) == 4.0f);
  CHECK(std::max(two.centroids[0], two.centroids[1]) == 1005.0f);

  // One cluster: its centroid is the mean, over more chunks of members than one.
  const std::vector<float> rows = clustered_rows(5000, 6, 9, 0.5f);
  const KMeansResult one = kmeans(pool, RowMatrix{rows.data(), 5000, 6}, {.clusters = 1, .seed = 2});
  CHECK(one.converged);
  for (int64_t c = 0; c < 6; ++c) {
    double mean = 0;
    for (int64_t i = 0; i < 5000; ++i) mean += rows[i * 6 + c] / 5000.0;
    CHECK(one.centroids[c] == doctest::Approx(mean).epsilon(1e-5));
  }

  const std::vector<float> zeros(300 * 4, 0.0f);
  for (const KMeansInit init : {KMeansInit::plus_plus, KMeansInit::random}) {
    const KMeansResult nothing = kmeans(pool, RowMatrix{zeros.data(), 300, 4}, {.clusters = 7, .init = init});
    CHECK(nothing.centroids == std::vector<float>(7 * 4, 0.0f));
    CHECK(nothing.assignment == std::vector<int32_t>(300, 0));
    CHECK(nothing.empty_clusters == 6);
    CHECK(nothing.converged);
  }
}

TEST_CASE("k-means: bad input is named") {
  Pool pool(1);
  std::vector<float> rows = clustered_rows(300, 4, 3, 0.1f);
  const RowMatrix matrix{rows.data(), 300, 4};
  CHECK(cause_of(pool, matrix, {.clusters = 0}) == FailureCause::bad_input);
  CHECK(cause_of(pool, RowMatrix{rows.data(), 0, 4}, {.clusters = 2}) == FailureCause::bad_input);
  CHECK(cause_of(pool, matrix, {.clusters = 2, .init = KMeansInit::given, .initial = rows}) == FailureCause::bad_input);
  std::vector<float> initial(2 * 4, 0.0f);
  initial[5] = std::nanf("");
  CHECK_THROWS_WITH_AS(kmeans(pool, matrix, {.clusters = 2, .init = KMeansInit::given, .initial = initial}),
                       doctest::Contains("initial centroids"), JobFailure);
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity(), 1e30f}) {
    rows[250 * 4 + 1] = bad;
    CHECK_THROWS_WITH_AS(kmeans(pool, matrix, {.clusters = 2}), doctest::Contains("row 250"), JobFailure);
  }
}

}  // namespace collimate
