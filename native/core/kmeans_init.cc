// How k-means starts: checks of what it is given, and the first centroids.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "core/failure.h"
#include "core/kmeans.h"
#include "core/philox.h"
#include "core/row_ops.h"

namespace collimate {
namespace {

constexpr int64_t kRowsPerDistanceBlock = 512;
constexpr int64_t kInitRowsPerCluster = 32;  // k-means++ needs a sample, not the set: its cost is rows x clusters x dim

// nearest[i] = min(nearest[i], squared distance of row i to `centroid`); returns the sum.
double lower_distances(const float* rows, int64_t count, const float* centroid, int64_t dim, float* nearest) {
  constexpr int64_t kAtOnce = 4;  // chains of additions that run beside each other
  int64_t i = 0;
  for (; i + kAtOnce <= count; i += kAtOnce) {
    float distances[kAtOnce];
    row_squared_distances<kAtOnce>(rows + i * dim, centroid, dim, distances);
    for (int64_t r = 0; r < kAtOnce; ++r) nearest[i + r] = std::min(nearest[i + r], distances[r]);
  }
  for (; i < count; ++i) nearest[i] = std::min(nearest[i], row_squared_distance(rows + i * dim, centroid, dim));
  double sum = 0;
  for (i = 0; i < count; ++i) sum += nearest[i];
  return sum;
}

double random_uniform_f64(const RandomStream& stream, uint64_t index) {
  const uint64_t high = random_u32(stream, 2 * index);
  const uint64_t low = random_u32(stream, 2 * index + 1);
  return static_cast<double>(((high << 32) | low) >> 11) * 0x1p-53;
}

// Row drawn with probability proportional to nearest[i]; the walk goes block by block, then row by row.
int64_t draw_row(std::span<const float> nearest, std::span<const double> block_sums, double uniform) {
  double total = 0;
  for (const double sum : block_sums) total += sum;
  if (!(total > 0)) return -1;
  double left = uniform * total;
  size_t block = 0;
  while (block + 1 < block_sums.size() && left >= block_sums[block]) left -= block_sums[block++];
  const int64_t begin = static_cast<int64_t>(block) * kRowsPerDistanceBlock;
  const int64_t end = std::min<int64_t>(begin + kRowsPerDistanceBlock, static_cast<int64_t>(nearest.size()));
  int64_t last_positive = -1;
  for (int64_t i = begin; i < end; ++i) {
    if (nearest[i] <= 0) continue;
    last_positive = i;
    left -= nearest[i];
    if (left < 0) return i;
  }
  if (last_positive >= 0) return last_positive;
  // Rounding walked past the last row with weight: take the worst row of all.
  return std::max_element(nearest.begin(), nearest.end()) - nearest.begin();
}

// `order` is a permutation of the rows; its head is the sample, its first row the first centroid.
std::vector<float> plus_plus_centroids(Pool& pool, const RowSource& rows, int64_t clusters,
                                       const std::vector<int64_t>& order, const RandomStream& stream) {
  const int64_t dim = rows.dim;
  const int64_t sample_rows = std::min(rows.rows, kInitRowsPerCluster * clusters);
  std::vector<int64_t> sample(order.begin(), order.begin() + sample_rows);
  std::sort(sample.begin(), sample.end());
  std::vector<float> values(sample_rows * dim);
  for (int64_t i = 0; i < sample_rows; ++i) rows.copy(sample[i], 1, &values[i * dim]);

  std::vector<float> centroids(clusters * dim);
  std::vector<float> nearest(sample_rows, std::numeric_limits<float>::infinity());
  std::vector<double> block_sums((sample_rows + kRowsPerDistanceBlock - 1) / kRowsPerDistanceBlock, 0.0);
  rows.copy(order[0], 1, centroids.data());
  for (int64_t cluster = 0; cluster + 1 < clusters; ++cluster) {
    const float* chosen = &centroids[cluster * dim];
    pool.for_blocks(sample_rows, kRowsPerDistanceBlock, [&](int64_t begin, int64_t end) {
      block_sums[begin / kRowsPerDistanceBlock] =
          lower_distances(&values[begin * dim], end - begin, chosen, dim, &nearest[begin]);
    });
    const int64_t drawn = draw_row(nearest, block_sums, random_uniform_f64(stream, cluster));
    float* next = &centroids[(cluster + 1) * dim];
    if (drawn >= 0)
      std::memcpy(next, &values[drawn * dim], dim * sizeof(float));
    else  // no row is left at a distance: the rest are copies, which stay empty
      rows.copy(order[cluster % rows.rows], 1, next);
  }
  return centroids;
}

void check_options(const RowSource& rows, const KMeansOptions& options) {
  if (rows.rows < 1 || rows.dim < 1)
    fail_bad_input("k-means expects at least one row and one column, got " + std::to_string(rows.rows) + " x " +
                   std::to_string(rows.dim) + "; pass a non-empty matrix");
  if (options.clusters < 1 || options.clusters > std::numeric_limits<int32_t>::max())
    fail_bad_input("k-means expects clusters >= 1, got " + std::to_string(options.clusters));
  if (options.iterations < 0)
    fail_bad_input("k-means expects iterations >= 0, got " + std::to_string(options.iterations));
  if (options.init == KMeansInit::given && static_cast<int64_t>(options.initial.size()) != options.clusters * rows.dim)
    fail_bad_input(
        "k-means expects initial centroids of clusters x dim = " + std::to_string(options.clusters * rows.dim) +
        " values, got " + std::to_string(options.initial.size()));
}

}  // namespace

std::vector<float> kmeans_initial_centroids(Pool& pool, const RowSource& rows, const KMeansOptions& options) {
  check_options(rows, options);
  check_rows(pool, rows, "k-means rows");
  if (options.init == KMeansInit::given) {
    check_rows(pool, RowMatrix{options.initial.data(), options.clusters, rows.dim}, "k-means initial centroids");
    return {options.initial.begin(), options.initial.end()};
  }
  const std::vector<int64_t> order = random_permutation(
      {.seed = options.seed, .site = RandomSite::kmeans_init, .stream = 2 * options.stream}, rows.rows);
  if (options.init == KMeansInit::plus_plus)
    return plus_plus_centroids(
        pool, rows, options.clusters, order,
        {.seed = options.seed, .site = RandomSite::kmeans_init, .stream = 2 * options.stream + 1});
  std::vector<float> centroids(options.clusters * rows.dim);
  for (int64_t cluster = 0; cluster < options.clusters; ++cluster)
    rows.copy(order[cluster % rows.rows], 1, &centroids[cluster * rows.dim]);
  return centroids;
}

}  // namespace collimate
