#include "core/member_sums.h"

#include <immintrin.h>

#include <algorithm>
#include <numeric>

namespace collimate {
namespace {

constexpr int64_t kColumnsAtOnce = 32;  // sums that stay in registers while the members pass

// sum[c] += row[c] for each of the rows, in order.
void add_rows(const float* const* rows, int64_t count, int64_t dim, double* sum) {
  int64_t column = 0;
  for (; column + kColumnsAtOnce <= dim; column += kColumnsAtOnce) {
    __m256d sums[kColumnsAtOnce / 4];
    for (int i = 0; i < kColumnsAtOnce / 4; ++i) sums[i] = _mm256_loadu_pd(sum + column + 4 * i);
    for (int64_t m = 0; m < count; ++m) {
#pragma GCC unroll 8
      for (int i = 0; i < kColumnsAtOnce / 4; ++i)
        sums[i] = _mm256_add_pd(sums[i], _mm256_cvtps_pd(_mm_loadu_ps(rows[m] + column + 4 * i)));
    }
    for (int i = 0; i < kColumnsAtOnce / 4; ++i) _mm256_storeu_pd(sum + column + 4 * i, sums[i]);
  }
  for (int64_t m = 0; m < count; ++m)
    for (int64_t c = column; c < dim; ++c) sum[c] += static_cast<double>(rows[m][c]);
}

}  // namespace

MemberSums::MemberSums(int64_t clusters, int64_t dim)
    : dim_(dim), sizes_(clusters, 0), chunks_(clusters * dim, 0.0), subtrees_(clusters), offsets_(clusters + 1) {}

void MemberSums::group(const Block& block) {
  std::fill(offsets_.begin(), offsets_.end(), 0);
  for (const int32_t cluster : block.clusters) ++offsets_[cluster + 1];
  std::partial_sum(offsets_.begin(), offsets_.end(), offsets_.begin());
  members_.resize(block.clusters.size());
  for (size_t i = 0; i < members_.size(); ++i) members_[offsets_[block.clusters[i]]++] = static_cast<int32_t>(i);
  // Each offset now stands at its cluster's end, which is the next one's begin.
  std::copy_backward(offsets_.begin(), offsets_.end() - 1, offsets_.end());
  offsets_[0] = 0;
}

// Its sum joins the finished subtrees: as many merges as the chunk's number has trailing one bits.
void MemberSums::finish_chunk(int64_t cluster) {
  double* chunk = &chunks_[cluster * dim_];
  std::vector<double>& subtrees = subtrees_[cluster];
  for (int64_t number = sizes_[cluster] / kMembersPerChunk - 1; number % 2 == 1; number /= 2) {
    const double* left = &subtrees[subtrees.size() - dim_];
    for (int64_t c = 0; c < dim_; ++c) chunk[c] = left[c] + chunk[c];
    subtrees.resize(subtrees.size() - dim_);
  }
  subtrees.insert(subtrees.end(), chunk, chunk + dim_);
  std::fill_n(chunk, dim_, 0.0);
}

void MemberSums::add_members(const Block& block, int64_t cluster) {
  constexpr int64_t kRowsAtOnce = 64;
  const float* rows[kRowsAtOnce];
  for (int64_t next = offsets_[cluster]; next < offsets_[cluster + 1];) {
    const int64_t filled = sizes_[cluster] % kMembersPerChunk;
    if (filled == 0 && sizes_[cluster] > 0) finish_chunk(cluster);
    const int64_t count = std::min({kRowsAtOnce, kMembersPerChunk - filled, offsets_[cluster + 1] - next});
    for (int64_t m = 0; m < count; ++m) {
      const int64_t row = members_[next + m];
      rows[m] = block.tiles[row / block.tile_rows] + row % block.tile_rows * dim_;
    }
    add_rows(rows, count, dim_, &chunks_[cluster * dim_]);
    sizes_[cluster] += count;
    next += count;
  }
}

void MemberSums::add(Pool& pool, const Block& block) {
  group(block);
  pool.for_each(static_cast<int64_t>(sizes_.size()), [&](int64_t cluster) { add_members(block, cluster); });
}

void MemberSums::mean(int64_t cluster, float* to) const {
  std::vector<double> sum(chunks_.begin() + cluster * dim_, chunks_.begin() + (cluster + 1) * dim_);
  const std::vector<double>& subtrees = subtrees_[cluster];
  for (int64_t end = static_cast<int64_t>(subtrees.size()); end > 0; end -= dim_)
    for (int64_t c = 0; c < dim_; ++c) sum[c] = subtrees[end - dim_ + c] + sum[c];
  const double size = static_cast<double>(sizes_[cluster]);
  for (int64_t c = 0; c < dim_; ++c) to[c] = static_cast<float>(sum[c] / size);
}

}  // namespace collimate
