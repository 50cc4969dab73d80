// Bench: the lane reduction of a 64 MiB gradient over loopback TCP, one process a rank.
//
// It measures the reduction and its exchange on one machine; it does not measure a network, nor the computing of lanes.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include "collective/transport.h"
#include "core/lanes.h"
#include "core/pool.h"

namespace {

constexpr int64_t kElements = int64_t{16} << 20;
constexpr int kRepeats = 12;

// The time of reduce() alone, per repeat, on this rank.
std::vector<double> run_rank(collimate::TcpListener listener, const collimate::TcpGang& gang, int lanes) {
  using Clock = std::chrono::steady_clock;
  const auto transport = collimate::connect_tcp(std::move(listener), gang);
  collimate::Pool pool(1);
  const auto backend = collimate::ops_on_processor(pool);
  collimate::LaneReducer reducer({.lanes = lanes,
                                  .elements = kElements,
                                  .scalars = 1,
                                  .transport = transport.get(),
                                  .pool = &pool,
                                  .backend = backend.get()});
  std::vector<double> milliseconds;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    reducer.compute(1, [&](const collimate::LaneReducer::Lane& lane) {
      std::fill(lane.gradient.begin(), lane.gradient.end(), static_cast<float>(gang.rank + 1));
      return std::vector<double>{1.0};
    });
    // A barrier, so that the clock starts when all ranks have their lanes.
    std::vector<std::byte> bytes(gang.addresses.size());
    std::vector<collimate::SendPart> sends;
    std::vector<collimate::RecvPart> recvs;
    for (int peer = 0; peer < transport->world(); ++peer) {
      if (peer == transport->rank()) continue;
      sends.push_back({peer, std::span(bytes).subspan(static_cast<size_t>(transport->rank()), 1)});
      recvs.push_back({peer, std::span(bytes).subspan(static_cast<size_t>(peer), 1)});
    }
    transport->exchange(sends, recvs);
    const auto start = Clock::now();
    reducer.reduce(repeat, 0);
    milliseconds.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  }
  return milliseconds;
}

void bench(int world, int lanes) {
  std::vector<collimate::TcpListener> listeners;
  collimate::TcpGang gang{.generation = "bench"};
  for (int rank = 0; rank < world; ++rank) {
    listeners.emplace_back("127.0.0.1");
    gang.addresses.push_back(listeners.back().address());
  }
  for (int rank = 0; rank < world; ++rank) {
    if (fork() != 0) continue;
    gang.rank = rank;
    std::vector<double> times = run_rank(std::move(listeners[static_cast<size_t>(rank)]), gang, lanes);
    times.erase(times.begin(), times.begin() + 2);  // the first touch pages in
    std::sort(times.begin(), times.end());
    if (rank == 0) {
      std::printf("reduce 64 MiB, %d ranks, %d lanes: median %.1f ms, best %.1f ms\n", world, lanes,
                  times[times.size() / 2], times.front());
      std::fflush(stdout);
    }
    _exit(0);
  }
  while (wait(nullptr) > 0) {
  }
}

}  // namespace

int main() {
  bench(2, 2);
  bench(3, 4);
}
