// The lane reduction: every world size gives the bytes of the complete binary tree.
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "core/failure.h"
#include "core/lanes.h"
#include "core/philox.h"
#include "test/gang.h"

namespace collimate {
namespace {

constexpr int kScalars = 2;

// Values of very different sizes, so that another order of additions gives other bytes.
void fill_lane(int lane, int64_t step, std::span<float> gradient, std::vector<double>& scalars) {
  const RandomStream stream{.seed = uint64_t(lane), .site = RandomSite::test, .stream = uint64_t(step)};
  for (size_t i = 0; i < gradient.size(); i += 4) {
    const std::array<uint32_t, 4> words = philox4(stream, uint32_t(i));
    for (size_t j = 0; j < 4 && i + j < gradient.size(); ++j) {
      const float scale = words[j] % 4 == 0 ? 1e6f : 1.0f;
      gradient[i + j] += (float(words[j] >> 8) * 0x1p-24f - 0.5f) * scale;
    }
  }
  for (int i = 0; i < kScalars; ++i) scalars.push_back(random_uniform(stream, 1000000 + uint64_t(i)) * (lane + 1e-9));
}

std::vector<float> reference(int lanes, int first, int count, int64_t elements, int64_t step) {
  if (count == 1) {
    std::vector<float> gradient(size_t(elements), 0.0f);
    std::vector<double> ignored;
    fill_lane(first, step, gradient, ignored);
    return gradient;
  }
  std::vector<float> left = reference(lanes, first, count / 2, elements, step);
  const std::vector<float> right = reference(lanes, first + count / 2, count / 2, elements, step);
  for (size_t i = 0; i < left.size(); ++i) left[i] += right[i];
  return left;
}

struct Outcome {
  std::vector<float> gradient;
  std::vector<double> scalars;
  uint32_t control = 0;
};

std::vector<Outcome> reduce_steps(Transport* transport, int lanes, int64_t elements, int threads, int at_once) {
  Pool pool(threads);
  const auto backend = ops_on_processor(pool);
  LaneReducer reducer({.lanes = lanes,
                       .elements = elements,
                       .scalars = kScalars,
                       .transport = transport,
                       .pool = &pool,
                       .backend = backend.get()});
  std::vector<Outcome> outcomes;
  for (int64_t step = 0; step < 2; ++step) {
    reducer.compute(at_once, [&](const LaneReducer::Lane& lane) {
      std::vector<double> scalars;
      fill_lane(lane.number, step, lane.gradient, scalars);
      return scalars;
    });
    const bool last = transport == nullptr || transport->rank() == transport->world() - 1;
    const auto result = reducer.reduce(step, last ? 2u : 0u);
    outcomes.push_back({{result.gradient.begin(), result.gradient.end()}, result.scalars, result.control});
  }
  return outcomes;
}

bool equal_bytes(const Outcome& a, const Outcome& b) {
  return a.gradient.size() == b.gradient.size() && a.scalars.size() == b.scalars.size() && a.control == b.control &&
         (a.gradient.empty() || std::memcmp(a.gradient.data(), b.gradient.data(), a.gradient.size() * 4) == 0) &&
         std::memcmp(a.scalars.data(), b.scalars.data(), a.scalars.size() * 8) == 0;
}

}  // namespace

TEST_CASE("lanes: ranges are contiguous, whole, and differ by at most one") {
  for (const int lanes : {1, 2, 8, 64}) {
    for (int world = 1; world <= lanes; ++world) {
      int next = 0;
      for (int rank = 0; rank < world; ++rank) {
        const LaneRange range = lane_range(lanes, rank, world);
        CHECK(range.first == next);
        CHECK(range.count >= lanes / world);
        CHECK(range.count <= lanes / world + 1);
        next += range.count;
      }
      CHECK(next == lanes);
    }
  }
}

TEST_CASE("lanes: worlds of 1 to 8 give the bytes of the binary tree on every rank") {
  // Nothing, less than a chunk, several chunks with a short end, and more than one window an owner.
  for (const int64_t elements : {int64_t{0}, int64_t{5}, int64_t{100003}, int64_t{2500001}}) {
    CAPTURE(elements);
    const std::vector<Outcome> alone = reduce_steps(nullptr, 8, elements, 2, 1);
    for (int64_t step = 0; step < 2; ++step) CHECK(alone[size_t(step)].gradient == reference(8, 0, 8, elements, step));
    for (const int world : {1, 2, 3, 4, 5, 8}) {
      if (elements > 1000000 && world > 3) continue;  // the same code, only slower
      CAPTURE(world);
      std::mutex mutex;
      int equal = 0;
      run_gang(world, [&](Transport& transport) {
        const auto outcomes = reduce_steps(&transport, 8, elements, 1 + transport.rank() % 2, 1 + world % 2);
        const std::lock_guard lock(mutex);
        if (equal_bytes(outcomes[0], alone[0]) && equal_bytes(outcomes[1], alone[1])) ++equal;
      });
      CHECK(equal == world);
    }
  }
}

TEST_CASE("lanes: several at once give the bytes of one after the other, whichever finishes first") {
  const std::vector<Outcome> alone = reduce_steps(nullptr, 16, 40000, 1, 1);
  for (const int threads : {1, 2, 3}) {
    for (const int at_once : {2, 3, 5, 16}) {
      CAPTURE(threads);
      CAPTURE(at_once);
      const auto outcomes = reduce_steps(nullptr, 16, 40000, threads, at_once);
      CHECK(equal_bytes(outcomes[0], alone[0]));
      CHECK(equal_bytes(outcomes[1], alone[1]));
    }
  }
}

TEST_CASE("lanes: no two lanes at the same time share a slot, and a failing one ends the others soon") {
  Pool pool(3);
  const auto backend = ops_on_processor(pool);
  LaneReducer reducer({.lanes = 64, .elements = 1, .scalars = 0, .pool = &pool, .backend = backend.get()});
  std::array<std::atomic<int>, 3> in_slot{};
  std::atomic<int> begun{0};
  bool crowded = false;
  const auto body = [&](const LaneReducer::Lane& lane) {
    auto& here = in_slot[size_t(lane.slot)];
    if (here.fetch_add(1) != 0) crowded = true;
    const int order = ++begun;
    if (order == 5) throw std::runtime_error("lane 5");
    if (order > 5) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    here.fetch_sub(1);
    return std::vector<double>{};
  };
  CHECK_THROWS_WITH(reducer.compute(3, body), "lane 5");
  CHECK(begun < 32);  // a loose bound: the failing thread may be preempted before it has been heard
  CHECK_FALSE(crowded);
  CHECK_THROWS_AS(reducer.reduce(0, 0), JobFailure);
}

TEST_CASE("lanes: ranks at different steps fail on both sides") {
  std::mutex mutex;
  int failures = 0;
  run_gang(2, [&](Transport& transport) {
    Pool pool(1);
    const auto backend = ops_on_processor(pool);
    LaneReducer reducer(
        {.lanes = 2, .elements = 10, .scalars = 0, .transport = &transport, .pool = &pool, .backend = backend.get()});
    reducer.compute(1, [](const LaneReducer::Lane&) { return std::vector<double>{}; });
    try {
      reducer.reduce(5 + transport.rank(), 0);
    } catch (const JobFailure& failure) {
      const std::lock_guard lock(mutex);
      if (failure.cause() == FailureCause::internal) ++failures;
    }
  });
  CHECK(failures == 2);
}

TEST_CASE("lanes: misuse and impossible sizes are refused") {
  Pool pool(1);
  const auto backend = ops_on_processor(pool);
  CHECK_THROWS_AS(LaneReducer({.lanes = 6, .elements = 1, .pool = &pool, .backend = backend.get()}), JobFailure);
  run_gang(3, [&](Transport& transport) {
    Pool own(1);
    bool refused = false;
    try {
      LaneReducer reducer({.lanes = 2, .elements = 1, .transport = &transport, .pool = &own, .backend = backend.get()});
    } catch (const JobFailure&) {
      refused = true;
    }
    if (!refused) throw std::runtime_error("three ranks with two lanes were accepted");
  });
  LaneReducer reducer({.lanes = 2, .elements = 1, .scalars = 0, .pool = &pool, .backend = backend.get()});
  CHECK_THROWS_AS(reducer.reduce(0, 0), JobFailure);
  CHECK_THROWS_AS(reducer.compute(1, [](const LaneReducer::Lane&) { return std::vector<double>{1.0}; }), JobFailure);
}

}  // namespace collimate
