// Ranking on tiny random decoders: against a plain beam that recomputes the whole sequence for every hypothesis, and
// the promises about threads, shards and neighbours.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "core/failure.h"
#include "core/model/decoder.h"
#include "core/philox.h"
#include "core/rank/ranker.h"
#include "test/pool_decoder.h"
#include "test/rank_models.h"
#include "test/rank_reference.h"

namespace collimate {
namespace {

using rank_test::Model;
using rank_test::Prompts;

RankedLists rank(const Model& model, const Prompts& prompts, const BeamOptions& beam, int threads = 2,
                 int64_t first = 0, int64_t count = -1) {
  const ItemTrie trie = model.trie();
  const PromptSet set = prompts.set();
  Pool pool(threads);
  const PoolWeights of(model.parameters, pool);
  return rank_prompts(pool,
                      {.weights = &of.weights,
                       .trie = &trie,
                       .prompts = &set,
                       .beam = beam,
                       .first = first,
                       .count = count < 0 ? set.size() - first : count},
                      {});
}

// A list against the reference: the same items at the same places, except where scores are closer than rounding.
void check_list(const RankedLists& lists, int64_t user, int64_t top_k, const std::vector<reference::Scored>& expected) {
  constexpr double kTolerance = 2e-4;  // f32 forward passes of different shapes, scores around -20
  std::map<int32_t, double> score_of;
  for (const auto& scored : expected) score_of[scored.item] = scored.score;
  for (int64_t i = 0; i < top_k; ++i) {
    CAPTURE(user);
    CAPTURE(i);
    const auto at = static_cast<size_t>(user * top_k + i), rank = static_cast<size_t>(i);
    if (rank >= expected.size()) {
      REQUIRE(lists.items[at] == -1);
      REQUIRE(lists.scores[at] == kPaddingScore);
      continue;
    }
    REQUIRE(score_of.count(lists.items[at]) == 1);
    REQUIRE(std::abs(static_cast<double>(lists.scores[at]) - expected[rank].score) < kTolerance);
    REQUIRE(std::abs(score_of[lists.items[at]] - expected[rank].score) < kTolerance);
  }
}

TEST_CASE("rank: equals the plain beam without caches, at every width and under both normalisers") {
  const Model model = rank_test::make_model({.items = 40, .width = 6}, 1);
  const Prompts prompts = rank_test::make_prompts(model, {5, 1, 12}, 2);
  for (const auto normaliser : {ScoreNormaliser::full, ScoreNormaliser::valid}) {
    const bool full = normaliser == ScoreNormaliser::full;
    for (const int64_t beams : {1, 2, 5, 20, 60}) {
      CAPTURE(beams);
      const auto lists = rank(model, prompts, {.beams = beams, .top_k = beams, .normaliser = normaliser});
      for (int64_t user = 0; user < 3; ++user) {
        check_list(lists, user, beams,
                   reference::beam_search(model.catalogue, beams, full, model.next_logits(prompts.prompt(user))));
      }
    }
  }
}

TEST_CASE("rank: equals exhaustive scoring at full width; the loss at 20 beams is stated") {
  const Model model = rank_test::make_model({.items = 120, .width = 6}, 3);
  const Prompts prompts = rank_test::make_prompts(model, {4, 9, 7, 3, 8, 2, 6, 5, 11}, 4);
  const auto wide = rank(model, prompts, {.beams = 120, .top_k = 120});
  const auto narrow = rank(model, prompts, {.beams = 20, .top_k = 20});
  int missed = 0;
  for (int64_t user = 0; user < 9; ++user) {
    const auto truth = reference::exhaustive(model.catalogue, true, model.next_logits(prompts.prompt(user)));
    check_list(wide, user, 120, truth);
    missed += narrow.items[static_cast<size_t>(user * 20)] != truth[0].item;
    REQUIRE(static_cast<double>(narrow.scores[static_cast<size_t>(user * 20)]) < truth[0].score + 2e-4);
  }
  MESSAGE("search loss at 20 beams, 120 items: best item missed for ", missed, " of 9 users");
}

TEST_CASE("rank: equals the plain beam with a width per level, at every number of threads") {
  const Model model = rank_test::make_model({.items = 60, .levels = 3, .width = 8}, 21);
  const Prompts prompts = rank_test::make_prompts(model, {5, 1, 12, 7, 3, 3, 9, 2, 6, 4}, 22);
  for (const auto normaliser : {ScoreNormaliser::full, ScoreNormaliser::valid}) {
    for (const reference::Widths& widths :
         std::vector<reference::Widths>{{8, 30, 10}, {2, 60, 6}, {8, 3, 3}, {1, 5, 5}}) {
      CAPTURE(widths[0]);
      const BeamOptions beam{.beams = widths, .top_k = widths.back(), .normaliser = normaliser};
      const auto lists = rank(model, prompts, beam, 1);
      for (int64_t user = 0; user < 10; ++user) {
        const bool full = normaliser == ScoreNormaliser::full;
        check_list(lists, user, widths.back(),
                   reference::beam_search(model.catalogue, widths, full, model.next_logits(prompts.prompt(user))));
      }
      for (const int threads : {2, 3}) {
        const auto more = rank(model, prompts, beam, threads);
        CHECK(more.items == lists.items);
        CHECK(more.scores == lists.scores);
      }
    }
  }
}

TEST_CASE("rank: a list with the same width at every level gives the bytes of the number") {
  const Model model = rank_test::make_model({.items = 90, .width = 6}, 23);
  const Prompts prompts = rank_test::make_prompts(model, {5, 17, 3, 9}, 24);
  const auto number = rank(model, prompts, {.beams = 12, .top_k = 10});
  const auto list = rank(model, prompts, {.beams = std::vector<int64_t>(4, 12), .top_k = 10});
  CHECK(list.items == number.items);
  CHECK(list.scores == number.scores);
}

TEST_CASE("rank: every decoder shape: grouped heads, tied embeddings, one layer, one level, many levels") {
  struct Shape {
    rank_test::ModelShape model;
    int64_t beams;
  };
  const Shape shapes[] = {{{.items = 30, .levels = 4, .width = 5, .layers = 1}, 7},
                          {{.items = 30, .levels = 1, .width = 40, .layers = 2}, 7},
                          {{.items = 30, .levels = 6, .width = 3, .layers = 3}, 9},
                          {{.items = 1, .levels = 3, .width = 2, .layers = 2}, 4},
                          {{.items = 30, .levels = 3, .width = 5, .heads = 8, .kv_heads = 8}, 5},
                          {{.items = 30, .levels = 3, .width = 5, .heads = 8, .kv_heads = 1, .tied = true}, 5}};
  for (const Shape& shape : shapes) {
    CAPTURE(shape.model.levels);
    const Model model = rank_test::make_model(shape.model, 5);
    const Prompts prompts = rank_test::make_prompts(model, {6, 3}, 6);
    const auto lists = rank(model, prompts, {.beams = shape.beams, .top_k = shape.beams});
    for (int64_t user = 0; user < 2; ++user) {
      check_list(lists, user, shape.beams,
                 reference::beam_search(model.catalogue, shape.beams, true, model.next_logits(prompts.prompt(user))));
    }
  }
}

TEST_CASE("rank: a vocabulary so large that a group takes several products of the head") {
  const Model model = rank_test::make_model({.items = 50, .levels = 2, .width = 12, .dim = 8, .vocabulary = 90000}, 7);
  const Prompts prompts = rank_test::make_prompts(model, {3, 2, 5, 4, 3, 2, 2, 6, 3}, 8);
  const auto lists = rank(model, prompts, {.beams = 20, .top_k = 20});
  for (const int64_t user : {0, 3, 7, 8}) {
    check_list(lists, user, 20,
               reference::beam_search(model.catalogue, 20, true, model.next_logits(prompts.prompt(user))));
  }
}

TEST_CASE("rank: 1, 2 and 3 threads give the same bytes, with one group and with several") {
  const Model model = rank_test::make_model({.items = 90, .width = 6}, 9);
  const std::vector<int64_t> lengths = {5, 17, 3, 9, 30, 2, 7, 11, 4, 6, 21, 8, 13, 1, 5, 3, 9, 12, 40, 2};
  const Prompts prompts = rank_test::make_prompts(model, lengths, 10);
  for (const int64_t count : {3, 20}) {
    const auto one = rank(model, prompts, {.beams = 12, .top_k = 10}, 1, 0, count);
    for (const int threads : {2, 3}) {
      const auto more = rank(model, prompts, {.beams = 12, .top_k = 10}, threads, 0, count);
      CHECK(more.items == one.items);
      CHECK(more.scores == one.scores);
    }
  }
}

TEST_CASE("rank: a user's list depends on neither the shard nor the other users") {
  const Model model = rank_test::make_model({.items = 90, .width = 6}, 11);
  const std::vector<int64_t> lengths = {5, 17, 3, 9, 30, 2, 7, 11, 4, 6, 21, 8, 13, 1, 5, 3, 9, 12, 40, 2};
  const Prompts prompts = rank_test::make_prompts(model, lengths, 12);
  const BeamOptions beam{.beams = 12, .top_k = 10};
  const auto whole = rank(model, prompts, beam);
  const auto row = [&](const RankedLists& lists, int64_t i) {
    const auto at = static_cast<std::ptrdiff_t>(i * 10);
    return std::pair{std::vector<int32_t>(lists.items.begin() + at, lists.items.begin() + at + 10),
                     std::vector<float>(lists.scores.begin() + at, lists.scores.begin() + at + 10)};
  };
  for (const auto& [first, count] : std::vector<std::pair<int64_t, int64_t>>{{0, 7}, {7, 6}, {13, 7}, {19, 1}}) {
    const auto part = rank(model, prompts, beam, 2, first, count);
    for (int64_t i = 0; i < count; ++i) CHECK(row(part, i) == row(whole, first + i));
  }
  // Everyone but user 10 gets another prompt of another length.
  std::vector<int64_t> others(lengths.rbegin(), lengths.rend());
  others[10] = lengths[10];
  Prompts changed = rank_test::make_prompts(model, others, 999);
  changed.replace(10, prompts.prompt(10));
  CHECK(row(rank(model, changed, beam), 10) == row(whole, 10));
  CHECK(row(rank(model, changed, beam), 9) != row(whole, 9));
}

TEST_CASE("rank: groups report progress one at a time, and a hook that throws ends the work") {
  const Model model = rank_test::make_model({.items = 20, .width = 6}, 13);
  const Prompts prompts = rank_test::make_prompts(model, std::vector<int64_t>(20, 4), 14);
  const ItemTrie trie = model.trie();
  const PromptSet set = prompts.set();
  Pool pool(3);
  const PoolWeights of(model.parameters, pool);
  const RankRequest request{.weights = &of.weights,
                            .trie = &trie,
                            .prompts = &set,
                            .beam = {.beams = 4, .top_k = 4},
                            .first = 3,
                            .count = 17};
  std::vector<int64_t> groups;
  int64_t users = 0;
  double top_scores = 0.0;
  const auto lists = rank_prompts(pool, request, {.on_group = [&](const GroupDone& done) {
                                    groups.push_back(done.groups);
                                    CHECK(done.groups_total == 3);  // prompts 3..7, 8..15, 16..19
                                    users += done.users;
                                    top_scores += done.top_score_sum;
                                  }});
  CHECK(groups == std::vector<int64_t>{1, 2, 3});
  CHECK(users == 17);
  double expected = 0.0;
  for (size_t i = 0; i < 17; ++i) expected += static_cast<double>(lists.scores[i * 4]);
  CHECK(top_scores == doctest::Approx(expected));

  struct Enough {};
  int calls = 0;
  const auto stop_at_five = [&] {
    if (++calls == 5) throw Enough{};
  };
  CHECK_THROWS_AS(rank_prompts(pool, request, {.check = stop_at_five}), Enough);
}

std::string failure_of(const Model& model, const Prompts& prompts, FailureCause cause, int64_t first = 0,
                       int64_t count = -1) {
  try {
    rank(model, prompts, {.beams = 4, .top_k = 4}, 2, first, count);
  } catch (const JobFailure& failure) {
    CHECK(failure.cause() == cause);
    return failure.what();
  }
  return "";
}

bool mentions(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST_CASE("rank: bad prompts and shards are named") {
  const Model model = rank_test::make_model({.items = 20, .width = 6, .positions_max = 32}, 15);
  CHECK(failure_of(model, rank_test::make_prompts(model, {4, 29}, 16), FailureCause::bad_input).empty());
  const std::string too_long = failure_of(model, rank_test::make_prompts(model, {4, 30}, 16), FailureCause::bad_input);
  CHECK(mentions(too_long, "user 101 has 30 tokens and needs 33 positions, expected at most 32"));
  CHECK(mentions(failure_of(model, rank_test::make_prompts(model, {4, 0, 3}, 16), FailureCause::bad_input),
                 "user 101 is empty"));
  Prompts strange = rank_test::make_prompts(model, {4, 5}, 16);
  strange.tokens[6] = static_cast<int32_t>(model.catalogue.vocabulary);
  CHECK(mentions(failure_of(model, strange, FailureCause::bad_input), "user 101 has the token"));
  const Prompts two = rank_test::make_prompts(model, {4, 5}, 16);
  CHECK(mentions(failure_of(model, two, FailureCause::bad_input, 1, 2), "first 1 and count 2"));
  CHECK(mentions(failure_of(model, two, FailureCause::bad_input, 0, 0), "first 0 and count 0"));
  CHECK(mentions(failure_of(model, two, FailureCause::bad_input, -1, 1), "first -1 and count 1"));
}

TEST_CASE("rank: logits that are not finite fail with the first such user, whatever the threads") {
  Model model = rank_test::make_model({.items = 20, .width = 6}, 17);
  // The group of the first poisoned user takes far longer than that of the last, which so fails first.
  std::vector<int64_t> lengths(40, 4);
  std::fill(lengths.begin() + 16, lengths.begin() + 24, 120);
  Prompts prompts = rank_test::make_prompts(model, lengths, 18);
  const int32_t poisoned = 0;
  for (int32_t& token : prompts.tokens) token = token == poisoned ? 1 : token;
  model.parameters.data(model.parameters.embedding())[poisoned] = std::numeric_limits<float>::quiet_NaN();
  CHECK(failure_of(model, prompts, FailureCause::nan_loss).empty());
  for (const size_t user : {37u, 22u, 21u}) prompts.tokens[static_cast<size_t>(prompts.offsets[user]) + 2] = poisoned;
  for (int repeat = 0; repeat < 5; ++repeat) {
    CHECK(mentions(failure_of(model, prompts, FailureCause::nan_loss), "logits of user 121 are not finite at level 0"));
  }
}

}  // namespace
}  // namespace collimate
