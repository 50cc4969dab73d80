// A job that goes on from gang to gang: it keeps its state while it is parked, and its body runs once in each.
//
// 1. A lost peer parks the job where its host regroups; elsewhere the failure leaves as it came.
// 2. What no gang would mend (StateLost, any other cause, an abort) leaves at once.
#pragma once

#include <functional>
#include <optional>

#include "core/gang_member.h"
#include "core/job.h"

namespace collimate {

// How a body's time in one gang ended: with the job's outcome, or parked.
struct GangEnd {
  std::optional<JobOutcome> outcome;
  Parked parked;
};

// `step` answers the updates applied, -1 without state.
struct GangBody {
  std::function<int64_t()> step;
  std::function<GangEnd()> in_gang;
};

JobOutcome run_in_gangs(JobContext& context, const GangBody& body);

}  // namespace collimate
