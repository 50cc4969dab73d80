// From one gang to the next.
#include "core/jobs/regrouping.h"

#include "core/failure.h"
#include "core/jobs/state_sync.h"

namespace collimate {
namespace {

GangEnd run_in_one(JobContext& context, const GangBody& body) {
  GangMember* member = context.member();
  if (member != nullptr) {
    if (std::optional<Parked> parked = member->take_parked()) return {std::nullopt, *parked};
  }
  try {
    return body.in_gang();
  } catch (const StateLost&) {
    throw;
  } catch (const JobFailure& failure) {
    if (failure.cause() != FailureCause::peer_lost || member == nullptr) throw;
    return {std::nullopt, {member->park_requested() ? ParkReason::asked : ParkReason::peer_lost, failure.what()}};
  }
}

}  // namespace

JobOutcome run_in_gangs(JobContext& context, const GangBody& body) {
  for (;;) {
    GangEnd end = run_in_one(context, body);
    if (end.outcome) return std::move(*end.outcome);
    context.member()->regroup(body.step(), std::move(end.parked));
  }
}

}  // namespace collimate
