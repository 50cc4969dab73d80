// Where a job is, for a host that looks for hangs and stragglers.
//
// 1. Written by the job's thread, readable from any other at any time; the three values are not one snapshot.
#pragma once

#include <atomic>
#include <cstdint>

namespace collimate {

enum class JobPhase { starting, computing, reducing, updating, parked, finishing };

inline const char* job_phase_name(JobPhase phase) {
  switch (phase) {
    case JobPhase::starting:
      return "starting";
    case JobPhase::computing:
      return "computing";
    case JobPhase::reducing:
      return "reducing";
    case JobPhase::updating:
      return "updating";
    case JobPhase::parked:
      return "parked";
    case JobPhase::finishing:
      return "finishing";
  }
  return "starting";
}

struct JobProgress {
  std::atomic<int64_t> step{0};  // updates applied; -1: none, and no state either
  std::atomic<JobPhase> phase{JobPhase::starting};
  std::atomic<int> waiting_for{-1};  // the lowest rank that an exchange waits for; -1: none

  void enter(JobPhase next) { phase.store(next, std::memory_order_relaxed); }
};

}  // namespace collimate
