#include "core/kmeans.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/nearest_centroids.h"
#include "core/row_ops.h"
#include "core/tree_sum.h"

namespace collimate {
namespace {

constexpr int64_t kMembersPerChunk = 1024;  // of a centroid's sum

// Squared distances of rows to the centroids they were given; returns their sum.
double distances_to_assigned(const float* rows, int64_t count, const float* centroids, int64_t dim,
                             const int32_t* assignment, float* result) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    result[i] = wide_squared_distance(rows + i * dim, centroids + assignment[i] * dim, dim);
    sum += result[i];
  }
  return sum;
}

void add_members(const float* rows, int64_t dim, const int64_t* members, int64_t count, double* sum) {
  for (int64_t m = 0; m < count; ++m) {
    const float* row = rows + members[m] * dim;
    for (int64_t c = 0; c < dim; ++c) sum[c] += row[c];
  }
}

// Rows grouped by cluster, in row order within each.
struct Members {
  std::vector<int64_t> offsets;  // [clusters + 1]
  std::vector<int64_t> rows;
};

Members group_rows(std::span<const int32_t> assignment, int64_t clusters) {
  Members members;
  members.offsets.assign(clusters + 1, 0);
  for (const int32_t cluster : assignment) ++members.offsets[cluster + 1];
  std::partial_sum(members.offsets.begin(), members.offsets.end(), members.offsets.begin());
  std::vector<int64_t> next(members.offsets.begin(), members.offsets.end() - 1);
  members.rows.resize(assignment.size());
  for (size_t i = 0; i < assignment.size(); ++i) members.rows[next[assignment[i]]++] = static_cast<int64_t>(i);
  return members;
}

// Invariant 3. Empty clusters keep their centroid.
void update_centroids(Pool& pool, const RowMatrix& rows, const Members& members, std::span<float> centroids) {
  const int64_t dim = rows.dim;
  const int64_t clusters = static_cast<int64_t>(members.offsets.size()) - 1;
  struct Chunk {
    int64_t first, count;
  };
  std::vector<Chunk> chunks;
  std::vector<int64_t> chunk_offsets(clusters + 1, 0);
  for (int64_t cluster = 0; cluster < clusters; ++cluster) {
    for (int64_t first = members.offsets[cluster]; first < members.offsets[cluster + 1]; first += kMembersPerChunk)
      chunks.push_back({first, std::min(kMembersPerChunk, members.offsets[cluster + 1] - first)});
    chunk_offsets[cluster + 1] = static_cast<int64_t>(chunks.size());
  }
  std::vector<double> sums(chunks.size() * dim, 0.0);
  pool.for_each(static_cast<int64_t>(chunks.size()), [&](int64_t item) {
    add_members(rows.data, dim, members.rows.data() + chunks[item].first, chunks[item].count, &sums[item * dim]);
  });
  pool.for_each(clusters, [&](int64_t cluster) {
    const int64_t count = chunk_offsets[cluster + 1] - chunk_offsets[cluster];
    if (count == 0) return;
    double* sum = &sums[chunk_offsets[cluster] * dim];
    for (int64_t stride = 1; stride < count; stride *= 2)
      for (int64_t i = 0; i + stride < count; i += 2 * stride)
        for (int64_t c = 0; c < dim; ++c) sum[i * dim + c] += sum[(i + stride) * dim + c];
    const double size = static_cast<double>(members.offsets[cluster + 1] - members.offsets[cluster]);
    for (int64_t c = 0; c < dim; ++c) centroids[cluster * dim + c] = static_cast<float>(sum[c] / size);
  });
}

