// Training in lanes, in one gang after another: the course of `tune` and `dense`.
//
// 1. State (parameters, moments, loss curve) is replicated: every rank applies the same update to the same bytes, and
//    every gang begins by comparing them.
// 2. A step is: own lanes -> reduction (gradient, losses, control flags) -> check -> update -> report -> agreed
//    control. A step whose reduction breaks leaves no trace.
// 3. Checkpoints hold the state after a whole step and nothing about ranks, hosts or time.
// 4. Where the job can regroup, only rank 0 finishes; the others park with the last step applied, until its result is
//    safe or one of them is rank 0.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/job.h"
#include "core/jobs/lane_plan.h"
#include "core/jobs/tune_state.h"
#include "core/lanes.h"
#include "core/model/decoder_weights.h"
#include "core/model/optimizer.h"
#include "core/model/training_examples.h"

namespace collimate {

struct StepBatch {
  std::vector<int64_t> examples;
  int64_t terms = 0, tokens = 0;  // of the loss's mean; of the input
};

struct LanedSettings {
  int64_t steps = 0, batch_sequences = 0;
  int lanes = 1;
  int64_t reduced_elements = 0;  // of the flat gradient that lanes give
  int sums = 1;                  // that a lane answers
  LearningRateSchedule schedule;
};

// Where a lane's time went: making its batch, and its two passes.
struct LaneSeconds {
  double data = 0, forward = 0, backward = 0;
};

// What a kind of job brings.
class LanedModel {
 public:
  virtual ~LanedModel() = default;
  virtual LanedSettings settings() const = 0;
  virtual TuneState& state() = 0;
  // Called in the order of steps; a step may come again.
  virtual StepBatch batch(int64_t step) = 0;
  // What lanes share in the coming step, made once for all of them.
  virtual void begin_step() {}
  // Adds the lane's gradient of (sum of losses / terms of the batch); answers the sum of losses, and others that the
  // kind has.
  virtual std::vector<double> run_lane(const StepBatch& batch, const LaneReducer::Lane& lane, LaneSeconds& seconds) = 0;
  // What a step's report has beside what all kinds have; `sums` over all lanes.
  virtual void add_metrics(const StepBatch&, std::span<const double> /*sums*/, std::map<std::string, double>&) const {}
  // The gradient of all trained elements from the sum over lanes, both in the backend's memory; `sum` is valid until
  // the next step.
  virtual std::span<const float> whole_gradient(std::span<const float> sum) { return sum; }
  // The parameters are others than before: an update was applied, or a peer's state taken.
  virtual void parameters_changed() {}
  // Memory for lanes of this range from the present step on; answers how many run at once.
  virtual int prepare_lanes(const LaneRange& range) = 0;
  virtual void release_lanes() = 0;
  // The parameters on the host are those of the last step.
  virtual JobOutcome result() = 0;
};

double seconds_since(std::chrono::steady_clock::time_point start);

// Starts from the model's state, which is new, resumed, or of step -1. Throws JobFailure or JobAborted.
JobOutcome train_in_lanes(JobContext& context, LanedModel& model);

// How lanes of a decoder are run, for LanedModel::prepare_lanes; logs what memory forces.
struct DecoderLanes {
  const DecoderWeights& weights;
  LanedSettings settings;
  LaneRange range;
  ExampleOrder::Options order;
  int64_t step = 0;  // the present one
  struct Size {
    int64_t rows = 0, labels = 0;
  };
  std::function<Size(int64_t example)> size_of;
};
LanePlan plan_decoder_lanes(JobContext& context, const DecoderLanes& lanes);

}  // namespace collimate
