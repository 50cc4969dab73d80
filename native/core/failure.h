// The one exception type that a job ends with; its cause decides what the orchestrator does next.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>

namespace collimate {

// Names equal FailureCause in proto/collimate/v1/common.proto without the prefix, in lower case.
enum class FailureCause {
  peer_lost,
  out_of_memory,
  device_lost,
  nan_loss,
  bad_input,
  corrupt_artifact,
  store_unavailable,
  nondeterminism,
  internal,
};

const char* failure_cause_name(FailureCause cause);

class JobFailure : public std::runtime_error {
 public:
  JobFailure(FailureCause cause, const std::string& message) : std::runtime_error(message), cause_(cause) {}
  // `step`: updates applied when it happened.
  JobFailure(FailureCause cause, const std::string& message, int64_t step)
      : std::runtime_error(message), cause_(cause), step_(step) {}
  FailureCause cause() const { return cause_; }
  std::optional<int64_t> step() const { return step_; }

 private:
  FailureCause cause_;
  std::optional<int64_t> step_;
};

// Message form: what was expected, what came, what to do.
[[noreturn]] inline void fail_bad_input(const std::string& message) {
  throw JobFailure(FailureCause::bad_input, message);
}

}  // namespace collimate
