// Joining, leaving, waiting.
#include "core/gang_member.h"

#include <utility>

#include "core/accelerator.h"
#include "core/failure.h"
#include "core/job.h"

namespace collimate {

const char* park_reason_name(ParkReason reason) {
  switch (reason) {
    case ParkReason::peer_lost:
      return "peer_lost";
    case ParkReason::asked:
      return "asked";
    case ParkReason::done:
      return "done";
  }
  return "peer_lost";
}

void GangMember::join(NextGang next) {
  if (!next.gang) return;
  next.gang->cancelled = &control_.cancelled();
  transport_ = connect_tcp(std::move(*next.listener), *next.gang);
  if (accelerator() != nullptr) transport_ = accelerator()->connect(std::move(transport_), *next.gang);
  transport_->tell_waiting(&host_.progress().waiting_for);
  control_.attach(transport_.get());
  host_.on_log("info", "rank " + std::to_string(next.gang->rank) + " of " +
                           std::to_string(next.gang->addresses.size()) + " joined over " + transport_->description() +
                           "; tensor traffic is not encrypted");
}

void GangMember::leave() {
  control_.attach(nullptr);
  transport_.reset();
}

Parked GangMember::parked_by(const std::string& message) const {
  return {park_requested() ? ParkReason::asked : ParkReason::peer_lost, message};
}

void GangMember::start(NextGang first) {
  try {
    join(std::move(first));
  } catch (const JobFailure& failure) {
    if (host_.aborted()) throw JobAborted();
    if (failure.cause() != FailureCause::peer_lost || !regroups()) throw;
    parked_ = parked_by(failure.what());
  }
}

std::optional<Parked> GangMember::take_parked() { return std::exchange(parked_, std::nullopt); }

void GangMember::regroup(int64_t step, Parked parked) {
  for (;;) {
    leave();
    if (host_.aborted()) throw JobAborted();
    host_.progress().step.store(step);
    host_.progress().enter(JobPhase::parked);
    control_.begin_parking();
    host_.on_parked(step, parked.reason, parked.message);
    std::optional<NextGang> next = control_.wait_for_gang();
    if (!next) throw JobAborted();
    host_.progress().enter(JobPhase::starting);
    try {
      join(std::move(*next));
      return;
    } catch (const JobFailure& failure) {
      // An address that does not resolve may do so next time; nothing here is the state's fault.
      parked = parked_by(failure.what());
    }
  }
}

}  // namespace collimate
