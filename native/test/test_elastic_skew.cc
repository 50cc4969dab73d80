// Gangs that break while their ranks are at different steps, by hand and by chance.
#include <doctest/doctest.h>

#include <algorithm>

#include "core/gemm_bf16.h"
#include "elastic_ranks.h"
#include "stalling_proxy.h"

namespace collimate {

TEST_CASE("tune elastic: of two ranks one has applied a step and the other has not; the further state goes on") {
  // Rank 0 owns the only chunk of the gradient: it needs no byte of rank 1 but its lanes to end the step.
  constexpr int64_t kHeaderBytes = 40;  // of rank 0, with one block of lanes
  for (const bool further_leads : {false, true}) {
    CAPTURE(further_leads);
    const Expected expected;
    const auto further = expected.rank("further"), behind = expected.rank("behind");
    std::vector<NextGang> members = make_gang(2, "skewed");
    StallingProxy proxy(members[0].gang->addresses[0]);
    members[1].gang->addresses[0] = proxy.address();
    std::atomic<bool> both_at_4{false};
    behind->host.at_step = [&](int64_t step) {
      if (step == 4) both_at_4 = true;
    };
    further->host.at_step = [&](int64_t step) {
      if (step == 5) behind->host.control.park();
      if (step != 4) return;
      while (!both_at_4) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      proxy.stall_after(kHeaderBytes);
    };
    further->enter(std::move(members[0]));
    behind->enter(std::move(members[1]));
    CHECK(behind->parked().step == 4);
    CHECK(further->parked().step == 5);
    further->host.at_step = nullptr;
    ElasticRank* first = further_leads ? further.get() : behind.get();
    ElasticRank* second = further_leads ? behind.get() : further.get();
    form_gang({first, second}, "even");
    CHECK(first->bytes() == expected.bytes);
    CHECK(second->parked().reason == ParkReason::done);
    CHECK(further->host.steps == std::vector<int64_t>{1, 2, 3, 4, 5, 6, 7, 8});
    CHECK(behind->host.steps == std::vector<int64_t>{1, 2, 3, 4, 6, 7, 8});
    CHECK(behind->host.ready == std::vector<int64_t>{0, 5});
  }
}

TEST_CASE("tune elastic: a newcomer in bf16 computes with the weights that it was given") {
  if (bf16_unit() == Bf16Unit::none) {
    MESSAGE("skipped: this processor has no bf16 unit");
    return;
  }
  Expected expected;
  expected.run.recipe["precision"] = "bf16";
  TuneHost host;
  run_rank_of(expected.run, expected.folder.path() / "bf16", host, nullptr);
  const auto survivor = expected.rank("survivor");
  const auto newcomer = expected.rank("newcomer", /*join_survivors=*/true);
  survivor->host.control.request(kControlRegroup);
  form_gang({survivor.get()}, "one");
  CHECK(survivor->parked().step == 1);
  form_gang({newcomer.get(), survivor.get()}, "two");
  CHECK(newcomer->bytes() == output_bytes(expected.folder.path() / "bf16"));
}

TEST_CASE("tune elastic: three ranks under a rain of losses, joins and regroupings end with the same bytes") {
  Expected expected;
  for (uint32_t seed = 1; seed <= 6; ++seed) {
    CAPTURE(seed);
    std::vector<std::unique_ptr<ElasticRank>> ranks;
    std::vector<ElasticRank*> gang;
    const auto add = [&](bool join_survivors) {
      ranks.push_back(
          expected.rank("rain-" + std::to_string(seed) + "-" + std::to_string(ranks.size()), join_survivors));
      gang.push_back(ranks.back().get());
    };
    for (int rank = 0; rank < 3; ++rank) add(false);
    for (uint64_t round = 0; round < 5; ++round) {
      const auto draw = [&](uint64_t what, uint32_t below) {
        return random_below({.seed = seed * 16 + what}, round, below);
      };
      const size_t victim = draw(0, 3);
      const uint32_t delay_us = draw(1, 4000);
      const uint32_t event = draw(2, 3);
      form_gang(gang, "rain " + std::to_string(seed) + " " + std::to_string(round));
      while (gang[0]->host.progress().phase.load() == JobPhase::starting) std::this_thread::yield();
      std::this_thread::sleep_for(std::chrono::microseconds(delay_us));
      if (event == 0) gang[victim]->kill();
      if (event == 1) gang[victim]->host.control.park();
      if (event == 2) gang[victim]->host.control.request(kControlRegroup);
      std::vector<ElasticRank*> left;
      bool finished = false;
      for (size_t rank = 0; rank < gang.size(); ++rank) {
        if (event == 0 && rank == victim) continue;
        const std::optional<ParkedEvent> parked = gang[rank]->host.wait_parked();
        if (!parked) {
          CHECK(rank == 0);
          finished = true;
          continue;
        }
        left.push_back(gang[rank]);
      }
      gang = left;
      if (finished) break;
      std::rotate(gang.begin(), gang.begin() + 1, gang.end());
      while (gang.size() < 3) add(true);
    }
    form_gang(gang, "end " + std::to_string(seed));
    CHECK(gang[0]->bytes() == expected.bytes);
    for (const auto& rank : ranks) {
      rank->kill();  // it may be on its way to park
      CHECK(repeats_nothing(rank->host));
    }
  }
}

}  // namespace collimate
