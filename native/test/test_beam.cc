// The beam over an abstract next-token function: against a plain beam at every width, against exhaustive scoring at
// full width, ties, short catalogues, values that are not finite.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/failure.h"
#include "core/philox.h"
#include "core/rank/beam.h"
#include "core/rank/decode_ops.h"
#include "test/rank_reference.h"

namespace collimate {
namespace {

constexpr int64_t kVocabulary = 48;

struct Case {
  reference::Catalogue catalogue;
  uint64_t seed = 0;
  float spread = 2.0f;

  // Normal logits drawn by a hash of the prefix.
  std::vector<float> logits(const reference::Prefix& prefix) const {
    uint64_t stream = 1;
    for (const int32_t token : prefix) stream = stream * 1000003 + static_cast<uint64_t>(token) + 1;
    std::vector<float> values;
    for (int64_t i = 0; i < kVocabulary; ++i) {
      values.push_back(
          spread * random_normal({.seed = seed, .site = RandomSite::test, .stream = stream}, static_cast<uint64_t>(i)));
    }
    return values;
  }
  ItemTrie trie() const {
    return ItemTrie::build({.item_tokens = catalogue.item_tokens,
                            .items = catalogue.items,
                            .levels = catalogue.levels,
                            .vocabulary = catalogue.vocabulary});
  }
};

Case make_case(int64_t items, uint64_t seed, int64_t levels = 4) {
  uint64_t drawn = 0;
  const auto below = [&](int64_t n) {
    return random_below({.seed = seed, .site = RandomSite::test}, drawn++, static_cast<uint32_t>(n));
  };
  return {.catalogue = reference::random_catalogue(
              {.items = items, .levels = levels, .width = 8, .first = 16, .vocabulary = kVocabulary}, below),
          .seed = seed};
}

// Brings the logits of a case to a Beam until the last level.
bool drive(const Case& c, const ItemTrie& trie, const BeamOptions& options, Beam& beam) {
  std::vector<reference::Prefix> prefixes = {{}};
  while (beam.level() < trie.levels()) {
    const int64_t level = beam.level();
    const int64_t columns = Beam::columns(trie, options.normaliser, level, kVocabulary);
    std::vector<float> rows;
    for (const auto& prefix : prefixes) {
      const auto logits = c.logits(prefix);
      if (options.normaliser == ScoreNormaliser::full) rows.insert(rows.end(), logits.begin(), logits.end());
      if (options.normaliser == ScoreNormaliser::full) continue;
      for (const int32_t token : trie.level_tokens(level)) rows.push_back(logits[static_cast<size_t>(token)]);
    }
    if (!beam.expand({rows.data(), columns, columns})) return false;
    std::vector<reference::Prefix> longer;
    for (const Hypothesis& h : beam.live()) {
      longer.push_back(prefixes[static_cast<size_t>(h.parent)]);
      longer.back().push_back(h.token);
    }
    REQUIRE(static_cast<int64_t>(longer.size()) <= Beam::live_max(trie, options, beam.level()));
    prefixes = std::move(longer);
  }
  return true;
}

std::vector<RankedItem> search(const Case& c, const BeamOptions& options) {
  const ItemTrie trie = c.trie();
  Beam beam(trie, options);
  REQUIRE(drive(c, trie, options, beam));
  return {beam.result().begin(), beam.result().end()};
}

void check_equal(const std::vector<RankedItem>& got, const std::vector<reference::Scored>& expected) {
  REQUIRE(got.size() == expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    REQUIRE(got[i].item == expected[i].item);
    REQUIRE(static_cast<double>(got[i].score) == doctest::Approx(expected[i].score).epsilon(2e-6));
  }
}

constexpr ScoreNormaliser kBoth[] = {ScoreNormaliser::full, ScoreNormaliser::valid};

TEST_CASE("beam: equals the plain beam at every width, more beams than items included") {
  for (uint64_t seed = 0; seed < 6; ++seed) {
    const Case c = make_case(300, seed);
    const auto next = [&](const reference::Prefix& p) { return c.logits(p); };
    for (const auto normaliser : kBoth) {
      for (const int64_t beams : {1, 2, 5, 20, 400}) {
        CAPTURE(seed);
        CAPTURE(beams);
        const bool full = normaliser == ScoreNormaliser::full;
        check_equal(search(c, {.beams = beams, .top_k = beams, .normaliser = normaliser}),
                    reference::beam_search(c.catalogue, beams, full, next));
      }
    }
  }
}

TEST_CASE("beam: equals the plain beam at every width from one to all items, and with a width of its own per level") {
  const Case c = make_case(24, 8, 3);
  const auto next = [&](const reference::Prefix& p) { return c.logits(p); };
  for (const auto normaliser : kBoth) {
    const bool full = normaliser == ScoreNormaliser::full;
    const auto check = [&](const BeamWidths& beams, const reference::Widths& widths) {
      check_equal(search(c, {.beams = beams, .top_k = widths.back(), .normaliser = normaliser}),
                  reference::beam_search(c.catalogue, widths, full, next));
    };
    for (int64_t beams = 1; beams <= 26; ++beams) {
      CAPTURE(beams);
      check(beams, {beams, beams, beams});
      // The same width at every level is that width.
      check(std::vector<int64_t>{beams, beams, beams}, {beams, beams, beams});
    }
    for (const reference::Widths& widths : std::vector<reference::Widths>{
             {1, 8, 24}, {8, 1, 24}, {2, 5, 3}, {7, 3, 3}, {3, 17, 5}, {1, 1, 24}, {30, 30, 1}, {4, 24, 24}}) {
      CAPTURE(widths[0]);
      CAPTURE(widths[1]);
      check(widths, widths);
    }
  }
}

TEST_CASE("beam: a width per level is another search than its ends") {
  const Case c = make_case(300, 12);
  const auto narrow = search(c, {.beams = 2, .top_k = 2});
  const auto wide = search(c, {.beams = std::vector<int64_t>{50, 50, 50, 2}, .top_k = 2});
  const auto next = [&](const reference::Prefix& p) { return c.logits(p); };
  const auto truth = reference::exhaustive(c.catalogue, true, next);
  CHECK(wide[0].item == truth[0].item);
  CHECK(narrow[0].item != truth[0].item);
}

TEST_CASE("beam: a least score drops what is below it and nothing else") {
  for (uint64_t seed = 40; seed < 44; ++seed) {
    const Case c = make_case(120, seed);
    const auto all = search(c, {.beams = 120, .top_k = 120});
    for (const size_t kept : {0u, 1u, 17u, 120u}) {
      const float least = kept == 0 ? all[0].score + 1.0f : all[kept - 1].score;
      const auto above = search(c, {.beams = 120, .top_k = 120, .least_score = least});
      REQUIRE(above.size() == kept);
      for (size_t i = 0; i < kept; ++i) CHECK(above[i].item == all[i].item);
    }
  }
}

TEST_CASE("beam: logits brought in parts choose as those brought at once") {
  const Case c = make_case(60, 17, 2);
  const ItemTrie trie = c.trie();
  Beam whole(trie, {.beams = 9, .top_k = 9}), parts(trie, {.beams = 9, .top_k = 9});
  const auto root = c.logits({});
  REQUIRE(whole.expand({root.data(), kVocabulary, kVocabulary}));
  REQUIRE(parts.expand({root.data(), kVocabulary, kVocabulary}));
  std::vector<float> rows;
  for (const Hypothesis& h : whole.live()) {
    const auto logits = c.logits({h.token});
    rows.insert(rows.end(), logits.begin(), logits.end());
  }
  const auto live = static_cast<int64_t>(whole.live().size());
  REQUIRE(whole.expand({rows.data(), kVocabulary, kVocabulary}));
  for (int64_t first = 0; first < live; first += 3) {
    const int64_t count = std::min<int64_t>(3, live - first);
    REQUIRE(parts.add({rows.data() + first * kVocabulary, kVocabulary, kVocabulary}, first, count));
  }
  parts.close_level();
  REQUIRE(parts.result().size() == whole.result().size());
  for (size_t i = 0; i < whole.result().size(); ++i) {
    CHECK(parts.result()[i].item == whole.result()[i].item);
    CHECK(parts.result()[i].score == whole.result()[i].score);
  }
}

TEST_CASE("beam: topK cuts the same list shorter") {
  const Case c = make_case(300, 11);
  const auto all = search(c, {.beams = 20, .top_k = 20});
  const auto five = search(c, {.beams = 20, .top_k = 5});
  REQUIRE(five.size() == 5);
  for (size_t i = 0; i < five.size(); ++i) CHECK(five[i].item == all[i].item);
}

TEST_CASE("beam: at full width equals exhaustive scoring; at 20 it may miss, and the loss is stated") {
  int cases = 0, best_missed = 0, found = 0;
  for (uint64_t seed = 100; seed < 130; ++seed) {
    const Case c = make_case(300, seed);
    const auto next = [&](const reference::Prefix& p) { return c.logits(p); };
    for (const auto normaliser : kBoth) {
      const auto truth = reference::exhaustive(c.catalogue, normaliser == ScoreNormaliser::full, next);
      if (seed < 104) check_equal(search(c, {.beams = 300, .top_k = 300, .normaliser = normaliser}), truth);
      const auto narrow = search(c, {.beams = 20, .top_k = 20, .normaliser = normaliser});
      REQUIRE(narrow.size() == 20);
      ++cases;
      best_missed += narrow[0].item != truth[0].item;
      for (const RankedItem& ranked : narrow) {
        const auto at = std::ranges::find(truth, ranked.item, &reference::Scored::item);
        REQUIRE(at != truth.end());
        REQUIRE(static_cast<double>(ranked.score) == doctest::Approx(at->score).epsilon(2e-6));
        found += at - truth.begin() < 20;
      }
    }
  }
  MESSAGE("search loss at 20 beams, 300 items: best item missed in ", best_missed, " of ", cases, " cases; ",
          100.0 * found / (20.0 * cases), " % of the true top 20 found");
  CHECK(best_missed < cases / 2);
}

TEST_CASE("beam: ties go to the lower token path inside the search and to the lower item in the result") {
  Case c = make_case(100, 5);
  c.spread = 0.0f;  // under `full` all items score the same
  const auto all = search(c, {.beams = 100, .top_k = 100});
  for (size_t i = 0; i < all.size(); ++i) CHECK(all[i].item == static_cast<int32_t>(i));

  const auto next = [&](const reference::Prefix& p) { return c.logits(p); };
  for (const int64_t beams : {1, 3, 7, 20}) {
    check_equal(search(c, {.beams = beams, .top_k = beams}), reference::beam_search(c.catalogue, beams, true, next));
  }
  // The cut of the last level follows the items, not the paths: one level, so every item is a candidate.
  reference::Catalogue reversed{.item_tokens = {9, 8, 7, 6}, .items = 4, .levels = 1, .vocabulary = kVocabulary};
  c.catalogue = reversed;
  const auto two = search(c, {.beams = 2, .top_k = 2});
  CHECK(two[0].item == 0);
  CHECK(two[1].item == 1);
}

TEST_CASE("beam: fewer items than asked for gives fewer results") {
  const Case c = make_case(3, 9);
  const auto list = search(c, {.beams = 20, .top_k = 10});
  CHECK(list.size() == 3);
}

TEST_CASE("beam: under `valid` the probabilities of all items sum to one") {
  for (const int64_t levels : {1, 2, 3}) {
    const Case c = make_case(levels == 1 ? 8 : 50, 21, levels);
    double sum = 0.0;
    for (const auto& ranked : search(c, {.beams = 50, .top_k = 50, .normaliser = ScoreNormaliser::valid})) {
      sum += std::exp(static_cast<double>(ranked.score));
    }
    CHECK(sum == doctest::Approx(1.0).epsilon(1e-5));
  }
}

TEST_CASE("beam: values that are not finite are refused") {
  const Case c = make_case(20, 3);
  const ItemTrie trie = c.trie();
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const size_t column : {size_t{0}, size_t{16}, size_t{47}}) {  // outside and inside the valid tokens
      auto logits = c.logits({});
      logits[column] = bad;
      Beam beam(trie, {.beams = 5, .top_k = 5});
      CHECK_FALSE(beam.expand({logits.data(), kVocabulary, kVocabulary}));
    }
  }
  std::vector<float> columns(trie.level_tokens(0).size(), 0.5f);
  columns[1] = -std::numeric_limits<float>::infinity();
  Beam beam(trie, {.beams = 5, .top_k = 5, .normaliser = ScoreNormaliser::valid});
  const auto width = static_cast<int64_t>(columns.size());
  CHECK_FALSE(beam.expand({columns.data(), width, width}));
}

