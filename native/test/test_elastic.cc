// Gangs that change: whatever leaves and joins, and whenever, the run ends with the bytes of one rank left in peace.
#include <doctest/doctest.h>

#include <algorithm>

#include "elastic_ranks.h"

namespace collimate {
namespace {

JobFailure failure_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const JobFailure& failure) {
    return failure;
  }
  throw std::runtime_error("expected a JobFailure");
}

// All but the last rank, each with its state.
std::vector<ElasticRank*> survivors_of(const std::vector<std::unique_ptr<ElasticRank>>& ranks) {
  std::vector<ElasticRank*> survivors;
  for (size_t rank = 0; rank + 1 < ranks.size(); ++rank) survivors.push_back(ranks[rank].get());
  return survivors;
}

// Kills the last of `world` ranks after `step` updates (0: before the first); the others are parked then.
std::vector<std::unique_ptr<ElasticRank>> break_gang(const Expected& expected, int world, int64_t step) {
  std::vector<std::unique_ptr<ElasticRank>> ranks;
  std::vector<ElasticRank*> all;
  for (int rank = 0; rank < world; ++rank) {
    ranks.push_back(expected.rank(std::to_string(rank)));
    all.push_back(ranks.back().get());
  }
  ElasticHost& victim = all.back()->host;
  const auto die_at = [&victim, step](int64_t at) {
    if (at == step) victim.control.abort();
  };
  victim.at_step = die_at;
  victim.at_ready = die_at;
  form_gang(all, "broken");
  for (ElasticRank* survivor : survivors_of(ranks)) {
    const ParkedEvent parked = survivor->parked();
    CHECK(parked.reason == ParkReason::peer_lost);
    CHECK(parked.step >= std::max<int64_t>(step - 1, 0));
    CHECK(parked.step <= step);
  }
  return ranks;
}

}  // namespace

TEST_CASE("tune elastic: survivors of a lost peer go on by themselves, without repeating a step") {
  for (const bool lora : {false, true}) {
    const Expected expected(lora);
    for (const int world : {2, 3}) {
      for (const int64_t step : {int64_t{0}, int64_t{1}, int64_t{4}, kElasticSteps - 1}) {
        CAPTURE(lora);
        CAPTURE(world);
        CAPTURE(step);
        const auto ranks = break_gang(expected, world, step);
        const std::vector<ElasticRank*> survivors = survivors_of(ranks);
        form_gang(survivors, "survivors");
        CHECK(survivors[0]->bytes() == expected.bytes);
        CHECK(survivors[0]->host.steps.back() == kElasticSteps);
        for (ElasticRank* survivor : survivors) {
          if (survivor != survivors[0]) CHECK(survivor->parked().reason == ParkReason::done);
          CHECK(repeats_nothing(survivor->host));
        }
      }
    }
  }
}

TEST_CASE("tune elastic: a newcomer without checkpoint takes the state from a survivor, as rank 0 too") {
  for (const bool lora : {false, true}) {
    const Expected expected(lora);
    for (const int world : {2, 3}) {
      CAPTURE(lora);
      CAPTURE(world);
      const auto ranks = break_gang(expected, world, 3);
      const auto newcomer = expected.rank("newcomer", /*join_survivors=*/true);
      std::vector<ElasticRank*> gang = survivors_of(ranks);
      gang.insert(gang.begin(), newcomer.get());
      form_gang(gang, "with newcomer");
      CHECK(newcomer->bytes() == expected.bytes);
      REQUIRE(newcomer->host.ready.size() == 1);
      CHECK(newcomer->host.ready[0] == gang[1]->host.ready.back());
      CHECK(newcomer->host.steps.front() == newcomer->host.ready[0] + 1);
      CHECK(gang[1]->parked().reason == ParkReason::done);
      CHECK(repeats_nothing(gang[1]->host));
    }
  }
}

TEST_CASE("tune elastic: one job grows and shrinks at agreed steps, from a gang of one and back") {
  const Expected expected;
  const auto first = expected.rank("first");
  std::vector<std::unique_ptr<ElasticRank>> others;
  for (const char* name : {"a", "b", "c"}) others.push_back(expected.rank(name, /*join_survivors=*/true));
  const auto ask_at = [](ElasticRank& rank, int64_t step) {
    rank.host.at_step = [&rank, step](int64_t at) {
      if (at == step) rank.host.control.request(kControlRegroup);
    };
  };
  const auto all_parked_at = [](const std::vector<ElasticRank*>& gang, int64_t step) {
    for (ElasticRank* rank : gang) {
      const ParkedEvent parked = rank->parked();
      CHECK(parked.reason == ParkReason::asked);
      CHECK(parked.step == step);
    }
  };
  std::vector<ElasticRank*> gang{first.get()};
  ask_at(*first, 1);
  form_gang(gang, "one");
  all_parked_at(gang, 2);  // asked for while step 2 is next
  gang.push_back(others[0].get());
  ask_at(*first, 3);
  form_gang(gang, "two");
  all_parked_at(gang, 4);
  gang.push_back(others[1].get());
  gang.push_back(others[2].get());
  first->host.at_step = nullptr;
  ask_at(*others[2], 5);  // any rank may ask
  form_gang(gang, "four");
  all_parked_at(gang, 6);
  form_gang({others[1].get()}, "one again");  // which never saw the beginning
  CHECK(others[1]->bytes() == expected.bytes);
  CHECK(others[1]->host.steps == std::vector<int64_t>{5, 6, 7, 8});
  CHECK(first->host.steps == std::vector<int64_t>{1, 2, 3, 4, 5, 6});
  CHECK(first->host.ready == std::vector<int64_t>{0, 2, 4});
}

