// A job's place in its gang, and the way from one gang to the next.
//
// 1. The transport belongs to it and is closed before the host hears that the job parked: peers notice at once.
// 2. A gang that cannot be joined leaves the job parked again; only an abort, or a failure that no other gang would
//    mend, gets out.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "collective/transport.h"
#include "core/job_control.h"
#include "core/job_progress.h"

namespace collimate {

class JobHost;

enum class ParkReason { peer_lost, asked, done };
const char* park_reason_name(ParkReason reason);

// Why a job is without a gang.
struct Parked {
  ParkReason reason = ParkReason::peer_lost;
  std::string message;
};

class GangMember {
 public:
  GangMember(JobHost& host, JobControl& control) : host_(host), control_(control) {}
  ~GangMember() { leave(); }
  GangMember(const GangMember&) = delete;
  GangMember& operator=(const GangMember&) = delete;

  Transport* transport() { return transport_.get(); }  // null: alone, or parked
  bool regroups() const { return control_.regroups(); }
  bool park_requested() const { return control_.park_requested(); }

  // Joins the gang that the attempt starts with. Where the job can regroup, a failure is kept for take_parked().
  void start(NextGang first);
  std::optional<Parked> take_parked();
  // Leaves the gang, tells the host that the job is parked with `step` updates applied (-1: without state), and comes
  // back in the next gang. Throws JobAborted.
  void regroup(int64_t step, Parked parked);

 private:
  void join(NextGang next);
  void leave();
  Parked parked_by(const std::string& message) const;

  JobHost& host_;
  JobControl& control_;
  std::unique_ptr<Transport> transport_;
  std::optional<Parked> parked_;
};

}  // namespace collimate
