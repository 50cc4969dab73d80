// State between ranks: the furthest wins, equals are compared, a transfer that breaks leaves no state behind.
#include <doctest/doctest.h>

#include <chrono>
#include <mutex>

#include "core/jobs/state_sync.h"
#include "core/philox.h"
#include "gang.h"

namespace collimate {
namespace {

// A state of several exchanges (16 MiB each) in parts of uneven sizes; its values depend on the step alone.
struct Held {
  int64_t step = -1;
  std::vector<float> curve;
  std::vector<float> small, large;

  explicit Held(int64_t at, size_t elements = 5'000'001) : step(at), small(7), large(elements) {
    if (step < 0) return;
    curve.assign(static_cast<size_t>(step), 0.25f);
    for (size_t i = 0; i < small.size(); ++i) small[i] = static_cast<float>(step) + static_cast<float>(i);
    for (size_t i = 0; i < large.size(); ++i) large[i] = static_cast<float>((i * 31 + static_cast<size_t>(step)) % 977);
  }
  ReplicatedState view() { return {.step = step, .curve = curve, .parts = {small, large}}; }
  bool operator==(const Held&) const = default;
};

struct End {
  bool taken = false;
  std::optional<JobFailure> failure;
};

// What each rank came to, starting at these steps.
std::vector<End> synchronise_all(std::vector<Held>& held) {
  std::vector<End> ends(held.size());
  run_gang(static_cast<int>(held.size()), [&](Transport& transport) {
    const auto rank = static_cast<size_t>(transport.rank());
    Pool pool(2);
    try {
      ends[rank].taken = synchronise(&transport, pool, held[rank].view());
    } catch (const JobFailure& failure) {
      ends[rank].failure = failure;
    }
  });
  return ends;
}

// Breaks off at its n-th exchange, as a rank does that dies there.
class DyingTransport : public Transport {
 public:
  DyingTransport(Transport& inner, int exchanges) : inner_(inner), left_(exchanges) {}
  int rank() const override { return inner_.rank(); }
  int world() const override { return inner_.world(); }
  void exchange(std::span<const SendPart> sends, std::span<const RecvPart> recvs) override {
    if (left_-- == 0) inner_.abort();
    inner_.exchange(sends, recvs);
  }
  void abort() override { inner_.abort(); }
  bool is_connected(int peer) const override { return inner_.is_connected(peer); }

 private:
  Transport& inner_;
  int left_;
};

}  // namespace

TEST_CASE("state sync: the furthest step wins, on every rank, and only those behind it take anything") {
  for (const std::vector<int64_t>& steps : std::vector<std::vector<int64_t>>{
           {3, 4}, {4, 3}, {-1, 0}, {2, 2}, {-1, 5, -1}, {6, 5, 6}, {5, -1, 6}, {0, 1, 2}}) {
    CAPTURE(steps);
    const int64_t furthest = *std::max_element(steps.begin(), steps.end());
    std::vector<Held> held;
    for (const int64_t step : steps) held.emplace_back(step);
    const std::vector<End> ends = synchronise_all(held);
    for (size_t rank = 0; rank < steps.size(); ++rank) {
      CHECK(!ends[rank].failure);
      CHECK(ends[rank].taken == (steps[rank] < furthest));
      CHECK(held[rank] == Held(furthest));
    }
  }
}

TEST_CASE("state sync: other bytes at one step are nondeterminism, which names ranks, step and digests") {
  std::vector<Held> held{Held(4), Held(3), Held(3)};
  held[2].large[4'999'999] += 1.0f;  // ranks 1 and 2 are behind, and differ all the same
  Pool pool(1);
  for (const End& end : synchronise_all(held)) {
    REQUIRE(end.failure);
    CHECK(end.failure->cause() == FailureCause::nondeterminism);
    CHECK(end.failure->step() == 3);
    const std::string message = end.failure->what();
    CHECK(message.find("ranks 1 and 2 after step 3") != std::string::npos);
    CHECK(message.find(state_digest(pool, held[1].view())) != std::string::npos);
    CHECK(message.find(state_digest(pool, held[2].view())) != std::string::npos);
  }
}

TEST_CASE("state sync: where no rank has state, all end with it lost; ranks of different jobs are refused") {
  std::vector<Held> held{Held(-1), Held(-1)};
  for (const End& end : synchronise_all(held)) {
    REQUIRE(end.failure);
    CHECK(end.failure->cause() == FailureCause::peer_lost);
    CHECK(std::string(end.failure->what()).find("no rank holds the state") != std::string::npos);
  }
  Pool pool(1);
  CHECK_THROWS_AS(synchronise(nullptr, pool, held[0].view()), StateLost);
  std::vector<Held> different{Held(1, 100), Held(1, 101)};
  for (const End& end : synchronise_all(different)) {
    REQUIRE(end.failure);
    CHECK(end.failure->cause() == FailureCause::internal);
  }
}

TEST_CASE("state sync: a source that dies half-way leaves the receiver without state, and the other with all of it") {
  std::vector<Held> held{Held(2), Held(5), Held(5)};
  std::vector<std::optional<FailureCause>> causes(3);
  run_gang(3, [&](Transport& transport) {
    const auto rank = static_cast<size_t>(transport.rank());
    DyingTransport dying(transport, 2);  // the table, one chunk, and no more
    Pool pool(1);
    try {
      synchronise(rank == 1 ? &dying : &transport, pool, held[rank].view());
    } catch (const JobFailure& failure) {
      causes[rank] = failure.cause();
    }
  });
  CHECK(causes[0] == FailureCause::peer_lost);
  CHECK(causes[1] == FailureCause::peer_lost);
  CHECK(held[0].step == -1);
  CHECK(held[1] == Held(5));
  CHECK(held[2] == Held(5));
}

TEST_CASE("state sync: digests do not depend on threads, and see every value, the curve and the step") {
  Held held(3);
  Pool one(1), three(3);
  const std::string digest = state_digest(one, held.view());
  CHECK(state_digest(three, held.view()) == digest);
  held.curve[1] = 0.0f;
  CHECK(state_digest(one, held.view()) != digest);
  held = Held(3);
  held.step = 4;
  CHECK(state_digest(one, held.view()) != digest);
  held = Held(3);
  held.small[6] = -held.small[6];
  CHECK(state_digest(one, held.view()) != digest);
}

}  // namespace collimate
