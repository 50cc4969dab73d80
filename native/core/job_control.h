// What a host does to a running attempt, from any thread: control flags, abort, and the gangs of a job that can change
// them.
//
// 1. abort() ends the attempt wherever it is: while the gang forms, inside a collective, parked, or at its next step.
// 2. A job is parked from begin_parking() to rejoin(): only then is the next gang taken. Parking clears park() and
//    kControlRegroup, whichever of them, or neither, led to it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>

#include "collective/transport.h"

namespace collimate {

// What a host may ask of a running job. Bits, because ranks combine them by OR in the reduction's header.
enum ControlFlag : uint32_t {
  kControlNone = 0,
  kControlCheckpoint = 1u << 0,  // write a checkpoint at the next agreed step
  kControlStop = 1u << 1,        // checkpoint, then leave
  kControlRegroup = 1u << 2,     // park after the next agreed step, where the job can regroup
};

struct NextGang {
  std::optional<TcpGang> gang;  // nothing: alone
  std::optional<TcpListener> listener;
};

class JobControl {
 public:
  void request(uint32_t flags) { flags_.fetch_or(flags); }
  // Clears kControlCheckpoint; kControlStop stays, kControlRegroup until the job parks.
  uint32_t take() { return flags_.fetch_and(~static_cast<uint32_t>(kControlCheckpoint)); }
  void abort();
  bool aborted() const { return aborted_.load(); }
  // The transport that abort() and park() must wake; null detaches it.
  void attach(Transport* transport);

  // Called once, before the attempt starts, where the host answers a parked job and the job can park.
  void allow_regrouping() { regroups_.store(true); }
  bool regroups() const { return regroups_.load(); }
  // Leaves the gang as soon as the present computation allows, keeping the state. No effect on a job that is parked or
  // cannot regroup.
  void park();
  bool park_requested() const { return park_requested_.load(); }
  // Names the next gang of a parked job; JobFailure(bad_input) when it is not parked, or for a gang without a listener.
  void rejoin(NextGang next);
  // JobFailure(bad_input) when the job is not parked.
  void check_parked();

  // For the attempt's own thread. True once a gang that is forming should be given up.
  const std::atomic<bool>& cancelled() const { return cancelled_; }
  void begin_parking();
  // Blocks until rejoin(), or nothing once aborted.
  std::optional<NextGang> wait_for_gang();

 private:
  void check_parked_locked() const;

  std::atomic<uint32_t> flags_{0};
  std::atomic<bool> aborted_{false}, park_requested_{false}, cancelled_{false}, regroups_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  Transport* transport_ = nullptr;
  bool parked_ = false;
  std::optional<NextGang> next_;
};

}  // namespace collimate
