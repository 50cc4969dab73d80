#include "core/dccf/graph.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "core/failure.h"

namespace collimate::dccf {
namespace {

constexpr int64_t kBlockRowsMax = 256;
constexpr int64_t kBlockEdges = 4096;  // a block is closed once it holds this many

void check_pairs(int64_t users, int64_t items, std::span<const int32_t> edge_users,
                 std::span<const int32_t> edge_items) {
  constexpr int64_t kNodesMax = std::numeric_limits<int32_t>::max();
  if (users < 1 || items < 1 || users > kNodesMax || items > kNodesMax - users)
    fail_bad_input("graph: expected counts [users, items] >= 1 with a 31-bit sum, got [" + std::to_string(users) +
                   ", " + std::to_string(items) + "]; ingest the data again");
  if (edge_users.size() != edge_items.size())
    fail_bad_input("graph: expected `users` and `items` of one length, got " + std::to_string(edge_users.size()) +
                   " and " + std::to_string(edge_items.size()) + "; ingest the data again");
  if (edge_users.empty())
    fail_bad_input(
        "graph: expected at least one training interaction, got none; users need three events to leave one "
        "for training");
  for (size_t e = 0; e < edge_users.size(); ++e) {
    const int32_t user = edge_users[e], item = edge_items[e];
    if (user < 0 || user >= users || item < 0 || item >= items)
      fail_bad_input("graph: expected users below " + std::to_string(users) + " and items below " +
                     std::to_string(items) + ", pair " + std::to_string(e) + " is (" + std::to_string(user) + ", " +
                     std::to_string(item) + "); ingest the data again");
    if (e > 0 && (user < edge_users[e - 1] || (user == edge_users[e - 1] && item <= edge_items[e - 1])))
      fail_bad_input("graph: expected distinct pairs sorted by user, then item; pair " + std::to_string(e) + " (" +
                     std::to_string(user) + ", " + std::to_string(item) + ") is out of order; ingest the data again");
  }
}

}  // namespace

Graph::Graph(int64_t users, int64_t items, std::span<const int32_t> edge_users, std::span<const int32_t> edge_items)
    : users_(users), items_(items), edges_(static_cast<int64_t>(edge_users.size())) {
  check_pairs(users, items, edge_users, edge_items);
  edge_users_.assign(edge_users.begin(), edge_users.end());
  offsets_.assign(nodes() + 1, 0);
  for (int64_t e = 0; e < edges_; ++e) {
    ++offsets_[edge_users[e] + 1];
    ++offsets_[users_ + edge_items[e] + 1];
  }
  std::partial_sum(offsets_.begin(), offsets_.end(), offsets_.begin());
  neighbours_.resize(2 * edges_);
  std::vector<int64_t> next(offsets_.begin(), offsets_.end() - 1);
  // Pairs come by user, then item: both directions end up ascending.
  for (int64_t e = 0; e < edges_; ++e) {
    const int64_t item_node = users_ + edge_items[e];
    neighbours_[next[edge_users[e]]++] = static_cast<int32_t>(item_node);
    neighbours_[next[item_node]++] = edge_users[e];
  }
  inverse_root_degree_.resize(nodes());
  for (int64_t node = 0; node < nodes(); ++node) {
    const int64_t degree = offsets_[node + 1] - offsets_[node];
    inverse_root_degree_[node] = degree > 0 ? static_cast<float>(1.0 / std::sqrt(static_cast<double>(degree))) : 0.0f;
  }
  RowBlock block;
  for (int64_t node = 0; node < nodes(); ++node) {
    block.end = node + 1;
    if (block.end - block.begin == kBlockRowsMax || offsets_[block.end] - offsets_[block.begin] >= kBlockEdges ||
        block.end == nodes()) {
      row_blocks_.push_back(block);
      block.begin = block.end;
    }
  }
}

bool Graph::has_edge(int64_t user, int64_t item) const {
  const std::span<const int32_t> row = neighbours(user);
  return std::binary_search(row.begin(), row.end(), static_cast<int32_t>(users_ + item));
}

}  // namespace collimate::dccf
