// The valid item ids as a trie in CSR form: which tokens may follow which prefix, and which item a full path names.
//
// 1. All ids have the same number of tokens (`levels`); a leaf belongs to exactly one item.
// 2. Nodes are numbered breadth first, children by ascending token; so edge e leads to node e + 1, the nodes of one
// depth are
//    contiguous, and a node's number orders its depth by token path.
// 3. Immutable once built; any thread may read it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace collimate {

class ItemTrie {
 public:
  struct Source {
    std::span<const int32_t> item_tokens;  // [items, levels]
    int64_t items = 0;
    int64_t levels = 0;
    int64_t vocabulary = 0;  // tokens must lie in [0, vocabulary)
  };
  // JobFailure(bad_input) for no items, a token outside the vocabulary, or items that share an id (naming them).
  static ItemTrie build(const Source& source);

  static constexpr int32_t kRoot = 0;

  int64_t levels() const { return static_cast<int64_t>(level_tokens_.size()); }
  int64_t items() const { return static_cast<int64_t>(leaf_items_.size()); }
  // Number of nodes at a depth in [0, levels]; 1 at depth 0, items() at depth levels().
  int64_t nodes_at(int64_t depth) const;

  struct EdgeRange {
    int64_t first = 0;
    int64_t count = 0;
  };
  // Edges out of an inner node, by ascending token. Never empty.
  EdgeRange edges(int32_t node) const;
  static int32_t edge_target(int64_t edge) { return static_cast<int32_t>(edge + 1); }
  int32_t edge_token(int64_t edge) const { return tokens_[static_cast<size_t>(edge)]; }
  // Index of the edge's token in level_tokens() of its level.
  int32_t edge_column(int64_t edge) const { return columns_[static_cast<size_t>(edge)]; }

  // Distinct tokens that occur at a level in [0, levels), ascending.
  std::span<const int32_t> level_tokens(int64_t level) const { return level_tokens_[static_cast<size_t>(level)]; }

  // The node reached by `token` from an inner node; -1 when the id would not be valid.
  int32_t child(int32_t node, int32_t token) const;
  // The item of a leaf.
  int32_t leaf_item(int32_t node) const;

 private:
  ItemTrie() = default;
  void add_level(const Source& source, int64_t level, std::span<const int32_t> order, std::vector<int64_t>& starts);

  std::vector<int64_t> depth_first_node_;  // [levels + 2]: first node of each depth, then the number of nodes
  std::vector<int64_t> edge_begin_;        // [inner nodes + 1]
  std::vector<int32_t> tokens_;            // [edges]
  std::vector<int32_t> columns_;           // [edges]
  std::vector<int32_t> leaf_items_;        // [items]: leaf = depth_first_node_[levels] + index
  std::vector<std::vector<int32_t>> level_tokens_;
};

}  // namespace collimate
