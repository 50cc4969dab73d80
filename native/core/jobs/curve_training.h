// What trainings by one worker have in common (`rqvae`, `align_codes`): flat parameters with Adam's moments, the loss
// of every step, and the loop around a step.
//
// 1. The state after a step is these numbers alone, and a checkpoint holds all of them; the step number gives the rest.
// 2. A gang of one: control flags are taken from the host directly.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/curve_state.h"
#include "core/job.h"

namespace collimate {

struct CurveTraining {
  int64_t steps = 0;
  const char* name = nullptr;                               // of the checkpoint's tensor file, without its ending
  const CurveState* state = nullptr;                        // as run_step leaves it
  std::function<std::map<std::string, double>()> run_step;  // one more; its metrics
};
// Steps to the end; false where the host asked to stop on the way, after a checkpoint of that step.
bool run_curve_training(JobContext& context, const CurveTraining& training);

// What such a checkpoint holds. JobFailure(corrupt_artifact) or (bad_input) where it is none, or of another size.
struct CurveShape {
  int64_t steps = 0, elements = 0;
};
CurveState read_curve_checkpoint(const std::filesystem::path& folder, const char* name, const CurveShape& shape);

}  // namespace collimate
