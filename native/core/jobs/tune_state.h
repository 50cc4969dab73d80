// What a rank of `tune` would have to make again if it were lost: parameters, moments, the loss curve, the step.
//
// 1. Replicated: a function of the job and the step alone. So is a checkpoint, which is this and nothing else.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <vector>

#include "core/jobs/state_sync.h"
#include "core/model/optimizer.h"
#include "core/model/parameters.h"

namespace collimate {

struct TuneState {
  TuneState(Parameters initial, OpsBackend& backend, const Optimizer::Options& options)
      : parameters(std::move(initial)), optimizer(parameters, backend, options) {}
  TuneState(const TuneState&) = delete;  // the optimizer points into it
  TuneState& operator=(const TuneState&) = delete;

  Parameters parameters;
  Optimizer optimizer;
  std::vector<float> losses;
  int64_t step = 0;  // updates applied; -1: these are not a gang's parameters

  // The trained parameters, the moments, the curve and the step, in place on the host. When they are changed there,
  // optimizer.to_backend() is due.
  ReplicatedState replicated();
  // Writes a checkpoint of the state as it is now, whenever it is called.
  std::function<void(const std::filesystem::path& folder)> snapshot();
  // JobFailure(corrupt_artifact) unless the folder is a checkpoint of 0 to `steps` steps.
  void resume(const std::filesystem::path& folder, int64_t steps);
};

}  // namespace collimate
