// How a rank of `tune` runs its lanes in the memory there is. No byte of a result depends on it.
//
// 1. What is short of memory first makes its activations again in the backward, then runs fewer lanes at once. A lane
//    itself is never made smaller: that would change its sums.
#pragma once

#include <cstdint>

namespace collimate {

enum class Recompute { automatic, on, off };

// COLLIMATE_RECOMPUTE: "auto" (the default), "on" or "off"; JobFailure(bad_input) for anything else. A job's own wish
// to save memory goes before it.
Recompute recompute_setting();

struct LaneMemory {
  int64_t kept_bytes = 0;        // of a lane that keeps its activations, gradient included
  int64_t recomputed_bytes = 0;  // of one that makes them again
  int64_t available_bytes = 0;   // that this rank may count on
  int lanes_wanted = 1;          // at once, were there no bound
};
struct LanePlan {
  bool recompute = false;
  int at_once = 1;
};
LanePlan plan_lanes(const LaneMemory& memory, Recompute setting);

}  // namespace collimate
