// k-means: exact Lloyd iterations.
//
// 1. A row belongs to the centroid that core/nearest_centroids.h defines.
// 2. Equal distances go to the lowest index, always.
// 3. A centroid is the mean of its members in row order, in double, in chunks of a fixed size summed in tree order; so
//    bytes do not depend on the pool.
// 4. Rows are read block by block from a source that need not hold them (core/row_source.h): beside the centroids and
//    their sums, memory is a block of rows and a few bytes a row.
// 5. The state of Lloyd's algorithm is the centroids alone: the next iteration, and whether it changes anything, is a
//    function of rows and centroids. This is what a checkpoint holds.
// Not-finite values, or rows whose squared norm overflows, are JobFailure(bad_input). Fewer distinct rows than clusters
// are allowed: the clusters left over stay empty copies.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/pool.h"
#include "core/row_source.h"

namespace collimate {

enum class KMeansInit {
  plus_plus,  // D^2 sampling (on at most 32 rows per cluster, chosen at random)
  random,     // distinct random rows
  given,      // KMeansOptions::initial
};

struct KMeansOptions {
  int64_t clusters = 0;
  int64_t iterations = 20;
  uint64_t seed = 0;
  uint64_t stream = 0;  // keeps the draws of several runs under one seed apart (a level's number)
  KMeansInit init = KMeansInit::plus_plus;
  std::span<const float> initial;  // [clusters, dim] when init is `given`
};

struct KMeansResult {
  std::vector<float> centroids;     // [clusters, dim]
  std::vector<int32_t> assignment;  // [rows], to these centroids
  std::vector<double> objective;    // per iteration: sum of squared distances to the centroids it started from
  double final_objective = 0;       // the same for the centroids returned
  int64_t empty_clusters = 0;       // of the assignment returned
  bool converged = false;           // the last iteration changed nothing
};

// The whole algorithm; stops early when an iteration changes nothing.
KMeansResult kmeans(Pool& pool, const RowSource& rows, const KMeansOptions& options);

// --- single steps, for callers that checkpoint between iterations ---

// [clusters, dim]; checks rows and options.
std::vector<float> kmeans_initial_centroids(Pool& pool, const RowSource& rows, const KMeansOptions& options);

struct LloydStep {
  double objective = 0;        // sum of squared distances to the centroids before the update
  int64_t empty_clusters = 0;  // before re-seeding
  bool changed = false;        // any byte of the centroids
};

// One Lloyd iteration on `centroids` [clusters, dim] in place. Empty clusters are re-seeded from the worst-quantised
// rows.
LloydStep lloyd_step(Pool& pool, const RowSource& rows, std::span<float> centroids);

// Nearest centroid of each row, and the squared distance to it (either span may be empty); returns the distances' sum.
double assign_rows(Pool& pool, const RowSource& rows, std::span<const float> centroids, std::span<int32_t> assignment,
                   std::span<float> squared_distance);

// Rows by how badly they are quantised, the worst first, equal ones by index: at most `wanted`, none at distance 0.
// What empty clusters are re-seeded from, in this order.
std::vector<int64_t> worst_rows(std::span<const float> squared_distance, int64_t wanted);

}  // namespace collimate
