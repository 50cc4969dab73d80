// Building and reading the CSR trie: items are sorted by their tokens once, then each level splits the sorted ranges.
#include "core/rank/trie.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>

#include "core/failure.h"

namespace collimate {
namespace {

std::span<const int32_t> id_of(const ItemTrie::Source& source, int64_t item) {
  return source.item_tokens.subspan(static_cast<size_t>(item * source.levels), static_cast<size_t>(source.levels));
}

std::string id_text(std::span<const int32_t> id) {
  std::string text;
  for (int32_t token : id) {
    if (!text.empty()) text += ' ';
    text += std::to_string(token);
  }
  return text;
}

void check_source(const ItemTrie::Source& source) {
  if (source.items < 1 || source.levels < 1) {
    fail_bad_input("rank: expected item_tokens of shape [items, levels] with at least one item and one level, got [" +
                   std::to_string(source.items) + ", " + std::to_string(source.levels) +
                   "]; check the vocabulary input");
  }
  if (source.items * source.levels >= std::numeric_limits<int32_t>::max()) {
    fail_bad_input("rank: expected items x levels below 2^31, got " + std::to_string(source.items) + " x " +
                   std::to_string(source.levels) + "; split the catalogue");
  }
  for (int64_t item = 0; item < source.items; ++item) {
    for (int32_t token : id_of(source, item)) {
      if (token >= 0 && token < source.vocabulary) continue;
      fail_bad_input("rank: expected item tokens in [0, " + std::to_string(source.vocabulary) + "), item " +
                     std::to_string(item) + " has " + std::to_string(token) +
                     "; use the model and the vocabulary of one run");
    }
  }
}

// `order` sorted by id, so equal ids are neighbours.
void check_distinct(const ItemTrie::Source& source, std::span<const int32_t> order) {
  constexpr int64_t kNamedMax = 8;
  std::string groups;
  int64_t sharing = 0, named = 0;
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    const auto id = id_of(source, order[begin]);
    end = begin + 1;
    while (end < order.size() && std::ranges::equal(id, id_of(source, order[end]))) ++end;
    if (end - begin < 2) continue;
    sharing += static_cast<int64_t>(end - begin);
    std::string members;
    for (size_t i = begin; i < end && named < kNamedMax; ++i, ++named) {
      members += (members.empty() ? "" : ", ") + std::to_string(order[i]);
    }
    if (!members.empty()) groups += (groups.empty() ? "items " : "; items ") + members + " share (" + id_text(id) + ")";
  }
  if (sharing == 0) return;
  fail_bad_input("rank: expected one id per item, " + std::to_string(sharing) + " items share theirs: " + groups +
                 (sharing > named ? "; …" : "") + "; make the codes unique (codebooks does) and render again");
}

}  // namespace

ItemTrie ItemTrie::build(const Source& source) {
  check_source(source);
  std::vector<int32_t> order(static_cast<size_t>(source.items));
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, [&](int32_t a, int32_t b) {
    const auto x = id_of(source, a), y = id_of(source, b);
    const auto [i, j] = std::ranges::mismatch(x, y);
    return i == x.end() ? a < b : *i < *j;
  });
  check_distinct(source, order);

  ItemTrie trie;
  trie.depth_first_node_ = {0, 1};
  std::vector<int64_t> starts = {0, source.items};  // of the nodes of one depth in `order`, and its end
  for (int64_t level = 0; level < source.levels; ++level) trie.add_level(source, level, order, starts);
  trie.edge_begin_.push_back(static_cast<int64_t>(trie.tokens_.size()));
  trie.leaf_items_ = std::move(order);
  return trie;
}

// `starts` holds the ranges of depth `level` and is replaced by those of depth `level + 1`.
void ItemTrie::add_level(const Source& source, int64_t level, std::span<const int32_t> order,
                         std::vector<int64_t>& starts) {
  const auto token_at = [&](int64_t position) {
    return source.item_tokens[static_cast<size_t>(order[static_cast<size_t>(position)] * source.levels + level)];
  };
  const size_t first_edge = tokens_.size();
  std::vector<int64_t> next;
  for (size_t node = 0; node + 1 < starts.size(); ++node) {
    edge_begin_.push_back(static_cast<int64_t>(tokens_.size()));
    for (int64_t i = starts[node]; i < starts[node + 1]; ++i) {
      if (i > starts[node] && token_at(i) == token_at(i - 1)) continue;
      next.push_back(i);
      tokens_.push_back(token_at(i));
    }
  }
  next.push_back(source.items);
  starts = std::move(next);
  depth_first_node_.push_back(static_cast<int64_t>(tokens_.size()) + 1);

  std::vector<int32_t> distinct(tokens_.begin() + static_cast<std::ptrdiff_t>(first_edge), tokens_.end());
  std::ranges::sort(distinct);
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  for (size_t edge = first_edge; edge < tokens_.size(); ++edge) {
    const auto at = std::ranges::lower_bound(distinct, tokens_[edge]);
    columns_.push_back(static_cast<int32_t>(at - distinct.begin()));
  }
  level_tokens_.push_back(std::move(distinct));
}

int64_t ItemTrie::nodes_at(int64_t depth) const {
  const auto d = static_cast<size_t>(depth);
  return depth_first_node_[d + 1] - depth_first_node_[d];
}

ItemTrie::EdgeRange ItemTrie::edges(int32_t node) const {
  const auto n = static_cast<size_t>(node);
  return {edge_begin_[n], edge_begin_[n + 1] - edge_begin_[n]};
}

int32_t ItemTrie::child(int32_t node, int32_t token) const {
  const EdgeRange range = edges(node);
  const auto begin = tokens_.begin() + range.first, end = begin + range.count;
  const auto at = std::lower_bound(begin, end, token);
  return at != end && *at == token ? edge_target(at - tokens_.begin()) : -1;
}

int32_t ItemTrie::leaf_item(int32_t node) const {
  return leaf_items_[static_cast<size_t>(node - depth_first_node_[static_cast<size_t>(levels())])];
}

}  // namespace collimate
