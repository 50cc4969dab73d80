// Clustering on a device gives the bytes that it gives on the processor: codes, sums, centroids, objectives.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "core/failure.h"
#include "core/kmeans.h"
#include "core/philox.h"
#include "core/residual_quantizer.h"
#include "cuda/clustering.h"

namespace collimate {
namespace {

struct Shape {
  int64_t rows, dim, codes, levels;
};

std::vector<float> normal_values(int64_t count, uint64_t stream, float spread = 1.0f) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = spread * random_normal({.seed = 31, .site = RandomSite::test, .stream = stream}, i);
  return values;
}

template <typename T>
bool same_bytes(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// Everything that residual k-means does, on both sides.
void compare_training(const Shape& s, std::vector<float> values) {
  CAPTURE(s.rows);
  CAPTURE(s.dim);
  CAPTURE(s.codes);
  Pool pool(2);
  const RowMatrix rows(values.data(), s.rows, s.dim);
  cuda::Device device;
  cuda::ClusteredRows there(device, rows, s.levels);
  std::vector<float> books;
  std::vector<int32_t> codes(static_cast<size_t>(s.rows * s.levels));
  for (int64_t level = 0; level < s.levels; ++level) {
    CAPTURE(level);
    const ResidualCodebooks before{level, s.codes, s.dim, books};
    const ResidualRows residuals(rows, before, {codes, s.levels});
    std::vector<float> here = kmeans_initial_centroids(
        pool, residuals, {.clusters = s.codes, .seed = 5, .stream = static_cast<uint64_t>(level)});
    std::vector<float> other = here;
    for (int iteration = 0; iteration < 3; ++iteration) {
      const LloydStep expected = lloyd_step(pool, residuals, here), got = there.lloyd_step(before, other);
      CHECK(got.objective == expected.objective);
      CHECK(got.empty_clusters == expected.empty_clusters);
      CHECK(got.changed == expected.changed);
      REQUIRE(same_bytes(here, other));
    }
    std::vector<int32_t> assignment(static_cast<size_t>(s.rows));
    std::vector<float> distance(static_cast<size_t>(s.rows)), got_distance(distance);
    const double sum = assign_rows(pool, residuals, here, assignment, distance);
    CHECK(there.assign(before, here, got_distance) == sum);
    CHECK(same_bytes(distance, got_distance));
    std::vector<int32_t> got(static_cast<size_t>(s.rows * (level + 1)));
    there.download_codes(got, level + 1);
    for (int64_t i = 0; i < s.rows; ++i) {
      REQUIRE(got[i * (level + 1) + level] == assignment[i]);
      codes[i * s.levels + level] = assignment[i];
    }
    books.insert(books.end(), here.begin(), here.end());
  }
  const ResidualCodebooks all{s.levels, s.codes, s.dim, books};
  std::vector<int32_t> expected(codes.size()), got(codes.size());
  std::vector<float> distance(static_cast<size_t>(s.rows)), got_distance(distance);
  residual_encode(pool, rows, all, {.codes = expected, .squared_distance = distance});
  there.encode(all, got_distance);
  there.download_codes(got, s.levels);
  CHECK(same_bytes(expected, got));
  CHECK(same_bytes(distance, got_distance));
}

}  // namespace

TEST_CASE("clustering on a device: the processor's bytes, whatever the shape") {
  for (const Shape& s : {Shape{71, 7, 11, 3}, Shape{300, 40, 20, 2}, Shape{1500, 33, 5, 2}, Shape{260, 16, 300, 2},
                         Shape{140, 800, 6, 2}})
    compare_training(s, normal_values(s.rows * s.dim, static_cast<uint64_t>(s.rows)));
}

TEST_CASE("clustering on a device: ties, duplicates and empty clusters are decided alike") {
  // Values on a coarse grid: many rows are equal, many distances are.
  const Shape s{400, 6, 40, 2};
  std::vector<float> values = normal_values(s.rows * s.dim, 77);
  for (float& value : values) value = static_cast<float>(static_cast<int>(value));
  compare_training(s, values);
  // Rows far from the origin: products cancel, and the bound leaves many candidates.
  std::vector<float> far = normal_values(s.rows * s.dim, 78, 1e-3f);
  for (float& value : far) value += 100.0f;
  compare_training(s, far);
}

TEST_CASE("clustering on a device: rows that are not finite are bad input") {
  std::vector<float> values = normal_values(50 * 4, 3);
  values[137] = INFINITY;
  cuda::Device device;
  try {
    cuda::ClusteredRows rows(device, RowMatrix(values.data(), 50, 4), 1);
    FAIL("expected a failure");
  } catch (const JobFailure& failure) {
    CHECK(failure.cause() == FailureCause::bad_input);
  }
}

}  // namespace collimate
