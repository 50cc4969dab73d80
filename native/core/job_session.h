// One attempt at a job as a host runs it: the spec from JSON, the gang joined, the control flags, the run.
#pragma once

#include <optional>

#include "collective/transport.h"
#include "core/job.h"
#include "core/job_control.h"
#include "core/json.h"

namespace collimate {

// {kind, recipe, inputs: {name: path}, outputDir, scratchDir, resumeDir?, checkpointIntervalSteps?, stopStep?,
// threads?, elastic?, joinSurvivors?, memorySaving?}
JobSpec job_spec_from_json(const Json& json);
// {rank, world, generation, addresses}; nothing for null or a world of one.
std::optional<TcpGang> gang_from_json(const Json& json);

// Joins the gang (when there is one) and runs the job. The listener is used up; it may be empty for a gang of one.
JobOutcome run_attempt(const JobSpec& spec, JobHost& host, JobControl& control, const std::optional<TcpGang>& gang,
                       std::optional<TcpListener> listener);

// {kind: "finished" | "stopped", step, outputs: {name: path}, summary}
Json job_outcome_to_json(const JobOutcome& outcome);

}  // namespace collimate
