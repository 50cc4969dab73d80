#include "core/kmeans.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/large_buffer.h"
#include "core/member_sums.h"
#include "core/nearest_centroids.h"
#include "core/row_ops.h"
#include "core/tree_sum.h"

namespace collimate {
namespace {

constexpr int64_t kTileRows = CentroidTable::kRowsPerTile;

// Rows that lie in memory at once, of a source that does not: assigned, then summed while they are near.
int64_t rows_per_block(int64_t dim) {
  constexpr int64_t kBlockValues = 1 << 21, kBlockRowsMax = 16 * kRowsPerItem;
  return std::clamp(kBlockValues / dim / kRowsPerItem * kRowsPerItem, kRowsPerItem, kBlockRowsMax);
}

// Squared distances of rows to the centroids they were given; returns their sum.
double distances_to_assigned(const float* rows, int64_t count, std::span<const float> centroids, int64_t dim,
                             const int32_t* assignment, float* result) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    result[i] = wide_squared_distance(rows + i * dim, centroids.data() + assignment[i] * dim, dim);
    sum += result[i];
  }
  return sum;
}

// One pass over the rows: what is filled of their assignment is up to the caller.
struct Pass {
  std::span<int32_t> assignment;      // [rows], or empty
  std::span<float> squared_distance;  // [rows], or empty
  MemberSums* sums = nullptr;         // fed all rows
};

// Returns the sum of squared distances.
double assign(Pool& pool, const RowSource& rows, std::span<const float> centroids, const Pass& pass) {
  const CentroidTable table(pool, centroids, rows.dim);
  const int64_t block_rows = std::min(rows_per_block(rows.dim), rows.rows);
  LargeBuffer<float> values;
  values.resize(block_rows * rows.dim);
  std::vector<const float*> tiles(rows_per_block(rows.dim) / kTileRows);
  std::vector<int32_t> nearest(block_rows);
  std::vector<double> tile_sums;
  for (int64_t first = 0; first < rows.rows; first += block_rows) {
    const int64_t count = std::min(block_rows, rows.rows - first),
                  tiles_before = static_cast<int64_t>(tile_sums.size());
    tile_sums.resize(tiles_before + (count + kTileRows - 1) / kTileRows);
    pool.for_blocks(count, kTileRows, [&](int64_t begin, int64_t end) {
      thread_local CentroidTable::Scratch scratch;
      const float* tile = rows.read(first + begin, end - begin, values.data() + begin * rows.dim);
      tiles[begin / kTileRows] = tile;
      table.nearest(tile, end - begin, scratch, &nearest[begin]);
      float own_distance[kTileRows];
      float* distance = pass.squared_distance.empty() ? own_distance : &pass.squared_distance[first + begin];
      tile_sums[tiles_before + begin / kTileRows] =
          distances_to_assigned(tile, end - begin, centroids, rows.dim, &nearest[begin], distance);
    });
    if (!pass.assignment.empty()) std::copy_n(nearest.begin(), count, pass.assignment.begin() + first);
    if (pass.sums)
      pass.sums->add(
          pool, {.tiles = tiles, .tile_rows = kTileRows, .clusters = std::span<const int32_t>(nearest).first(count)});
  }
  std::vector<double> item_sums((rows.rows + kRowsPerItem - 1) / kRowsPerItem, 0.0);
  for (size_t tile = 0; tile < tile_sums.size(); ++tile) item_sums[tile * kTileRows / kRowsPerItem] += tile_sums[tile];
  return tree_sum(item_sums);
}

// The e-th empty cluster, in index order, becomes the e-th worst-quantised row. Rows at distance 0 seed nothing.
int64_t reseed_empty(const RowSource& rows, const MemberSums& sums, std::span<const float> squared_distance,
                     std::span<float> centroids) {
  const int64_t clusters = static_cast<int64_t>(centroids.size()) / rows.dim;
  std::vector<int64_t> empty;
  for (int64_t cluster = 0; cluster < clusters; ++cluster)
    if (sums.size(cluster) == 0) empty.push_back(cluster);
  if (empty.empty()) return 0;
  const std::vector<int64_t> worst = worst_rows(squared_distance, static_cast<int64_t>(empty.size()));
  for (size_t e = 0; e < worst.size(); ++e) rows.copy(worst[e], 1, &centroids[empty[e] * rows.dim]);
  return static_cast<int64_t>(empty.size());
}

}  // namespace

std::vector<int64_t> worst_rows(std::span<const float> squared_distance, int64_t wanted) {
  std::vector<int64_t> order(squared_distance.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  const auto end = order.begin() + std::min(wanted, static_cast<int64_t>(order.size()));
  std::partial_sort(order.begin(), end, order.end(), [&](int64_t a, int64_t b) {
    return squared_distance[a] != squared_distance[b] ? squared_distance[a] > squared_distance[b] : a < b;
  });
  order.erase(end, order.end());
  while (!order.empty() && !(squared_distance[order.back()] > 0)) order.pop_back();
  return order;
}

LloydStep lloyd_step(Pool& pool, const RowSource& rows, std::span<float> centroids) {
  const int64_t clusters = static_cast<int64_t>(centroids.size()) / rows.dim;
  std::vector<float> squared_distance(rows.rows);
  MemberSums sums(clusters, rows.dim);
  LloydStep step;
  step.objective = assign(pool, rows, centroids, {.squared_distance = squared_distance, .sums = &sums});
  const std::vector<float> before(centroids.begin(), centroids.end());
  pool.for_each(clusters, [&](int64_t cluster) {
    if (sums.size(cluster) > 0) sums.mean(cluster, &centroids[cluster * rows.dim]);
  });
  step.empty_clusters = reseed_empty(rows, sums, squared_distance, centroids);
  step.changed = std::memcmp(before.data(), centroids.data(), before.size() * sizeof(float)) != 0;
  return step;
}

double assign_rows(Pool& pool, const RowSource& rows, std::span<const float> centroids, std::span<int32_t> assignment,
                   std::span<float> squared_distance) {
  return assign(pool, rows, centroids, {.assignment = assignment, .squared_distance = squared_distance});
}

KMeansResult kmeans(Pool& pool, const RowSource& rows, const KMeansOptions& options) {
  KMeansResult result;
  result.centroids = kmeans_initial_centroids(pool, rows, options);
  for (int64_t iteration = 0; iteration < options.iterations && !result.converged; ++iteration) {
    const LloydStep step = lloyd_step(pool, rows, result.centroids);
    result.objective.push_back(step.objective);
    result.converged = !step.changed;
  }
  result.assignment.resize(rows.rows);
  result.final_objective = assign_rows(pool, rows, result.centroids, result.assignment, {});
  std::vector<bool> used(options.clusters, false);
  for (const int32_t cluster : result.assignment) used[cluster] = true;
  result.empty_clusters = std::count(used.begin(), used.end(), false);
  return result;
}

}  // namespace collimate
