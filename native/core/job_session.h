// One attempt at a job as a host runs it: the spec from JSON, the gang joined, the control flags, the run.
//
// 1. abort() ends the attempt wherever it is: while the gang forms, inside a collective, or at the job's next step.
#pragma once

#include <atomic>
#include <mutex>
#include <optional>

#include "collective/transport.h"
#include "core/job.h"
#include "core/json.h"

namespace collimate {

class JobControl {
 public:
  void request(uint32_t flags) { flags_.fetch_or(flags); }
  // Clears kControlCheckpoint; kControlStop stays.
  uint32_t take() { return flags_.fetch_and(~static_cast<uint32_t>(kControlCheckpoint)); }
  void abort();
  bool aborted() const { return aborted_.load(); }
  const std::atomic<bool>& cancelled() const { return aborted_; }
  // The transport that abort() must wake; null detaches it.
  void attach(Transport* transport);

 private:
  std::atomic<uint32_t> flags_{0};
  std::atomic<bool> aborted_{false};
  std::mutex mutex_;
  Transport* transport_ = nullptr;
};

// {kind, recipe, inputs: {name: path}, outputDir, scratchDir, resumeDir?, checkpointIntervalSteps?, threads?}
JobSpec job_spec_from_json(const Json& json);
// {rank, world, generation, addresses}; nothing for null or a world of one.
std::optional<TcpGang> gang_from_json(const Json& json);

// Joins the gang (when there is one) and runs the job. The listener is used up; it may be empty for a gang of one.
JobOutcome run_attempt(const JobSpec& spec, JobHost& host, JobControl& control, const std::optional<TcpGang>& gang,
                       std::optional<TcpListener> listener);

// {kind: "finished" | "stopped", step, outputs: {name: path}, summary}
Json job_outcome_to_json(const JobOutcome& outcome);

}  // namespace collimate
