// The search loss against brute force: every item's score by forward passes over whole sequences.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/rank/exact_search.h"
#include "core/rank/ranker.h"
#include "test/pool_decoder.h"
#include "test/rank_models.h"
#include "test/rank_reference.h"

namespace collimate {
namespace {

using rank_test::Model;
using rank_test::Prompts;

RankedLists rank(const Model& model, const Prompts& prompts, const BeamOptions& beam, int64_t compared,
                 int threads = 2) {
  const ItemTrie trie = model.trie();
  const PromptSet set = prompts.set();
  Pool pool(threads);
  const PoolWeights of(model.parameters, pool);
  return rank_prompts(pool,
                      {.weights = &of.weights,
                       .trie = &trie,
                       .prompts = &set,
                       .beam = beam,
                       .first = 0,
                       .count = set.size(),
                       .search_loss_prompts = compared},
                      {});
}

const std::vector<int64_t> kLengths = {5, 1, 12, 7, 3, 3, 9, 2, 6, 4, 8, 5};

TEST_CASE("search loss: that of brute force, from no loss to much of it, under both normalisers") {
  double gaps = 0.0, overlaps = 0.0;
  int missed = 0, without_loss = 0;
  for (uint64_t seed = 60; seed < 64; ++seed) {
    const Model model = rank_test::make_model({.items = 150, .width = 7}, seed);
    const Prompts prompts = rank_test::make_prompts(model, kLengths, seed + 100);
    for (const auto normaliser : {ScoreNormaliser::full, ScoreNormaliser::valid}) {
      const bool full = normaliser == ScoreNormaliser::full;
      for (const auto& [widths, top_k] : std::vector<std::pair<reference::Widths, int64_t>>{{{1, 1, 1, 1}, 1},
                                                                                            {{2, 2, 2, 3}, 3},
                                                                                            {{8, 8, 8, 8}, 5},
                                                                                            {{7, 60, 150, 150}, 10},
                                                                                            {{7, 49, 150, 150}, 150}}) {
        CAPTURE(seed);
        CAPTURE(widths[1]);
        const auto lists = rank(model, prompts, {.beams = widths, .top_k = top_k, .normaliser = normaliser}, 12);
        REQUIRE(lists.losses.size() == 12);
        for (int64_t user = 0; user < 12; ++user) {
          CAPTURE(user);
          const auto next = model.next_logits(prompts.prompt(user));
          reference::Widths cut = widths;
          cut.back() = top_k;
          const auto expected = reference::search_loss(reference::beam_search(model.catalogue, cut, full, next),
                                                       reference::exhaustive(model.catalogue, full, next), top_k);
          const PromptLoss& loss = lists.losses[static_cast<size_t>(user)];
          REQUIRE(loss.compared);
          CHECK(loss.missed == expected.missed);
          CHECK(std::abs(loss.gap - expected.gap) < 4e-4);
          CHECK(loss.overlap == doctest::Approx(expected.overlap));
          missed += loss.missed;
          gaps += loss.gap;
          overlaps += loss.overlap;
          without_loss += loss.overlap == 1.0;
        }
      }
    }
  }
  // The cases must hold both sides, else the comparison says little.
  CHECK(missed > 50);
  CHECK(gaps > 10.0);
  CHECK(without_loss > 50);
}

TEST_CASE("search loss: none once the width holds every valid prefix, also with fewer items than places") {
  const Model model = rank_test::make_model({.items = 30, .width = 6}, 71);
  const Prompts prompts = rank_test::make_prompts(model, kLengths, 72);
  for (const int64_t beams : {30, 45}) {
    for (const PromptLoss& loss : rank(model, prompts, {.beams = beams, .top_k = beams}, 12).losses) {
      CHECK(loss.compared);
      CHECK_FALSE(loss.missed);
      CHECK(loss.overlap == 1.0);
    }
  }
  // Pruned to fewer items than exist: the exact search has no score to go by and must look at everything.
  const auto lists = rank(model, prompts, {.beams = std::vector<int64_t>{1, 1, 1, 30}, .top_k = 20}, 12);
  CHECK(lists.items[19] == -1);
  for (const PromptLoss& loss : lists.losses) {
    CHECK(loss.compared);
    CHECK(loss.overlap < 0.5);
  }
}

TEST_CASE("search loss: prompts are spaced evenly, at most all of them") {
  const auto chosen = [](int64_t first, int64_t count, int64_t wanted) {
    return compared_prompts({.first = first, .count = count}, wanted);
  };
  CHECK(chosen(10, 8, 2) == std::vector<int64_t>{12, 16});
  CHECK(chosen(0, 100, 3) == std::vector<int64_t>{16, 50, 83});
  CHECK(chosen(5, 3, 9) == std::vector<int64_t>{5, 6, 7});
  CHECK(chosen(5, 3, 0).empty());
}

TEST_CASE("search loss: 1, 2 and 3 threads give the same numbers and the same lists as none at all") {
  const Model model = rank_test::make_model({.items = 150, .width = 7}, 73);
  const Prompts prompts = rank_test::make_prompts(model, kLengths, 74);
  const BeamOptions beam{.beams = 4, .top_k = 4};
  const auto none = rank(model, prompts, beam, 0);
  CHECK(none.losses.empty());
  const auto one = rank(model, prompts, beam, 7, 1);
  CHECK(one.items == none.items);
  CHECK(one.scores == none.scores);
  for (const int threads : {2, 3}) {
    const auto more = rank(model, prompts, beam, 7, threads);
    REQUIRE(more.losses.size() == 7);
    for (size_t i = 0; i < 7; ++i) {
      CHECK(more.losses[i].gap == one.losses[i].gap);
      CHECK(more.losses[i].overlap == one.losses[i].overlap);
      CHECK(more.losses[i].missed == one.losses[i].missed);
    }
  }
}

TEST_CASE("search loss: a prompt that needs more prefixes than the bound is given up, and counted so") {
  const int64_t items = kExactRowsMax * 3;
  Model model = rank_test::make_model({.items = items, .levels = 2, .width = 64, .layers = 1, .dim = 8}, 75);
  // Two levels have 64 prefixes and are always searched; with three, nearly every item has a prefix of its own.
  const Prompts prompts = rank_test::make_prompts(model, {3, 4}, 76);
  const BeamOptions beam{.beams = 5, .top_k = 5};
  for (const PromptLoss& loss : rank(model, prompts, beam, 2).losses) CHECK(loss.compared);

  model = rank_test::make_model({.items = items, .levels = 3, .width = 64, .layers = 1, .dim = 8}, 77);
  std::ranges::fill(model.parameters.values(), 0.0f);  // knows nothing: all prefixes score alike
  SearchLoss sum;
  for (const PromptLoss& loss : rank(model, prompts, beam, 2).losses) sum.add(loss);
  CHECK(sum.given_up == 2);
  CHECK(sum.compared == 0);
}

}  // namespace
}  // namespace collimate
