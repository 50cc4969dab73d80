// Nearest centroids: the definition's answer for every row, however close the others are.
#include <doctest/doctest.h>

#include <cstring>

#include "core/nearest_centroids.h"
#include "core/row_ops.h"
#include "test/clustering_data.h"

namespace collimate {
namespace {

struct Case {
  const char* what;
  int64_t rows, dim, clusters;
  float offset;  // added to everything: the larger, the less a rounded product can tell
  float spread;  // of the centroids around each other
  float scale;
};

std::vector<float> values_of(const Case& shape, int64_t count, float spread, uint64_t stream) {
  std::vector<float> values(count * shape.dim);
  for (int64_t i = 0; i < count * shape.dim; ++i)
    values[i] = shape.scale * (shape.offset + spread * random_normal({.seed = 9, .stream = stream}, i));
  return values;
}

int32_t nearest_by_definition(const float* row, const std::vector<float>& centroids, int64_t dim) {
  int32_t nearest = 0;
  float least = 0;
  for (int32_t j = 0; j < static_cast<int32_t>(centroids.size()) / dim; ++j) {
    const float* centroid = &centroids[j * dim];
    const float score = 0.5f * wide_dot(centroid, centroid, dim) - wide_dot(row, centroid, dim);
    if (j == 0 || score < least) {
      least = score;
      nearest = j;
    }
  }
  return nearest;
}

}  // namespace

TEST_CASE("nearest centroids: the definition's answer, whatever the products round") {
  prepare_compute_thread();
  Pool pool(2);
  for (const Case& shape : {Case{"plain", 700, 64, 256, 0, 1, 1}, Case{"ragged", 260, 77, 45, 0, 1, 1},
                            Case{"one column", 130, 1, 9, 0, 1, 1}, Case{"far from the origin", 300, 40, 64, 100, 1, 1},
                            Case{"all but equal", 300, 96, 128, 1, 1e-4f, 1}, Case{"equal", 100, 32, 40, 1, 0, 1},
                            Case{"tiny", 200, 64, 50, 0, 1, 1e-22f}, Case{"huge", 200, 64, 50, 0, 1, 1e17f}}) {
    CAPTURE(shape.what);
    const std::vector<float> rows = values_of(shape, shape.rows, 1, 1);
    std::vector<float> centroids = values_of(shape, shape.clusters, shape.spread, 2);
    // The last is a copy of the third: it must never win.
    std::memcpy(&centroids[(shape.clusters - 1) * shape.dim], &centroids[2 * shape.dim], shape.dim * sizeof(float));
    const CentroidTable table(pool, centroids, shape.dim);
    CentroidTable::Scratch scratch;
    std::vector<int32_t> nearest(shape.rows);
    for (int64_t first = 0; first < shape.rows; first += CentroidTable::kRowsPerTile) {
      table.nearest(&rows[first * shape.dim], std::min(CentroidTable::kRowsPerTile, shape.rows - first), scratch,
                    &nearest[first]);
    }
    for (int64_t i = 0; i < shape.rows; ++i)
      REQUIRE(nearest[i] == nearest_by_definition(&rows[i * shape.dim], centroids, shape.dim));
  }
}

}  // namespace collimate
