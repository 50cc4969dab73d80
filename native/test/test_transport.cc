// The TCP transport: full exchanges, refused generations, aborts, silence, and a killed process.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <numeric>

#include "collective/transport.h"
#include "core/failure.h"
#include "test/all_to_all.h"
#include "test/gang.h"

namespace collimate {
namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

JobFailure failure_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const JobFailure& failure) {
    return failure;
  }
  throw std::runtime_error("expected a JobFailure");
}

}  // namespace

TEST_CASE("transport: all ranks send to all, small and far larger than the kernel's buffers") {
  for (const int world : {1, 2, 3, 5}) {
    run_gang(world, [](Transport& transport) {
      for (const size_t size : {size_t{0}, size_t{1}, size_t{1000}, size_t{3} << 20}) all_to_all(transport, size);
    });
  }
}

TEST_CASE("transport: a rank may leave while others still talk") {
  run_gang(3, [](Transport& transport) {
    all_to_all(transport, 100);
    if (transport.rank() == 2) return;
    const std::byte mine[1] = {std::byte{1}};
    std::byte theirs[1];
    const int peer = 1 - transport.rank();
    for (int i = 0; i < 50; ++i) {
      const SendPart send{peer, mine};
      const RecvPart recv{peer, theirs};
      transport.exchange(std::span(&send, 1), std::span(&recv, 1));
    }
  });
}

TEST_CASE("transport: a caller of another generation is turned away, and the gang still forms") {
  TcpListener first("127.0.0.1");
  TcpListener second("127.0.0.1");
  TcpListener stale_listener("127.0.0.1");
  const std::vector<std::string> addresses = {first.address(), second.address()};
  const TcpGang stale{.generation = "job:1", .rank = 1, .addresses = {first.address(), stale_listener.address()}};
  std::thread rank_0([&] {
    const auto transport = connect_tcp(std::move(first), {.generation = "job:2", .rank = 0, .addresses = addresses});
    all_to_all(*transport, 100);
  });
  const JobFailure refused = failure_of([&] { connect_tcp(std::move(stale_listener), stale); });
  CHECK(refused.cause() == FailureCause::peer_lost);
  CHECK(std::string(refused.what()).find("refused generation job:1") != std::string::npos);
  const auto transport = connect_tcp(std::move(second), {.generation = "job:2", .rank = 1, .addresses = addresses});
  all_to_all(*transport, 100);
  rank_0.join();
}

TEST_CASE("transport: ranks that never come are named") {
  TcpListener listener("127.0.0.1");
  TcpListener absent("127.0.0.1");
  const std::vector<std::string> addresses = {listener.address(), absent.address(), absent.address()};
  const auto start = Clock::now();
  const JobFailure failure = failure_of([&] {
    connect_tcp(std::move(listener), {.generation = "g", .rank = 0, .addresses = addresses, .connect_timeout_ms = 200});
  });
  CHECK(failure.cause() == FailureCause::peer_lost);
  CHECK(std::string(failure.what()).find("rank 1 2 did not join") != std::string::npos);
  CHECK(milliseconds_since(start) < 2000);
}

TEST_CASE("transport: abort from another thread ends a blocked exchange, and the peer hears of it") {
  std::atomic<double> latency_ms{1e9};
  std::atomic<int> failures{0};
  run_gang(2, [&](Transport& transport) {
    std::byte byte[1];
    const RecvPart recv{1 - transport.rank(), byte};
    if (transport.rank() == 0) {
      Clock::time_point asked;
      std::thread aborter([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        asked = Clock::now();
        transport.abort();
      });
      const JobFailure failure = failure_of([&] { transport.exchange({}, std::span(&recv, 1)); });
      aborter.join();
      latency_ms = milliseconds_since(asked);
      if (failure.cause() == FailureCause::peer_lost) failures.fetch_add(1);
      failure_of([&] { transport.exchange({}, {}); });  // dead afterwards
    } else {
      const JobFailure failure = failure_of([&] { transport.exchange({}, std::span(&recv, 1)); });
      if (std::string(failure.what()).find("rank 0 is lost") != std::string::npos) failures.fetch_add(1);
    }
  });
  CHECK(failures.load() == 2);
  CHECK(latency_ms.load() < 1000);
}