TEST_CASE("beam: options that do not fit are refused") {
  const ItemTrie trie = make_case(20, 3).trie();
  CHECK_THROWS_WITH_AS(Beam(trie, {.beams = 5, .top_k = 6}),
                       "rank: expected 1 <= topK <= beams, got topK 6 and beams 5", JobFailure);
  CHECK_THROWS_AS(Beam(trie, {.beams = 0, .top_k = 0}), JobFailure);
  using List = std::vector<int64_t>;
  CHECK_THROWS_WITH_AS(Beam(trie, {.beams = List{9, 9, 9}, .top_k = 5}),
                       "rank: expected beams to be a number or a list of one width for each of the 4 levels of the "
                       "ids, got a list of 3",
                       JobFailure);
  CHECK_THROWS_WITH_AS(Beam(trie, {.beams = List{9, 9, 9, 4}, .top_k = 5}),
                       "rank: expected 1 <= topK <= beams, got topK 5 and beams 4 at the last level", JobFailure);
  CHECK_THROWS_WITH_AS(Beam(trie, {.beams = List{9, 0, 9, 9}, .top_k = 5}), "rank: expected beams of at least 1, got 0",
                       JobFailure);
  CHECK_THROWS_WITH_AS(parse_score_normaliser("half"),
                       "rank: expected scoreNormaliser \"full\" or \"valid\", got \"half\"", JobFailure);
}

TEST_CASE("log_sum_exp: close to double precision at every size, large values included") {
  for (const size_t n : {1u, 2u, 7u, 16u, 33u, 1023u, 1024u, 1025u, 50000u}) {
    for (const float shift : {0.0f, 500.0f, -500.0f}) {
      std::vector<float> x(n);
      double sum = 0.0;
      for (size_t i = 0; i < n; ++i) {
        x[i] = shift + 3.0f * random_normal({.seed = 4, .site = RandomSite::test}, i);
        sum += std::exp(static_cast<double>(x[i]) - static_cast<double>(shift));
      }
      CAPTURE(n);
      CHECK(static_cast<double>(ops::log_sum_exp(x)) ==
            doctest::Approx(static_cast<double>(shift) + std::log(sum)).epsilon(2e-6));
    }
  }
}

}  // namespace
}  // namespace collimate
