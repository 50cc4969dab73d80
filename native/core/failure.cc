// Names of the failure causes, as the orchestrator spells them.
#include "core/failure.h"

namespace collimate {

const char* failure_cause_name(FailureCause cause) {
  switch (cause) {
    case FailureCause::peer_lost:
      return "peer_lost";
    case FailureCause::out_of_memory:
      return "out_of_memory";
    case FailureCause::device_lost:
      return "device_lost";
    case FailureCause::nan_loss:
      return "nan_loss";
    case FailureCause::bad_input:
      return "bad_input";
    case FailureCause::corrupt_artifact:
      return "corrupt_artifact";
    case FailureCause::store_unavailable:
      return "store_unavailable";
    case FailureCause::nondeterminism:
      return "nondeterminism";
    case FailureCause::internal:
      return "internal";
  }
  return "internal";
}

}  // namespace collimate