TEST_CASE("transport: a silent peer is lost after the timeout") {
  std::atomic<int> named{0};
  std::atomic<bool> done{false};
  run_gang(2,
           [&](Transport& transport) {
             std::byte byte[1];
             const RecvPart recv{1, byte};
             if (transport.rank() == 1) {
               while (!done.load()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
               return;
             }
             const auto start = Clock::now();
             const JobFailure failure = failure_of([&] { transport.exchange({}, std::span(&recv, 1)); });
             done = true;
             const double elapsed_ms = milliseconds_since(start);
             if (elapsed_ms >= 200 && elapsed_ms < 2000 &&
                 std::string(failure.what()).find("rank 1 is lost: silent") != std::string::npos) {
               named.fetch_add(1);
             }
           },
           {.silence_timeout_ms = 200});
  CHECK(named.load() == 1);
}

TEST_CASE("transport: survivors name a killed process within a second") {
  std::vector<TcpListener> listeners;
  TcpGang gang{.generation = "kill:1"};
  for (int rank = 0; rank < 3; ++rank) {
    listeners.emplace_back("127.0.0.1");
    gang.addresses.push_back(listeners.back().address());
  }
  const auto join = [&](int rank) {
    TcpGang own = gang;
    own.rank = rank;
    return connect_tcp(std::move(listeners[size_t(rank)]), own);
  };
  const pid_t child = fork();
  if (child == 0) {
    // The child only talks until it is killed; its copies of the other listeners must not keep them open.
    for (int rank = 0; rank < 2; ++rank) close(listeners[size_t(rank)].release());
    const auto transport = join(2);
    for (;;) {
      try {
        all_to_all(*transport, 1000);
      } catch (...) {
        _exit(1);
      }
    }
  }
  std::atomic<Clock::time_point> killed{Clock::time_point::max()};
  std::atomic<int> named{0};
  std::atomic<double> worst_ms{0};
  std::vector<std::thread> survivors;
  for (int rank = 0; rank < 2; ++rank) {
    survivors.emplace_back([&, rank] {
      const auto transport = join(rank);
      const JobFailure failure = failure_of([&] {
        for (;;) all_to_all(*transport, 1000);
      });
      worst_ms = std::max(worst_ms.load(), milliseconds_since(killed.load()));
      if (failure.cause() == FailureCause::peer_lost) named.fetch_add(1);
    });
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  killed = Clock::now();
  kill(child, SIGKILL);
  for (std::thread& survivor : survivors) survivor.join();
  waitpid(child, nullptr, 0);
  CHECK(named.load() == 2);
  CHECK(worst_ms.load() < 1000);
  MESSAGE("a killed peer was detected by all survivors in " << worst_ms.load() << " ms");
}

TEST_CASE("transport: a peer that dies between exchanges is found by every survivor at its next one") {
  std::vector<TcpListener> listeners;
  TcpGang gang{.generation = "idle:1"};
  for (int rank = 0; rank < 3; ++rank) {
    listeners.emplace_back("127.0.0.1");
    gang.addresses.push_back(listeners.back().address());
  }
  const auto join = [&](int rank) {
    TcpGang own = gang;
    own.rank = rank;
    return connect_tcp(std::move(listeners[size_t(rank)]), own);
  };
  const pid_t child = fork();
  if (child == 0) {
    for (int rank = 0; rank < 2; ++rank) close(listeners[size_t(rank)].release());
    try {
      const auto transport = join(2);
      all_to_all(*transport, 1000);
      for (;;) pause();
    } catch (...) {
      _exit(1);
    }
  }
  std::atomic<int> ready{0}, named{0};
  std::atomic<bool> dead{false};
  std::atomic<double> worst_ms{0};
  std::vector<std::thread> survivors;
  for (int rank = 0; rank < 2; ++rank) {
    survivors.emplace_back([&, rank] {
      const auto transport = join(rank);
      all_to_all(*transport, 1000);
      ready.fetch_add(1);
      while (!dead.load()) std::this_thread::sleep_for(std::chrono::milliseconds(1));  // computes its lanes
      const auto start = Clock::now();
      const JobFailure failure = failure_of([&] { all_to_all(*transport, 1000); });
      worst_ms = std::max(worst_ms.load(), milliseconds_since(start));
      // The second to look may hear of the first one's leaving instead.
      if (failure.cause() == FailureCause::peer_lost) named.fetch_add(1);
    });
  }
  while (ready.load() < 2) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  dead = true;
  for (std::thread& survivor : survivors) survivor.join();
  CHECK(named.load() == 2);
  CHECK(worst_ms.load() < 1000);
}

TEST_CASE("transport: while an exchange waits, it tells for whom") {
  std::atomic<bool> seen{false};
  std::atomic<int> waiting_for{-1};
  run_gang(3, [&](Transport& transport) {
    if (transport.rank() == 0) transport.tell_waiting(&waiting_for);
    if (transport.rank() == 2) {  // the straggler: rank 1's bytes come at once
      const auto deadline = Clock::now() + std::chrono::seconds(4);
      while (waiting_for.load() != 2 && Clock::now() < deadline) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      seen = waiting_for.load() == 2;
    }
    all_to_all(transport, 1000);
  });
  CHECK(seen.load());
  CHECK(waiting_for.load() == -1);
}

TEST_CASE("transport: wildcard and public addresses are refused, as is nonsense") {
  for (const char* host : {"0.0.0.0", "8.8.8.8", "::", "no such host"}) {
    CAPTURE(host);
    CHECK(failure_of([&] { TcpListener listener(host); }).cause() == FailureCause::bad_input);
  }
  TcpListener listener("127.0.0.1");
  CHECK(listener.address().starts_with("127.0.0.1:"));
  CHECK(failure_of([&] {
          connect_tcp(std::move(listener), {.generation = "g", .rank = 1, .addresses = {"nowhere", "x"}});
        }).cause() == FailureCause::bad_input);
}

}  // namespace collimate
