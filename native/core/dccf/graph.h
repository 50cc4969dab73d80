// The bipartite graph of training interactions, as one adjacency over users and items.
//
// Nodes: user u is node u, item i is node U + i. V = U + I nodes, E distinct (user, item) pairs.
// 1. Neighbours of a node ascend. Every pair appears twice: in its user's row and in its item's row.
// 2. weight(h, t) = 1 / sqrt(degree h * degree t): the symmetric normalisation, kept as one factor per node.
// 3. Row blocks depend on the graph alone; they are the work items of every pass over edges.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace collimate::dccf {

struct RowBlock {
  int64_t begin = 0;
  int64_t end = 0;
};

class Graph {
 public:
  // Pairs sorted by user, then item, all distinct; else JobFailure(bad_input) naming the pair.
  Graph(int64_t users, int64_t items, std::span<const int32_t> edge_users, std::span<const int32_t> edge_items);

  int64_t users() const { return users_; }
  int64_t items() const { return items_; }
  int64_t nodes() const { return users_ + items_; }
  int64_t edges() const { return edges_; }
  std::span<const int32_t> neighbours(int64_t node) const {
    return std::span<const int32_t>(neighbours_).subspan(offsets_[node], offsets_[node + 1] - offsets_[node]);
  }
  // 1 / sqrt(degree), 0 for a node without edges.
  std::span<const float> inverse_root_degree() const { return inverse_root_degree_; }
  std::span<const RowBlock> row_blocks() const { return row_blocks_; }
  bool has_edge(int64_t user, int64_t item) const;
  // Pair `edge` of the sorted list.
  int32_t edge_user(int64_t edge) const { return edge_users_[edge]; }
  int32_t edge_item(int64_t edge) const { return neighbours_[edge] - static_cast<int32_t>(users_); }

 private:
  int64_t users_ = 0, items_ = 0, edges_ = 0;
  std::vector<int64_t> offsets_;     // [V + 1]
  std::vector<int32_t> neighbours_;  // [2E], node numbers
  std::vector<int32_t> edge_users_;  // [E]
  std::vector<float> inverse_root_degree_;
  std::vector<RowBlock> row_blocks_;
};

}  // namespace collimate::dccf
