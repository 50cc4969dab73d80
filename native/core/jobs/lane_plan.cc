// The choice, and the setting that overrides half of it.
#include "core/jobs/lane_plan.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "core/failure.h"

namespace collimate {

Recompute recompute_setting() {
  const char* value = std::getenv("COLLIMATE_RECOMPUTE");
  const std::string name = value == nullptr || *value == '\0' ? "auto" : value;
  if (name == "auto") return Recompute::automatic;
  if (name == "on") return Recompute::on;
  if (name == "off") return Recompute::off;
  fail_bad_input("COLLIMATE_RECOMPUTE is \"" + name +
                 "\"; expected \"auto\" (recompute activations when memory is short), \"on\" or \"off\"");
}

LanePlan plan_lanes(const LaneMemory& memory, Recompute setting) {
  const bool fits = memory.kept_bytes <= memory.available_bytes / memory.lanes_wanted;
  const bool recompute = setting == Recompute::on || (setting == Recompute::automatic && !fits);
  const int64_t lane = std::max<int64_t>(recompute ? memory.recomputed_bytes : memory.kept_bytes, 1);
  const int64_t room = std::max<int64_t>(memory.available_bytes / lane, 1);
  return {.recompute = recompute, .at_once = static_cast<int>(std::min<int64_t>(memory.lanes_wanted, room))};
}

}  // namespace collimate
