// The steps of training in lanes, and what happens between them.
#include "core/jobs/laned_training.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <new>
#include <optional>

#include "core/failure.h"
#include "core/jobs/regrouping.h"
#include "core/jobs/state_sync.h"
#include "core/model/decoder.h"

namespace collimate {

namespace {

constexpr double kMemoryShare = 0.5;  // of what is free; other workers may be at the same decision

class Training {
 public:
  Training(JobContext& context, LanedModel& model)
      : context_(context), model_(model), settings_(model.settings()), state_(model.state()) {}

  JobOutcome run() {
    try {
      return run_in_gangs(context_, {.step = [&] { return state_.step; }, .in_gang = [&] { return run_in_gang(); }});
    } catch (const std::bad_alloc&) {
      throw JobFailure(FailureCause::out_of_memory,
                       context_.spec().kind + " ran out of memory after step " + std::to_string(state_.step) +
                           "; use a larger machine, memorySaving 1 or 2, or fewer sequences a lane",
                       state_.step);
    }
  }

 private:
  GangEnd run_in_gang() {
    enter_gang();
    while (state_.step < settings_.steps) {
      uint32_t control = train_one_step();
      control |= context_.control_due(state_.step);
      if (state_.step == settings_.steps) break;
      if ((control & (kControlStop | kControlCheckpoint)) != 0 || context_.checkpoint_due(state_.step))
        write_checkpoint();
      if ((control & kControlStop) != 0) return {stopped(), {}};
      if ((control & kControlRegroup) != 0 && context_.member() != nullptr) {
        context_.finish_checkpoints();
        return {std::nullopt, {ParkReason::asked, "the ranks agreed to regroup"}};
      }
    }
    if (context_.rank() != 0 && context_.member() != nullptr) {
      return {std::nullopt, {ParkReason::done, "all steps are applied; rank 0 writes the result"}};
    }
    return {finished(), {}};
  }

  // The state from the gang, this rank's share of the lanes, and memory for them.
  void enter_gang() {
    model_.release_lanes();
    reducer_.reset();  // first, so that what it held counts as free
    reducer_.emplace(LaneReducer::Options{.lanes = settings_.lanes,
                                          .elements = settings_.reduced_elements,
                                          .scalars = settings_.sums,
                                          .transport = context_.transport(),
                                          .pool = &context_.pool(),
                                          .backend = &context_.ops()});
    if (synchronise(context_.transport(), context_.pool(), state_.replicated())) {
      state_.optimizer.to_backend();
      model_.parameters_changed();
    }
    if (state_.step < settings_.steps) lanes_at_once_ = model_.prepare_lanes(reducer_->range());
    progress().step.store(state_.step);
    context_.host().on_ready(state_.step);
  }

  // Returns the control flags that the ranks agreed on.
  uint32_t train_one_step() {
    const auto begun = std::chrono::steady_clock::now();
    const StepBatch batch = model_.batch(state_.step);
    const double batch_seconds = seconds_since(begun);
    slot_seconds_.assign(static_cast<size_t>(lanes_at_once_), {});
    progress().enter(JobPhase::computing);
    const auto started = std::chrono::steady_clock::now();
    context_.throw_if_interrupted();
    model_.begin_step();
    reducer_->compute(lanes_at_once_, [&](const LaneReducer::Lane& lane) -> std::vector<double> {
      context_.throw_if_interrupted();
      return model_.run_lane(batch, lane, slot_seconds_[static_cast<size_t>(lane.slot)]);
    });
    const double compute_seconds = seconds_since(started);
    progress().enter(JobPhase::reducing);
    const auto computed = std::chrono::steady_clock::now();
    const LaneReducer::Result sum = reduce();
    const double reduce_seconds = seconds_since(computed);
    progress().enter(JobPhase::updating);
    const auto reduced = std::chrono::steady_clock::now();
    const std::span<const float> gradient = model_.whole_gradient(sum.gradient);
    const double loss = sum.scalars[0] / static_cast<double>(batch.terms);
    const double norm = std::sqrt(context_.ops().sum_squares(gradient.data(), static_cast<int64_t>(gradient.size())));
    check_finite(loss, norm, batch);
    const double learning_rate = settings_.schedule.at(state_.step);
    state_.optimizer.apply(
        {.step = state_.step, .learning_rate = learning_rate, .gradient = gradient, .gradient_norm = norm});
    model_.parameters_changed();
    const double optimizer_seconds = seconds_since(reduced);
    state_.losses.push_back(static_cast<float>(loss));
    ++state_.step;
    progress().step.store(state_.step);
    const LaneSeconds lanes = mean_over_slots();
    std::map<std::string, double> metrics{{"loss", loss},
                                          {"learning_rate", learning_rate},
                                          {"grad_norm", norm},
                                          {"tokens", static_cast<double>(batch.tokens)},
                                          {"samples", static_cast<double>(batch.examples.size())},
                                          {"compute_seconds", compute_seconds},
                                          {"data_seconds", batch_seconds + lanes.data},
                                          {"forward_seconds", lanes.forward},
                                          {"backward_seconds", lanes.backward},
                                          {"reduce_seconds", reduce_seconds},
                                          {"optimizer_seconds", optimizer_seconds}};
    model_.add_metrics(batch, sum.scalars, metrics);
    context_.host().on_step(state_.step, settings_.steps, metrics);
    return sum.control;
  }

  // Slots run side by side, so their mean is about the wall time.
  LaneSeconds mean_over_slots() const {
    LaneSeconds mean;
    const double share = 1.0 / static_cast<double>(std::max<size_t>(slot_seconds_.size(), 1));
    for (const LaneSeconds& slot : slot_seconds_) {
      mean.data += share * slot.data;
      mean.forward += share * slot.forward;
      mean.backward += share * slot.backward;
    }
    return mean;
  }

