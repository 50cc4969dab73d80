// A gang of threads over loopback TCP, for tests.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "collective/transport.h"

namespace collimate {

struct GangOptions {
  std::string generation = "job:1";
  int connect_timeout_ms = 5000;
  int silence_timeout_ms = 5000;
};

// Runs body(transport, its gang) on one thread a rank; rethrows the first failure after all have ended.
inline void run_connected(int world, const std::function<void(std::unique_ptr<Transport>, const TcpGang&)>& body,
                          const GangOptions& options = {}) {
  std::vector<TcpListener> listeners;
  TcpGang gang{.generation = options.generation,
               .connect_timeout_ms = options.connect_timeout_ms,
               .silence_timeout_ms = options.silence_timeout_ms};
  for (int rank = 0; rank < world; ++rank) {
    listeners.emplace_back("127.0.0.1");
    gang.addresses.push_back(listeners.back().address());
  }
  std::vector<std::exception_ptr> errors(static_cast<size_t>(world));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        TcpGang own = gang;
        own.rank = rank;
        body(connect_tcp(std::move(listeners[static_cast<size_t>(rank)]), own), own);
      } catch (...) {
        errors[static_cast<size_t>(rank)] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

inline void run_gang(int world, const std::function<void(Transport&)>& body, const GangOptions& options = {}) {
  run_connected(world, [&](std::unique_ptr<Transport> transport, const TcpGang&) { body(*transport); }, options);
}

}  // namespace collimate