TEST_CASE("tune elastic: park() takes one rank out of its gang at once, and of a gang of one") {
  const Expected expected;
  const auto leaver = expected.rank("leaver"), other = expected.rank("other");
  leaver->host.at_step = [&](int64_t step) {
    if (step == 2) leaver->host.control.park();
  };
  form_gang({other.get(), leaver.get()}, "two");
  CHECK(leaver->parked().reason == ParkReason::asked);
  CHECK(other->parked().reason == ParkReason::peer_lost);
  CHECK(leaver->host.progress().phase.load() == JobPhase::parked);
  leaver->host.control.park();  // no effect: the next gang is not left again
  other->host.at_step = [&](int64_t step) {
    if (step == 5) other->host.control.park();
  };
  form_gang({other.get(), leaver.get()}, "two again");
  const ParkedEvent asked = other->parked();
  CHECK(asked.reason == ParkReason::asked);
  CHECK(asked.step >= 5);
  CHECK(leaver->parked().reason == ParkReason::peer_lost);
  leaver->host.at_step = [&](int64_t step) {
    if (step == 7) leaver->host.control.park();
  };
  form_gang({leaver.get()}, "alone");
  const ParkedEvent alone = leaver->parked();
  CHECK(alone.reason == ParkReason::asked);
  CHECK(alone.step == 7);
  form_gang({leaver.get()}, "alone again");
  CHECK(leaver->bytes() == expected.bytes);
  CHECK(repeats_nothing(leaver->host));
}

TEST_CASE("tune elastic: a rank that is behind takes the further state, also from one that resumed") {
  Expected expected;
  expected.run.checkpoint_interval = 3;
  TuneHost saving;
  run_rank_of(expected.run, expected.folder.path() / "saving", saving, nullptr);
  expected.run.checkpoint_interval = 0;
  const auto behind = expected.rank("behind");  // at step 0
  expected.run.resume = saving.checkpoints.at(3);
  const auto middle = expected.rank("middle");
  expected.run.resume = saving.checkpoints.at(6);
  const auto ahead = expected.rank("ahead");
  form_gang({behind.get(), middle.get(), ahead.get()}, "uneven");
  CHECK(behind->bytes() == expected.bytes);
  CHECK(middle->parked().reason == ParkReason::done);
  CHECK(ahead->parked().reason == ParkReason::done);
  for (const auto* rank : {&behind, &middle, &ahead}) {
    CHECK((*rank)->host.ready == std::vector<int64_t>{6});
    CHECK((*rank)->host.steps == std::vector<int64_t>{7, 8});
  }
}

TEST_CASE("tune elastic: ranks that hold different states at one step end with nondeterminism") {
  Expected expected;
  const auto one = expected.rank("one");
  expected.run.recipe["seed"] = 6;
  const auto other = expected.rank("other");
  form_gang({one.get(), other.get()}, "unlike");
  for (ElasticRank* rank : {one.get(), other.get()}) {
    const JobFailure failure = failure_of([&] { rank->bytes(); });
    CHECK(failure.cause() == FailureCause::nondeterminism);
    CHECK(std::string(failure.what()).find("ranks 0 and 1 after step 0") != std::string::npos);
  }
}

TEST_CASE("tune elastic: rank 0 may die after the last step, and another finishes with the same bytes") {
  const Expected expected;
  const auto zero = expected.rank("zero"), one = expected.rank("one"), two = expected.rank("two");
  form_gang({zero.get(), one.get(), two.get()}, "three");
  for (ElasticRank* rank : {one.get(), two.get()}) {
    const ParkedEvent parked = rank->parked();
    CHECK(parked.reason == ParkReason::done);
    CHECK(parked.step == kElasticSteps);
  }
  zero->bytes();
  std::filesystem::remove_all(expected.folder.path() / "zero");  // its result was never stored
  form_gang({two.get(), one.get()}, "two");
  CHECK(two->bytes() == expected.bytes);
  CHECK(one->parked().reason == ParkReason::done);
  form_gang({one.get()}, "one");
  CHECK(one->bytes() == expected.bytes);
  CHECK(one->host.steps.size() == kElasticSteps);
}

