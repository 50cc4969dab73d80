// Sums of the rows of each cluster, fed block by block: the same bytes for any cut into blocks.
//
// 1. A cluster's members are added in row order, in double, in chunks of kMembersPerChunk; the chunks' sums are
//    added as a binary tree over their numbers: neighbours first, a chunk without a neighbour as it is.
// 2. Finished subtrees wait in a binary counter, so a cluster of n members holds at most log2(n / chunk) + 2 rows.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/pool.h"

namespace collimate {

class MemberSums {
 public:
  static constexpr int64_t kMembersPerChunk = 1024;

  MemberSums(int64_t clusters, int64_t dim);

  // The next rows, in the tiles in which they lie in memory.
  struct Block {
    std::span<const float* const> tiles;  // each of `tile_rows` rows, the last may be short
    int64_t tile_rows = 0;
    std::span<const int32_t> clusters;  // of each row
  };
  void add(Pool& pool, const Block& block);

  int64_t size(int64_t cluster) const { return sizes_[cluster]; }
  // The mean of a cluster that has members.
  void mean(int64_t cluster, float* to) const;

 private:
  void group(const Block& block);
  void add_members(const Block& block, int64_t cluster);
  void finish_chunk(int64_t cluster);

  int64_t dim_;
  std::vector<int64_t> sizes_;                 // [clusters]
  std::vector<double> chunks_;                 // [clusters, dim]: the chunk being filled
  std::vector<std::vector<double>> subtrees_;  // of each cluster: sums, the largest subtree first
  std::vector<int64_t> offsets_;               // [clusters + 1] into members_, of one block
  std::vector<int32_t> members_;               // rows of the block by cluster, in row order within each
};

}  // namespace collimate
