// Lists made on a device: the processor's items and scores, whatever the shard and whoever else is in the group.
#include <doctest/doctest.h>

#include <cmath>
#include <numeric>

#include "core/rank/ranker.h"
#include "cuda/ops_backend.h"
#include "test/pool_decoder.h"
#include "test/rank_models.h"

namespace collimate {
namespace {

using rank_test::Model;
using rank_test::Prompts;

struct Asked {
  BeamOptions beam;
  int64_t first = 0, count = -1, compared = 0;
  Precision precision = Precision::fp32;
};

RankedLists rank(const Model& model, const Prompts& prompts, OpsBackend& backend, const Asked& asked) {
  Pool pool(2);
  const ItemTrie trie = model.trie();
  const PromptSet set = prompts.set();
  const DecoderWeights weights(model.parameters, backend, asked.precision);
  return rank_prompts(pool,
                      {.weights = &weights,
                       .trie = &trie,
                       .prompts = &set,
                       .beam = asked.beam,
                       .first = asked.first,
                       .count = asked.count < 0 ? set.size() - asked.first : asked.count,
                       .search_loss_prompts = asked.compared},
                      {});
}

void check_lists(const RankedLists& got, const RankedLists& expected) {
  CHECK(got.items == expected.items);
  REQUIRE(got.scores.size() == expected.scores.size());
  for (size_t i = 0; i < got.scores.size(); ++i)
    CHECK(std::fabs(static_cast<double>(got.scores[i]) - static_cast<double>(expected.scores[i])) < 1e-3);
}

const std::vector<int64_t> kLengths = {5, 40, 3, 9, 20, 1, 33, 11, 4, 64};

}  // namespace

TEST_CASE("rank on a device: the processor's lists, under both normalisers, with a window and with biases") {
  Pool pool(2);
  const auto here = ops_on_processor(pool), there = cuda::ops_on_device(0);
  for (const int64_t window : {0, 6}) {
    Model model = rank_test::make_model({.items = 40, .width = 6}, 21);
    if (window > 0) {
      DecoderConfig config = model.parameters.config();
      config.sliding_window = window;
      config.qkv_bias = true;
      config.qk_norm = true;
      Parameters parameters({.config = config});
      rank_test::randomise(parameters, 22);
      model.parameters = std::move(parameters);
    }
    const Prompts prompts = rank_test::make_prompts(model, kLengths, 5);
    for (const ScoreNormaliser normaliser : {ScoreNormaliser::full, ScoreNormaliser::valid}) {
      CAPTURE(window);
      const Asked asked{.beam = {.beams = 7, .top_k = 5, .normaliser = normaliser}, .compared = 2};
      const RankedLists got = rank(model, prompts, *there, asked);
      check_lists(got, rank(model, prompts, *here, asked));
      CHECK(got.losses.size() == 2);
    }
  }
}

TEST_CASE("rank on a device: a list does not depend on the shard, nor on the other users of the group") {
  const auto there = cuda::ops_on_device(0);
  const Model model = rank_test::make_model({.items = 40, .width = 6}, 23);
  const Prompts prompts = rank_test::make_prompts(model, kLengths, 6);
  const Asked asked{.beam = {.beams = 7, .top_k = 5}};
  const RankedLists whole = rank(model, prompts, *there, asked);
  const auto row = [](const auto& values, int64_t user) {
    return std::vector(values.begin() + user * 5, values.begin() + (user + 1) * 5);
  };
  const RankedLists part = rank(model, prompts, *there, {.beam = asked.beam, .first = 3, .count = 4});
  for (int64_t i = 0; i < 4; ++i) {
    CHECK(row(part.items, i) == row(whole.items, 3 + i));
    CHECK(row(part.scores, i) == row(whole.scores, 3 + i));
  }
  std::vector<int64_t> others(kLengths.rbegin(), kLengths.rend());
  others[7] = kLengths[7];
  Prompts changed = rank_test::make_prompts(model, others, 99);
  changed.replace(7, prompts.prompt(7));
  const RankedLists among_others = rank(model, changed, *there, asked);
  CHECK(row(among_others.scores, 7) == row(whole.scores, 7));
  CHECK(row(among_others.scores, 6) != row(whole.scores, 6));
}

TEST_CASE("rank on a device: groups whose steps are started from a recording get the processor's lists") {
  Pool pool(2);
  const auto here = ops_on_processor(pool), there = cuda::ops_on_device(0);
  const Model model = rank_test::make_model({.items = 40, .width = 6}, 25);
  // Three groups: the first runs its steps, the second records them. The last is short.
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < 2 * kDeviceGroupUsers + 5; ++i) lengths.push_back(1 + i * 7 % 11);
  const Prompts prompts = rank_test::make_prompts(model, lengths, 8);
  const Asked asked{.beam = {.beams = 4, .top_k = 4}};
  check_lists(rank(model, prompts, *there, asked), rank(model, prompts, *here, asked));
}

TEST_CASE("rank on a device in bf16: scores near those of fp32") {
  const auto there = cuda::ops_on_device(0);
  const Model model = rank_test::make_model({.items = 20, .width = 5}, 24);
  const Prompts prompts = rank_test::make_prompts(model, {5, 12, 3}, 7);
  for (const ScoreNormaliser normaliser : {ScoreNormaliser::full, ScoreNormaliser::valid}) {
    // All items, so that lists can be compared item by item.
    const Asked asked{.beam = {.beams = 20, .top_k = 20, .normaliser = normaliser}};
    const RankedLists exact = rank(model, prompts, *there, asked);
    const RankedLists got = rank(model, prompts, *there, {.beam = asked.beam, .precision = Precision::bf16});
    CHECK(got.scores != exact.scores);
    double gap = 0;
    for (size_t user = 0; user < 3; ++user) {
      std::vector<float> by_item(20), exact_by_item(20);
      for (size_t i = 0; i < 20; ++i) {
        by_item[static_cast<size_t>(got.items[user * 20 + i])] = got.scores[user * 20 + i];
        exact_by_item[static_cast<size_t>(exact.items[user * 20 + i])] = exact.scores[user * 20 + i];
      }
      for (size_t item = 0; item < 20; ++item)
        gap += std::fabs(static_cast<double>(by_item[item]) - static_cast<double>(exact_by_item[item])) / 60;
    }
    CHECK((std::isfinite(gap) && gap < 0.5));
  }
}

}  // namespace collimate