  // A flag that the host has handed out must not go under with a reduction that breaks.
  LaneReducer::Result reduce() {
    const uint32_t control = context_.host().take_control() | untold_control_;
    untold_control_ = control & kControlCheckpoint;  // the host keeps the others itself
    LaneReducer::Result sum = reducer_->reduce(state_.step, control);
    untold_control_ = 0;
    return sum;
  }

  void check_finite(double loss, double norm, const StepBatch& batch) const {
    if (std::isfinite(loss) && std::isfinite(norm)) return;
    const std::vector<int64_t>& all = batch.examples;
    const auto shown = static_cast<std::ptrdiff_t>(std::min<size_t>(all.size(), 32));
    const std::string names =
        Json(std::vector<int64_t>(all.begin(), all.begin() + shown)).dump() + (all.size() > 32 ? " …" : "");
    throw JobFailure(FailureCause::nan_loss,
                     "step " + std::to_string(state_.step) + ": loss " + std::to_string(loss) + ", gradient norm " +
                         std::to_string(norm) + "; expected finite numbers; examples " + names +
                         "; lower learningRate or look at these examples",
                     state_.step);
  }

  void write_checkpoint() {
    if (context_.rank() == 0) context_.write_checkpoint(state_.step, state_.snapshot());
  }

  JobOutcome stopped() {
    progress().enter(JobPhase::finishing);
    context_.finish_checkpoints();
    JobOutcome outcome;
    outcome.kind = JobOutcome::Kind::stopped;
    outcome.step = state_.step;
    return outcome;
  }

  JobOutcome finished() {
    progress().enter(JobPhase::finishing);
    context_.finish_checkpoints();
    state_.optimizer.to_host();
    return model_.result();
  }

  JobProgress& progress() { return context_.host().progress(); }

  JobContext& context_;
  LanedModel& model_;
  const LanedSettings settings_;
  TuneState& state_;
  std::optional<LaneReducer> reducer_;  // of the gang that this rank is in
  int lanes_at_once_ = 1;
  std::vector<LaneSeconds> slot_seconds_;
  uint32_t untold_control_ = 0;  // asked for in a reduction that broke
};

// The most rows and the most labels that a lane of this rank has in the coming epoch.
Decoder::PassShape largest_lane(const DecoderLanes& lanes) {
  ExampleOrder order(lanes.order);
  const int64_t batch_sequences = lanes.order.batch_sequences;
  const int64_t epoch_steps = lanes.order.examples / batch_sequences + 1;
  Decoder::PassShape largest;
  for (int64_t step = lanes.step; step < std::min(lanes.settings.steps, lanes.step + epoch_steps); ++step) {
    const std::vector<int64_t> batch = order.batch(step);
    for (int lane = 0; lane < lanes.range.count; ++lane) {
      const LaneSlice slice = lane_slice(batch_sequences, lanes.settings.lanes, lanes.range.first + lane);
      int64_t rows = 0, labels = 0;
      for (int64_t j = slice.begin; j < slice.end; ++j) {
        const DecoderLanes::Size size = lanes.size_of(batch[static_cast<size_t>(j)]);
        rows += size.rows;
        labels += size.labels;
      }
      largest.rows = std::max(largest.rows, rows);
      largest.labels = std::max(largest.labels, labels);
    }
  }
  return largest;
}

}  // namespace

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

JobOutcome train_in_lanes(JobContext& context, LanedModel& model) { return Training(context, model).run(); }

// A lane to each thread wastes less than all threads on one lane, if there are lanes enough and memory for their
// activations.
LanePlan plan_decoder_lanes(JobContext& context, const DecoderLanes& lanes) {
  // A device takes one lane after the other, each with all of it.
  const bool on_device = !context.ops().is_host();
  const int threads = on_device ? 1 : context.pool().threads();
  // A device keeps the sums that wait for their siblings where it keeps activations.
  const int64_t gradients = on_device ? 1 + std::bit_width(static_cast<unsigned>(lanes.range.count)) : 1;
  const int64_t gradient_bytes = gradients * lanes.settings.reduced_elements * static_cast<int64_t>(sizeof(float));
  Decoder::PassShape shape = largest_lane(lanes);
  shape.on_device = on_device;
  shape.bf16_rows = lanes.weights.reads_bf16_rows();
  // Lanes of later epochs may be somewhat larger.
  const auto lane_bytes = [&](bool recompute) {
    shape.recompute = recompute;
    return Decoder::workspace_bytes(lanes.weights.parameters(), shape) / 4 * 5 + gradient_bytes;
  };
  const LaneMemory memory{
      .kept_bytes = lane_bytes(false),
      .recomputed_bytes = lane_bytes(true),
      .available_bytes = static_cast<int64_t>(kMemoryShare * static_cast<double>(context.ops().available_bytes())),
      .lanes_wanted = lanes.range.count < threads ? 1 : threads};
  const int saving = context.spec().memory_saving;
  LanePlan plan = plan_lanes(memory, saving > 0 ? Recompute::on : recompute_setting());
  if (saving > 1) plan.at_once = 1;
  if (plan.recompute) {
    context.host().on_log("info", context.spec().kind + ": activations are recomputed in the backward; a lane needs " +
                                      std::to_string(memory.recomputed_bytes >> 20) + " MiB instead of " +
                                      std::to_string(memory.kept_bytes >> 20) + " MiB, and " +
                                      std::to_string(memory.available_bytes >> 20) + " MiB may be used");
  }
  return plan;
}

}  // namespace collimate