// The e-th empty cluster, in index order, becomes the e-th worst-quantised row. Rows at distance 0 seed nothing.
int64_t reseed_empty(const RowMatrix& rows, const Members& members, std::span<const float> squared_distance,
                     std::span<float> centroids) {
  std::vector<int64_t> empty;
  for (size_t cluster = 0; cluster + 1 < members.offsets.size(); ++cluster)
    if (members.offsets[cluster] == members.offsets[cluster + 1]) empty.push_back(static_cast<int64_t>(cluster));
  if (empty.empty()) return 0;
  std::vector<int64_t> order(rows.rows);
  std::iota(order.begin(), order.end(), int64_t{0});
  const int64_t wanted = std::min<int64_t>(static_cast<int64_t>(empty.size()), rows.rows);
  std::partial_sort(order.begin(), order.begin() + wanted, order.end(), [&](int64_t a, int64_t b) {
    return squared_distance[a] != squared_distance[b] ? squared_distance[a] > squared_distance[b] : a < b;
  });
  for (int64_t e = 0; e < wanted && squared_distance[order[e]] > 0; ++e)
    std::memcpy(&centroids[empty[e] * rows.dim], rows.row(order[e]), rows.dim * sizeof(float));
  return static_cast<int64_t>(empty.size());
}

// Assigns, fills squared distances, returns their sum.
double assign_and_measure(Pool& pool, const RowMatrix& rows, std::span<const float> centroids,
                          std::span<int32_t> assignment, std::span<float> squared_distance) {
  const CentroidTable table(pool, centroids, rows.dim);
  std::vector<double> sums((rows.rows + kAssignRowsPerItem - 1) / kAssignRowsPerItem, 0.0);
  pool.for_blocks(rows.rows, kAssignRowsPerItem, [&](int64_t begin, int64_t end) {
    thread_local CentroidTable::Scratch scratch;
    double sum = 0;
    for (int64_t first = begin; first < end; first += CentroidTable::kRowsPerTile) {
      const int64_t count = std::min(CentroidTable::kRowsPerTile, end - first);
      table.nearest(rows.row(first), count, scratch, &assignment[first]);
      sum += distances_to_assigned(rows.row(first), count, centroids.data(), rows.dim, &assignment[first],
                                   &squared_distance[first]);
    }
    sums[begin / kAssignRowsPerItem] = sum;
  });
  return tree_sum(sums);
}

}  // namespace

LloydStep lloyd_step(Pool& pool, const RowMatrix& rows, std::span<float> centroids) {
  std::vector<int32_t> assignment(rows.rows);
  std::vector<float> squared_distance(rows.rows);
  LloydStep step;
  step.objective = assign_and_measure(pool, rows, centroids, assignment, squared_distance);
  const std::vector<float> before(centroids.begin(), centroids.end());
  const Members members = group_rows(assignment, static_cast<int64_t>(centroids.size()) / rows.dim);
  update_centroids(pool, rows, members, centroids);
  step.empty_clusters = reseed_empty(rows, members, squared_distance, centroids);
  step.changed = std::memcmp(before.data(), centroids.data(), before.size() * sizeof(float)) != 0;
  return step;
}

void assign_rows(Pool& pool, const RowMatrix& rows, std::span<const float> centroids, std::span<int32_t> assignment,
                 std::span<float> squared_distance) {
  std::vector<int32_t> own_assignment(assignment.empty() ? rows.rows : 0);
  std::vector<float> own_distance(squared_distance.empty() ? rows.rows : 0);
  assign_and_measure(pool, rows, centroids, assignment.empty() ? std::span<int32_t>(own_assignment) : assignment,
                     squared_distance.empty() ? std::span<float>(own_distance) : squared_distance);
}

KMeansResult kmeans(Pool& pool, const RowMatrix& rows, const KMeansOptions& options) {
  KMeansResult result;
  result.centroids = kmeans_initial_centroids(pool, rows, options);
  for (int64_t iteration = 0; iteration < options.iterations && !result.converged; ++iteration) {
    const LloydStep step = lloyd_step(pool, rows, result.centroids);
    result.objective.push_back(step.objective);
    result.converged = !step.changed;
  }
  result.assignment.resize(rows.rows);
  std::vector<float> squared_distance(rows.rows);
  result.final_objective = assign_and_measure(pool, rows, result.centroids, result.assignment, squared_distance);
  const Members members = group_rows(result.assignment, options.clusters);
  for (int64_t cluster = 0; cluster < options.clusters; ++cluster)
    result.empty_clusters += members.offsets[cluster] == members.offsets[cluster + 1] ? 1 : 0;
  return result;
}

}  // namespace collimate
