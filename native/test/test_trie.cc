// The trie: every id is found and nothing else, numbering is breadth first, bad catalogues are named.
#include <doctest/doctest.h>

#include <set>
#include <string>
#include <vector>

#include "core/failure.h"
#include "core/philox.h"
#include "core/rank/trie.h"
#include "test/rank_reference.h"

namespace collimate {
namespace {

reference::Catalogue catalogue_of(const reference::CatalogueShape& shape, uint64_t seed) {
  uint64_t drawn = 0;
  return reference::random_catalogue(shape, [&](int64_t n) {
    return random_below({.seed = seed, .site = RandomSite::test}, drawn++, static_cast<uint32_t>(n));
  });
}

ItemTrie trie_of(const reference::Catalogue& c) {
  return ItemTrie::build(
      {.item_tokens = c.item_tokens, .items = c.items, .levels = c.levels, .vocabulary = c.vocabulary});
}

std::string failure_of(const ItemTrie::Source& source) {
  try {
    ItemTrie::build(source);
  } catch (const JobFailure& failure) {
    CHECK(failure.cause() == FailureCause::bad_input);
    return failure.what();
  }
  return "";
}

bool mentions(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST_CASE("trie: every id leads to its item, and the valid next tokens are exactly those of the catalogue") {
  for (const int64_t levels : {1, 2, 4}) {
    const auto catalogue =
        catalogue_of({.items = 60, .levels = levels, .width = 64 / levels, .first = 5, .vocabulary = 80},
                     static_cast<uint64_t>(levels));
    const ItemTrie trie = trie_of(catalogue);
    REQUIRE(trie.levels() == levels);
    REQUIRE(trie.items() == 60);
    for (int64_t item = 0; item < catalogue.items; ++item) {
      int32_t node = ItemTrie::kRoot;
      reference::Prefix prefix;
      for (const int32_t token : catalogue.id(item)) {
        const auto expected = reference::valid_next(catalogue, prefix);
        std::vector<int32_t> tokens;
        const auto edges = trie.edges(node);
        for (int64_t e = edges.first; e < edges.first + edges.count; ++e) {
          tokens.push_back(trie.edge_token(e));
          const auto column = static_cast<size_t>(trie.edge_column(e));
          REQUIRE(trie.level_tokens(static_cast<int64_t>(prefix.size()))[column] == trie.edge_token(e));
          REQUIRE(trie.child(node, trie.edge_token(e)) == ItemTrie::edge_target(e));
        }
        REQUIRE(tokens == std::vector<int32_t>(expected.begin(), expected.end()));
        REQUIRE(trie.child(node, 0) == -1);
        node = trie.child(node, token);
        REQUIRE(node > 0);
        prefix.push_back(token);
      }
      CHECK(trie.leaf_item(node) == item);
    }
  }
}

TEST_CASE("trie: nodes of a depth are contiguous and ordered by token path") {
  const auto catalogue = catalogue_of({.items = 200, .levels = 3, .width = 8, .first = 0, .vocabulary = 24}, 7);
  const ItemTrie trie = trie_of(catalogue);
  int64_t first = 0;
  for (int64_t depth = 0; depth <= 3; ++depth) {
    std::set<reference::Prefix> prefixes;
    for (int64_t item = 0; item < 200; ++item) {
      const auto id = catalogue.id(item);
      prefixes.insert({id.begin(), id.begin() + depth});
    }
    CHECK(trie.nodes_at(depth) == static_cast<int64_t>(prefixes.size()));
    int64_t expected = first;
    for (const auto& prefix : prefixes) {
      int32_t node = ItemTrie::kRoot;
      for (const int32_t token : prefix) node = trie.child(node, token);
      CHECK(node == expected++);
    }
    first = expected;
  }
}

TEST_CASE("trie: bad catalogues are named") {
  const std::vector<int32_t> shared = {1, 5, 2, 5, 1, 5, 3, 6, 1, 5};
  const std::string message = failure_of({.item_tokens = shared, .items = 5, .levels = 2, .vocabulary = 8});
  CHECK(mentions(message, "3 items share theirs"));
  CHECK(mentions(message, "items 0, 2, 4 share (1 5)"));

  const std::vector<int32_t> outside = {1, 5, 2, 8};
  CHECK(mentions(failure_of({.item_tokens = outside, .items = 2, .levels = 2, .vocabulary = 8}), "item 1 has 8"));
  const std::vector<int32_t> negative = {1, -5};
  CHECK(mentions(failure_of({.item_tokens = negative, .items = 1, .levels = 2, .vocabulary = 8}), "item 0 has -5"));
  CHECK(mentions(failure_of({.item_tokens = {}, .items = 0, .levels = 4, .vocabulary = 8}), "[0, 4]"));

  std::vector<int32_t> many;
  for (int i = 0; i < 40; ++i) many.push_back(i / 2);
  const std::string long_message = failure_of({.item_tokens = many, .items = 40, .levels = 1, .vocabulary = 40});
  CHECK(mentions(long_message, "40 items share theirs"));
  CHECK(long_message.size() < 400);
}

}  // namespace
}  // namespace collimate
