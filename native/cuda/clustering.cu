// Around the kernel that finds nearest codes: books on the device, members of clusters summed in order, distances.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>

#include "core/failure.h"
#include "core/member_sums.h"
#include "core/tree_sum.h"
#include "cuda/clustering.h"
#include "cuda/exact_rows.h"
#include "cuda/gemm.h"
#include "cuda/nearest_codes.h"

namespace collimate::cuda {
namespace {

constexpr int kThreads = 256, kWarpsPerBlock = kThreads / kWarpSize;
constexpr int64_t kColumnsPerWarp = 128;  // of member sums: four a lane

// half_norms[i] = |c_i|^2 / 2 by the definition; one warp a centroid.
__global__ void centroid_norms(const float* centroids, int64_t count, int64_t dim, float* half_norms, float* norms) {
  const int64_t i = global_thread() / kWarpSize;
  if (i >= count) return;
  const float* c = centroids + i * dim;
  const float half = 0.5f * exact_row_sum(dim, [&](int64_t at) { return c[at] * c[at]; });
  if (lane_of_thread() != 0) return;
  half_norms[i] = half;
  norms[i] = static_cast<float>(sqrt(2.0 * static_cast<double>(half)));
}

__global__ void row_distances(ResidualView view, int64_t rows, const int32_t* codes, int64_t stride, int levels,
                              float* distance) {
  const int64_t row = global_thread() / kWarpSize;
  if (row >= rows) return;
  const float sum = exact_row_sum(view.dim, [&](int64_t c) {
    const float left = residual_at(view, row, codes + row * stride, levels, c);
    return left * left;
  });
  if (lane_of_thread() == 0) distance[row] = sum;
}

// Sums of kRowsPerItem distances in the order of core/kmeans.cc: tiles of 128, then the tiles.
__global__ void item_sums(const float* distance, int64_t rows, double* sums) {
  const int64_t item = global_thread(), begin = item * kRowsPerItem;
  if (begin >= rows) return;
  const int64_t end = begin + kRowsPerItem < rows ? begin + kRowsPerItem : rows;
  double total = 0.0;
  for (int64_t tile = begin; tile < end; tile += 128) {
    double sum = 0.0;
    for (int64_t i = tile; i < tile + 128 && i < end; ++i) sum += static_cast<double>(distance[i]);
    total += sum;
  }
  sums[item] = total;
}

// ---- rows by cluster, in row order ---------------------------------------------------------------------------------

// counts[block, cluster]: rows of each block of kRowsPerItem.
__global__ void count_codes(const int32_t* codes, int64_t stride, int64_t rows, int64_t clusters, int* counts) {
  const int64_t row = global_thread();
  if (row < rows) atomicAdd(&counts[row / kRowsPerItem * clusters + codes[row * stride]], 1);
}

// Per cluster: counts become the numbers of its rows in the blocks before; totals[cluster] is the number of all.
__global__ void running_counts(int* counts, int64_t blocks, int64_t clusters, int* totals) {
  __shared__ int sums[kThreads];
  const int64_t cluster = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t per_thread = (blocks + kThreads - 1) / kThreads, begin = thread * per_thread;
  const int64_t end = begin + per_thread < blocks ? begin + per_thread : blocks;
  int own = 0;
  for (int64_t b = begin; b < end; ++b) own += counts[b * clusters + cluster];
  sums[thread] = own;
  __syncthreads();
  int before = 0;
  for (int t = 0; t < thread; ++t) before += sums[t];
  if (thread == kThreads - 1) totals[cluster] = before + own;
  for (int64_t b = begin; b < end; ++b) {
    const int count = counts[b * clusters + cluster];
    counts[b * clusters + cluster] = before;
    before += count;
  }
}

// members[base[cluster] + number of the row within its cluster] = row. One warp a block of rows, 32 at a time, in
// order.
__global__ void place_rows(const int32_t* codes, int64_t stride, int64_t rows, int64_t clusters, const int64_t* base,
                           int* next, int32_t* members) {
  const int64_t block = global_thread() / kWarpSize, begin = block * kRowsPerItem;
  const int lane = lane_of_thread();
  for (int64_t first = begin; first < begin + kRowsPerItem && first < rows; first += kWarpSize) {
    const bool inside = first + lane < rows;
    const int code = inside ? codes[(first + lane) * stride] : -1;
    const unsigned same = __match_any_sync(kAllLanes, code);
    int* counter = next + block * clusters + (inside ? code : 0);
    const int already = inside ? *counter : 0;
    __syncwarp();
    if (inside) {
      members[base[code] + already + __popc(same & ((1u << lane) - 1u))] = static_cast<int32_t>(first + lane);
      if ((same >> lane) == 1u) *counter = already + __popc(same);  // the last lane of these
    }
    __syncwarp();
  }
}

// A run of members that are added one after the other.
struct Chunk {
  int64_t first;  // in members
  int32_t count, cluster;
};

__global__ void chunk_sums(ResidualView view, const int32_t* codes, int64_t stride, int levels, const int32_t* members,
                           const Chunk* chunks, int64_t chunk_count, double* sums) {
  const int64_t number = global_thread() / kWarpSize;
  if (number >= chunk_count) return;
  const Chunk chunk = chunks[number];
  const int64_t column = static_cast<int64_t>(blockIdx.y) * kColumnsPerWarp + lane_of_thread();
  constexpr int kOwn = kColumnsPerWarp / kWarpSize;
  double sum[kOwn] = {};
  for (int64_t m = 0; m < chunk.count; ++m) {
    const int64_t row = members[chunk.first + m];
    COLLIMATE_UNROLL
    for (int i = 0; i < kOwn; ++i)
      if (column + i * kWarpSize < view.dim)
        sum[i] += static_cast<double>(residual_at(view, row, codes + row * stride, levels, column + i * kWarpSize));
  }
  COLLIMATE_UNROLL
  for (int i = 0; i < kOwn; ++i)
    if (column + i * kWarpSize < view.dim) sums[number * view.dim + column + i * kWarpSize] = sum[i];
}

// Means from chunk sums: full chunks as a binary tree over their numbers, the last one on top, as MemberSums does.
__global__ void cluster_means(const double* sums, const int64_t* first_chunk, const int* sizes, int64_t clusters,
                              int64_t dim, float* means) {
  const int64_t element = global_thread();
  if (element >= clusters * dim) return;
  const int64_t cluster = element / dim, column = element % dim;
  const int64_t begin = first_chunk[cluster], count = first_chunk[cluster + 1] - begin;
  if (count == 0) return;
  double subtree[40];
  int kept = 0;
  for (int64_t number = 0; number + 1 < count; ++number) {
    double sum = sums[(begin + number) * dim + column];
    for (int64_t n = number; n % 2 == 1; n /= 2) sum = subtree[--kept] + sum;
    subtree[kept++] = sum;
  }
  double total = sums[(begin + count - 1) * dim + column];
  while (kept > 0) total = subtree[--kept] + total;
  means[element] = static_cast<float>(total / static_cast<double>(sizes[cluster]));
}

// One residual row to each place of `to`.
__global__ void copy_rows(ResidualView view, const int32_t* codes, int64_t stride, int levels, const int64_t* rows,
                          const int64_t* places, int64_t count, float* to) {
  const int64_t element = global_thread();
  if (element >= count * view.dim) return;
  const int64_t row = rows[element / view.dim], c = element % view.dim;
  to[places[element / view.dim] * view.dim + c] = residual_at(view, row, codes + row * stride, levels, c);
}

__global__ void decode_rows(ResidualDecode a) {
  const int64_t element = global_thread();
  if (element >= a.rows * a.books.dim) return;
  const int64_t row = element / a.books.dim, c = element % a.books.dim;
  float sum = 0.0f;
  for (int64_t level = 0; level < a.levels; ++level)
    sum += a.books.centroids[(level * a.books.codes_per_level + a.codes[row * a.levels + level]) * a.books.dim + c];
  a.to[element] = sum;
}

Launch warps(int64_t count, int64_t across = 1) {
  return {{blocks_for(count, kWarpsPerBlock), static_cast<unsigned>(across)}, kThreads};
}
Launch threads(int64_t count) { return {blocks_for(count, kThreads), kThreads}; }

template <typename T>
std::vector<T> downloaded(const DeviceArray<T>& array) {
  std::vector<T> values(static_cast<size_t>(array.size()));
  array.download(values);
  return values;
}

template <typename T>
DeviceArray<T> uploaded(Device& device, const std::vector<T>& values) {
  return DeviceArray<T>(device, std::span<const T>(values));
}

}  // namespace

struct ClusteredRows::Members {
  DeviceArray<int32_t> rows;  // by cluster, in row order
  DeviceArray<int> sizes_there;
  std::vector<int> sizes;
};

ClusteredRows::ClusteredRows(Device& device, const RowSource& rows, int64_t levels)
    : device_(device), rows_(rows.rows), dim_(rows.dim), levels_max_(levels) {
  if (levels < 1 || levels > kDeviceLevelsMax)
    fail_bad_input("clustering on a device: expected 1 to " + std::to_string(kDeviceLevelsMax) + " levels, got " +
                   std::to_string(levels));
  values_ = DeviceArray<float>(device, rows_ * dim_);
  codes_ = DeviceArray<int32_t>(device, rows_ * levels);
  distance_ = DeviceArray<float>(device, rows_);
  constexpr int64_t kValuesAtOnce = int64_t{1} << 22;
  const int64_t at_once = std::max(kRowsPerItem, kValuesAtOnce / dim_ / kRowsPerItem * kRowsPerItem);
  FiniteRows finite(rows);
  std::vector<float> block(static_cast<size_t>(std::min(at_once, rows_) * dim_));
  for (int64_t first = 0; first < rows_; first += at_once) {
    const int64_t count = std::min(at_once, rows_ - first);
    const float* values = rows.read(first, count, block.data());
    for (int64_t i = 0; i < count; i += kRowsPerItem)
      finite.check(first + i, std::min(kRowsPerItem, count - i), values + i * dim_);
    device.upload(values_.data() + first * dim_, values, static_cast<size_t>(count * dim_) * sizeof(float));
  }
  finite.fail_if_bad("rows to cluster on a device");
}

ResidualView ClusteredRows::view() const { return {values_.data(), centroids_.data(), dim_, per_level_}; }

void ClusteredRows::upload_books(const ResidualCodebooks& before, std::span<const float> more) {
  per_level_ = more.empty() ? before.codes : static_cast<int64_t>(more.size()) / dim_;
  levels_ = before.levels + (more.empty() ? 0 : 1);
  check_books(before, before.levels > 0 ? dim_ : before.dim);
  if (levels_ > levels_max_ || (before.levels > 0 && before.codes != per_level_))
    fail_bad_input("clustering on a device: expected at most " + std::to_string(levels_max_) +
                   " levels of one number of codes");
  const int64_t count = levels_ * per_level_;
  std::vector<float> all(before.centroids.begin(), before.centroids.end());
  all.insert(all.end(), more.begin(), more.end());
  centroids_ = uploaded(device_, all);
  half_norms_ = DeviceArray<float>(device_, count);
  norms_ = DeviceArray<float>(device_, count);
  rounded_ = DeviceArray<uint16_t>(device_, count * dim_);
  round_to_bf16(device_, centroids_.data(), count * dim_, 1.0f, rounded_.data());
  launch(device_, "centroid_norms", warps(count), centroid_norms, centroids_.data(), count, dim_, half_norms_.data(),
         norms_.data());
  if (levels_ > 1) {
    products_ = DeviceArray<float>(device_, count * count);
    gemm_fp32(device_, {.transpose_b = true,
                        .m = count,
                        .n = count,
                        .k = dim_,
                        .a = centroids_.data(),
                        .lda = dim_,
                        .b = centroids_.data(),
                        .ldb = dim_,
                        .c = products_.data(),
                        .ldc = count});
  }
  const std::vector<float> half = downloaded(half_norms_);
  const double sums = 2.0 * static_cast<double>(dim_ + 4) / (1 << 24);
  absolute_error_ = static_cast<float>(1.01 * sums * *std::max_element(half.begin(), half.end()) + 1e-33);
}

void ClusteredRows::find_nearest(int64_t first_level) {
  nearest_codes(device_, {.rows = rows_,
                          .view = view(),
                          .first_level = static_cast<int>(first_level),
                          .levels = static_cast<int>(levels_),
                          .rounded = rounded_.data(),
                          .half_norms = half_norms_.data(),
                          .norms = norms_.data(),
                          .products = products_.data(),
                          .absolute_error = absolute_error_,
                          .codes = codes_.data(),
                          .codes_stride = levels_max_});
}

double ClusteredRows::find_distances(int64_t levels) {
  launch(device_, "row_distances", warps(rows_), row_distances, view(), rows_, codes_.data(), levels_max_,
         static_cast<int>(levels), distance_.data());
  DeviceArray<double> sums(device_, (rows_ + kRowsPerItem - 1) / kRowsPerItem);
  launch(device_, "item_sums", threads(sums.size()), item_sums, distance_.data(), rows_, sums.data());
  return tree_sum(downloaded(sums));
}

ClusteredRows::Members ClusteredRows::group_by_code(int64_t level, int64_t clusters) {
  const int64_t blocks = (rows_ + kRowsPerItem - 1) / kRowsPerItem;
  const int32_t* codes = codes_.data() + level;
  DeviceArray<int> counts(device_, blocks * clusters);
  device_.zero(counts.data(), static_cast<size_t>(blocks * clusters) * sizeof(int));
  launch(device_, "count_codes", threads(rows_), count_codes, codes, levels_max_, rows_, clusters, counts.data());
  Members result{DeviceArray<int32_t>(device_, rows_), DeviceArray<int>(device_, clusters), {}};
  launch(device_, "running_counts", {static_cast<unsigned>(clusters), kThreads}, running_counts, counts.data(), blocks,
         clusters, result.sizes_there.data());
  result.sizes = downloaded(result.sizes_there);
  std::vector<int64_t> base(static_cast<size_t>(clusters) + 1, 0);
  std::partial_sum(result.sizes.begin(), result.sizes.end(), base.begin() + 1);
  const DeviceArray<int64_t> base_there = uploaded(device_, base);
  launch(device_, "place_rows", warps(blocks), place_rows, codes, levels_max_, rows_, clusters, base_there.data(),
         counts.data(), result.rows.data());
  device_.synchronize();  // before `base_there` goes
  return result;
}

LloydStep ClusteredRows::lloyd_step(const ResidualCodebooks& before, std::span<float> centroids) {
  const int64_t clusters = static_cast<int64_t>(centroids.size()) / dim_;
  const int level = static_cast<int>(before.levels);
  upload_books(before, centroids);
  find_nearest(level);
  LloydStep step;
  step.objective = find_distances(level + 1);
  const Members members = group_by_code(level, clusters);

  std::vector<Chunk> chunks;
  std::vector<int64_t> first_chunk{0};
  int64_t first = 0;
  for (int64_t cluster = 0; cluster < clusters; ++cluster) {
    const int64_t size = members.sizes[static_cast<size_t>(cluster)];
    for (int64_t done = 0; done < size; done += MemberSums::kMembersPerChunk)
      chunks.push_back({first + done, static_cast<int32_t>(std::min(MemberSums::kMembersPerChunk, size - done)),
                        static_cast<int32_t>(cluster)});
    first += size;
    first_chunk.push_back(static_cast<int64_t>(chunks.size()));
    step.empty_clusters += size == 0 ? 1 : 0;
  }
  const DeviceArray<Chunk> chunks_there = uploaded(device_, chunks);
  const DeviceArray<int64_t> first_there = uploaded(device_, first_chunk);
  DeviceArray<double> sums(device_, chunks_there.size() * dim_);
  launch(device_, "chunk_sums", warps(chunks_there.size(), (dim_ + kColumnsPerWarp - 1) / kColumnsPerWarp), chunk_sums,
         view(), codes_.data(), levels_max_, level, members.rows.data(), chunks_there.data(), chunks_there.size(),
         sums.data());
  float* means = centroids_.data() + level * clusters * dim_;  // of empty clusters they stay
  launch(device_, "cluster_means", threads(clusters * dim_), cluster_means, sums.data(), first_there.data(),
         members.sizes_there.data(), clusters, dim_, means);

  if (step.empty_clusters > 0) {
    std::vector<int64_t> places;
    for (int64_t cluster = 0; cluster < clusters; ++cluster)
      if (members.sizes[static_cast<size_t>(cluster)] == 0) places.push_back(cluster);
    const std::vector<int64_t> worst = worst_rows(downloaded(distance_), static_cast<int64_t>(places.size()));
    const DeviceArray<int64_t> rows_there = uploaded(device_, worst), places_there = uploaded(device_, places);
    launch(device_, "copy_rows", threads(rows_there.size() * dim_), copy_rows, view(), codes_.data(), levels_max_,
           level, rows_there.data(), places_there.data(), rows_there.size(), means);
    device_.synchronize();
  }
  const std::vector<float> old(centroids.begin(), centroids.end());
  device_.download(centroids.data(), means, centroids.size_bytes());
  step.changed = std::memcmp(old.data(), centroids.data(), centroids.size_bytes()) != 0;
  return step;
}

double ClusteredRows::assign(const ResidualCodebooks& before, std::span<const float> centroids,
                             std::span<float> squared_distance) {
  upload_books(before, centroids);
  find_nearest(before.levels);
  const double sum = find_distances(levels_);
  if (!squared_distance.empty()) distance_.download(squared_distance);
  return sum;
}

void ClusteredRows::encode(const ResidualCodebooks& books, std::span<float> squared_distance) {
  upload_books(books, {});
  find_nearest(0);
  if (squared_distance.empty()) return;
  find_distances(levels_);
  distance_.download(squared_distance);
}

void ClusteredRows::set_codes(std::span<const int32_t> codes, int64_t levels) {
  std::vector<int32_t> all(static_cast<size_t>(rows_ * levels_max_), 0);
  for (int64_t i = 0; i < rows_; ++i) std::copy_n(&codes[i * levels], levels, &all[i * levels_max_]);
  device_.upload(codes_.data(), all.data(), all.size() * sizeof(int32_t));
}

void ClusteredRows::download_codes(std::span<int32_t> codes, int64_t levels) const {
  const std::vector<int32_t> all = downloaded(codes_);
  for (int64_t i = 0; i < rows_; ++i) std::copy_n(&all[i * levels_max_], levels, &codes[i * levels]);
}

void residual_decode(Device& device, const ResidualDecode& args) {
  launch(device, "residual_decode", threads(args.rows * args.books.dim), decode_rows, args);
}

}  // namespace collimate::cuda