TEST_CASE("tune elastic: an abort ends a parked job, and one whose gang is forming") {
  const Expected expected;
  const auto rank = expected.rank("rank");
  rank->host.at_step = [&](int64_t step) {
    if (step == 2) rank->host.control.park();
  };
  form_gang({rank.get()}, "one");
  rank->parked();
  rank->host.control.abort();
  CHECK_THROWS_AS(rank->bytes(), JobAborted);

  const auto waiting = expected.rank("waiting");
  std::vector<NextGang> members = make_gang(2, "never");
  waiting->enter(std::move(members[0]));
  waiting->host.control.abort();
  CHECK_THROWS_AS(waiting->bytes(), JobAborted);
}

TEST_CASE("tune elastic: a gang that does not form parks the rank again, and park() ends the wait for it") {
  const Expected expected;
  const auto rank = expected.rank("rank");
  std::vector<NextGang> absent = make_gang(2, "absent", /*connect_timeout_ms=*/200);
  rank->enter(std::move(absent[0]));  // the first gang already
  const ParkedEvent first = rank->parked();
  CHECK(first.reason == ParkReason::peer_lost);
  CHECK(first.step == 0);
  CHECK(first.message.find("rank 1 did not join") != std::string::npos);
  const auto start = std::chrono::steady_clock::now();
  std::vector<NextGang> slow = make_gang(2, "slow", /*connect_timeout_ms=*/60000);
  rank->enter(std::move(slow[0]));
  rank->host.control.park();
  CHECK(rank->parked().reason == ParkReason::asked);
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(30));
  CHECK(failure_of([&] {
          std::vector<NextGang> unheard = make_gang(2, "unheard");
          unheard[0].listener.reset();
          rank->enter(std::move(unheard[0]));
        }).cause() == FailureCause::bad_input);
  form_gang({rank.get()}, "alone");
  CHECK(failure_of([&] { rank->host.control.rejoin({}); }).cause() == FailureCause::bad_input);
  CHECK(rank->bytes() == expected.bytes);
}

TEST_CASE("tune elastic: a newcomer that lost its survivors has no state, and says what to do") {
  const Expected expected;
  const auto newcomer = expected.rank("newcomer", /*join_survivors=*/true);
  std::vector<NextGang> absent = make_gang(2, "absent", /*connect_timeout_ms=*/200);
  newcomer->enter(std::move(absent[0]));
  CHECK(newcomer->parked().step == -1);
  form_gang({newcomer.get()}, "alone");
  const JobFailure failure = failure_of([&] { newcomer->bytes(); });
  CHECK(failure.cause() == FailureCause::peer_lost);
  CHECK(std::string(failure.what()).find("start from a checkpoint") != std::string::npos);
}

TEST_CASE("tune elastic: checkpoints due when a gang breaks or regroups are not forgotten") {
  Expected expected;
  expected.run.checkpoint_interval = 3;
  TuneHost saving;
  run_rank_of(expected.run, expected.folder.path() / "saving", saving, nullptr);
  const auto zero = expected.rank("zero"), one = expected.rank("one");
  one->host.at_step = [&](int64_t step) {
    if (step == 2) one->host.control.request(kControlRegroup);  // agreed with step 3, where a checkpoint is due
  };
  form_gang({zero.get(), one.get()}, "two");
  CHECK(zero->parked().step == 3);
  CHECK(one->parked().step == 3);
  REQUIRE(zero->host.checkpoints.count(3) == 1);
  CHECK(checkpoint_bytes(zero->host.checkpoints[3]) == checkpoint_bytes(saving.checkpoints[3]));
  zero->host.at_step = [&](int64_t step) {
    if (step == 4) zero->host.control.request(kControlCheckpoint);
  };
  one->host.at_step = [&](int64_t step) {
    if (step == 4) one->host.control.park();  // so that the reduction of step 5 breaks
  };
  form_gang({zero.get(), one.get()}, "two again");
  const int64_t left_at = zero->parked().step;
  one->parked();
  form_gang({zero.get(), one.get()}, "two at last");
  CHECK(zero->bytes() == expected.bytes);
  CHECK(left_at >= 4);
  CHECK(zero->host.checkpoints.count(5) == 1);
}

TEST_CASE("tune elastic: saving memory does not change the bytes; metrics and progress tell where a job is") {
  const Expected expected;
  for (const int saving : {1, 2}) {
    CAPTURE(saving);
    ElasticRank::Options options{
        .run = expected.run, .folder = expected.folder.path() / std::to_string(saving), .memory_saving = saving};
    options.run.threads = 2;
    ElasticRank rank(options);
    form_gang({&rank}, "alone");
    CHECK(rank.bytes() == expected.bytes);
    const auto& told = rank.host.last_metrics;
    CHECK(told.at("compute_seconds") > 0.0);
    // The phases of the lanes lie within the time of the lanes.
    for (const char* phase : {"data_seconds", "forward_seconds", "backward_seconds", "optimizer_seconds"})
      CHECK(told.at(phase) > 0.0);
    CHECK(told.at("forward_seconds") + told.at("backward_seconds") <= told.at("compute_seconds"));
    CHECK(rank.host.last_metrics.count("reduce_seconds") == 1);
    CHECK(rank.host.progress().step.load() == kElasticSteps);
    CHECK(rank.host.progress().phase.load() == JobPhase::finishing);
  }
}

}  // namespace collimate
