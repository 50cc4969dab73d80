// The `tune` job: trains a decoder on packed examples, alone or as one rank of a gang, or of one gang after another.
//
// 1. State (parameters, moments, loss curve) is replicated: every rank applies the same update to the same bytes, and
//    every gang begins by comparing them.
// 2. A step is: own lanes -> reduction (gradient, losses, control flags) -> check -> update -> report -> agreed
//    control. A step whose reduction breaks leaves no trace.
// 3. Checkpoints hold the state after a whole step and nothing about ranks, hosts or time.
// 4. Where the job can regroup, only rank 0 finishes; the others park with the last step applied, until its result is
//    safe or one of them is rank 0.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <new>
#include <optional>

#include "core/failure.h"
#include "core/job.h"
#include "core/jobs/lane_plan.h"
#include "core/jobs/regrouping.h"
#include "core/jobs/state_sync.h"
#include "core/jobs/tune_recipe.h"
#include "core/jobs/tune_state.h"
#include "core/lanes.h"
#include "core/memory.h"
#include "core/model/aligned_rows.h"
#include "core/model/bf16_weights.h"
#include "core/model/decoder.h"
#include "core/model/optimizer.h"
#include "core/model/parameters.h"
#include "core/model/peft_adapter.h"
#include "core/model/training_examples.h"
#include "core/ops.h"
#include "core/safetensors.h"

namespace collimate {

namespace {

constexpr double kMemoryShare = 0.5;  // of what is free; other workers may be at the same decision

struct VocabularySizes {
  int64_t tokens = 0, first_item = 0;
};

VocabularySizes read_vocabulary(const std::filesystem::path& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  const auto sizes = file.i64("sizes", {2});
  if (sizes[0] < 1 || sizes[0] > std::numeric_limits<int32_t>::max() || sizes[1] < 0 || sizes[1] >= sizes[0]) {
    fail_bad_input("vocabulary: expected sizes [vocabulary, first item token] with the second below the first, got [" +
                   std::to_string(sizes[0]) + ", " + std::to_string(sizes[1]) + "]; render the vocabulary again");
  }
  return {sizes[0], sizes[1]};
}

Parameters base_parameters(JobContext& context, const TuneRecipe& recipe, const VocabularySizes& vocabulary) {
  if (recipe.scratch) {
    if (context.has_input("adapter/adapter_config.json") || context.has_input("adapter/adapter_model.safetensors")) {
      fail_bad_input("an adapter was given with recipe.base.kind \"scratch\"; expected \"huggingface\" and the base " +
                     std::string("that the adapter was made for"));
    }
    Parameters parameters({.config = DecoderConfig::from_shape(*recipe.scratch, vocabulary.tokens)});
    initialise_scratch(parameters, recipe.seed);
    return parameters;
  }
  const BaseFiles base = BaseFiles::from_inputs(context.spec().inputs);
  DecoderConfig config = base.read_config();
  const std::optional<PeftAdapter> adapter = PeftAdapter::from_inputs(context.spec().inputs, config);
  if (adapter) adapter->check_agrees(recipe.trainable);
  // Rows that the base lacks are trained even where they are not item tokens: a frozen random row is of no use.
  const int64_t first_trained = std::min(vocabulary.first_item, config.vocabulary);
  config.vocabulary = vocabulary.tokens;
  Parameters::FirstTrainedRows first_rows{.embedding = first_trained, .head = first_trained};
  if (adapter) first_rows = adapter->first_trained_rows(first_trained);
  Parameters parameters({.config = config, .trainable = recipe.trainable, .first_trained_rows = first_rows});
  load_base(parameters, base, recipe.seed);
  if (adapter) {
    adapter->load_into(parameters);
  } else {
    initialise_adapters(parameters, recipe.seed);
  }
  return parameters;
}

Parameters make_parameters(JobContext& context, const TuneRecipe& recipe, const VocabularySizes& vocabulary) {
  Parameters parameters = base_parameters(context, recipe, vocabulary);
  if (!context.has_input("aligned")) return parameters;
  if (context.has_input("adapter/adapter_config.json"))
    fail_bad_input("inputs `aligned` and `adapter/…` both say where token rows begin; expected one of them");
  initialise_aligned_rows(
      context.pool(), parameters,
      {.path = context.input("aligned"), .first_item_token = vocabulary.first_item, .seed = recipe.seed});
  return parameters;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

class Tuner {
 public:
  explicit Tuner(JobContext& context)
      : context_(context),
        recipe_(TuneRecipe::parse(context.recipe())),
        vocabulary_(read_vocabulary(context.input("vocabulary"))),
        examples_(context.input("train_examples"), vocabulary_.tokens),
        order_({.examples = examples_.count(), .batch_sequences = recipe_.batch_sequences, .seed = recipe_.seed}),
        state_(make_parameters(context, recipe_, vocabulary_), recipe_.optimizer) {
    if (context.spec().join_survivors) {
      state_.step = -1;
    } else if (context.spec().resume_dir) {
      state_.resume(*context.spec().resume_dir, recipe_.steps);
    }
    if (recipe_.bf16) {
      bf16_weights_.emplace(state_.parameters, context.pool());
      bf16_weights_->release_frozen(state_.parameters);
    }
  }

  JobOutcome run() {
    try {
      return run_in_gangs(context_, {.step = [&] { return state_.step; }, .in_gang = [&] { return run_in_gang(); }});
    } catch (const std::bad_alloc&) {
      throw JobFailure(FailureCause::out_of_memory,
                       "tune ran out of memory after step " + std::to_string(state_.step) +
                           "; use a larger machine, memorySaving 1 or 2, or fewer sequences a lane",
                       state_.step);
    }
  }

 private:
  GangEnd run_in_gang() {
    enter_gang();
    while (state_.step < recipe_.steps) {
      uint32_t control = train_one_step();
      control |= context_.control_due(state_.step);
      if (state_.step == recipe_.steps) break;
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
    decoders_.clear();
    reducer_.reset();  // first, so that what it held counts as free
    reducer_.emplace(LaneReducer::Options{.lanes = recipe_.lanes,
                                          .elements = state_.parameters.trained_elements(),
                                          .scalars = 1,
                                          .transport = context_.transport(),
                                          .pool = &context_.pool()});
    const bool taken = synchronise(context_.transport(), context_.pool(), state_.replicated());
    if (taken && bf16_weights_) bf16_weights_->refresh(context_.pool());
    if (state_.step < recipe_.steps) choose_lane_plan();
    progress().step.store(state_.step);
    context_.host().on_ready(state_.step);
  }

  // Returns the control flags that the ranks agreed on.
  uint32_t train_one_step() {
    const std::vector<int64_t> batch = order_.batch(state_.step);
    int64_t labels = 0, tokens = 0;
    for (const int64_t example : batch) {
      labels += examples_.labels_of(example);
      tokens += examples_.tokens_of(example);
    }
    progress().enter(JobPhase::computing);
    const auto started = std::chrono::steady_clock::now();
    context_.throw_if_interrupted();
    reducer_->compute(lane_plan_.at_once, [&](const LaneReducer::Lane& lane) { return run_lane(batch, lane, labels); });
    const double compute_seconds = seconds_since(started);
    progress().enter(JobPhase::reducing);
    const auto computed = std::chrono::steady_clock::now();
    const LaneReducer::Result sum = reduce();
    const double reduce_seconds = seconds_since(computed);
    progress().enter(JobPhase::updating);
    const double loss = sum.scalars[0] / static_cast<double>(labels);
    const double norm = std::sqrt(ops::sum_squares(context_.pool(), sum.gradient));
    check_finite(loss, norm, batch);
    const double learning_rate = recipe_.schedule.at(state_.step);
    state_.optimizer.apply(
        context_.pool(),
        {.step = state_.step, .learning_rate = learning_rate, .gradient = sum.gradient, .gradient_norm = norm});
    if (bf16_weights_) bf16_weights_->refresh(context_.pool());
    state_.losses.push_back(static_cast<float>(loss));
    ++state_.step;
    progress().step.store(state_.step);
    context_.host().on_step(state_.step, recipe_.steps,
                            {{"loss", loss},
                             {"learning_rate", learning_rate},
                             {"grad_norm", norm},
                             {"tokens", static_cast<double>(tokens)},
                             {"samples", static_cast<double>(batch.size())},
                             {"compute_seconds", compute_seconds},
                             {"reduce_seconds", reduce_seconds}});
    return sum.control;
  }

  // A flag that the host has handed out must not go under with a reduction that breaks.
  LaneReducer::Result reduce() {
    const uint32_t control = context_.host().take_control() | untold_control_;
    untold_control_ = control & kControlCheckpoint;  // the host keeps the others itself
    LaneReducer::Result sum = reducer_->reduce(state_.step, control);
    untold_control_ = 0;
    return sum;
  }

  std::vector<double> run_lane(const std::vector<int64_t>& batch, const LaneReducer::Lane& lane, int64_t labels) {
    context_.throw_if_interrupted();
    PackedBatch packed;
    const LaneSlice slice = lane_slice(recipe_.batch_sequences, recipe_.lanes, lane.number);
    for (int64_t j = slice.begin; j < slice.end; ++j) examples_.append_to(packed, batch[static_cast<size_t>(j)]);
    Decoder& decoder = decoders_[static_cast<size_t>(lane.slot)];
    return {decoder.forward_backward(packed, {.loss_scale = static_cast<float>(1.0 / static_cast<double>(labels)),
                                              .dropout = {.probability = static_cast<float>(recipe_.dropout),
                                                          .seed = recipe_.seed,
                                                          .step = state_.step,
                                                          .lane = lane.number},
                                              .gradient = lane.gradient})};
  }

  // A lane to each thread wastes less than all threads on one lane, if there are lanes enough and memory for their
  // activations.
  void choose_lane_plan() {
    const int threads = context_.pool().threads();
    const int64_t gradient = state_.parameters.trained_elements() * static_cast<int64_t>(sizeof(float));
    Decoder::WorkspaceShape shape = largest_lane();
    // Lanes of later epochs may be somewhat larger.
    const auto lane_bytes = [&](bool recompute) {
      shape.recompute = recompute;
      return Decoder::workspace_bytes(state_.parameters, shape) / 4 * 5 + gradient;
    };
    const LaneMemory memory{
        .kept_bytes = lane_bytes(false),
        .recomputed_bytes = lane_bytes(true),
        .available_bytes = static_cast<int64_t>(kMemoryShare * static_cast<double>(available_memory_bytes())),
        .lanes_wanted = reducer_->range().count < threads ? 1 : threads};
    const int saving = context_.spec().memory_saving;
    lane_plan_ = plan_lanes(memory, saving > 0 ? Recompute::on : recompute_setting());
    if (saving > 1) lane_plan_.at_once = 1;
    if (lane_plan_.recompute) {
      context_.host().on_log("info", "tune: activations are recomputed in the backward; a lane needs " +
                                         std::to_string(memory.recomputed_bytes >> 20) + " MiB instead of " +
                                         std::to_string(memory.kept_bytes >> 20) + " MiB, and " +
                                         std::to_string(memory.available_bytes >> 20) + " MiB may be used");
    }
    for (int i = 0; i < lane_plan_.at_once; ++i) add_decoder();
  }

  // The most rows and the most labels that a lane of this rank has in the coming epoch.
  Decoder::WorkspaceShape largest_lane() const {
    ExampleOrder order(
        {.examples = examples_.count(), .batch_sequences = recipe_.batch_sequences, .seed = recipe_.seed});
    const int64_t epoch_steps = examples_.count() / recipe_.batch_sequences + 1;
    Decoder::WorkspaceShape largest;
    for (int64_t step = state_.step; step < std::min(recipe_.steps, state_.step + epoch_steps); ++step) {
      const std::vector<int64_t> batch = order.batch(step);
      for (int lane = 0; lane < reducer_->range().count; ++lane) {
        const LaneSlice slice = lane_slice(recipe_.batch_sequences, recipe_.lanes, reducer_->range().first + lane);
        int64_t rows = 0, labels = 0;
        for (int64_t j = slice.begin; j < slice.end; ++j) {
          rows += examples_.tokens_of(batch[static_cast<size_t>(j)]);
          labels += examples_.labels_of(batch[static_cast<size_t>(j)]);
        }
        largest.rows = std::max(largest.rows, rows);
        largest.labels = std::max(largest.labels, labels);
      }
    }
    return largest;
  }

  void add_decoder() {
    decoders_.emplace_back(
        state_.parameters, context_.pool(), examples_.longest(),
        Decoder::Options{.bf16 = bf16_weights_ ? &*bf16_weights_ : nullptr, .recompute = lane_plan_.recompute});
  }

  void check_finite(double loss, double norm, const std::vector<int64_t>& batch) const {
    if (std::isfinite(loss) && std::isfinite(norm)) return;
    const auto shown = static_cast<std::ptrdiff_t>(std::min<size_t>(batch.size(), 32));
    const std::string names =
        Json(std::vector<int64_t>(batch.begin(), batch.begin() + shown)).dump() + (batch.size() > 32 ? " …" : "");
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
    const std::filesystem::path& folder = context_.spec().output_dir;
    write_model(state_.parameters, folder / "model");
    SafetensorsWriter curve;
    curve.add_f32("loss", {state_.step}, state_.losses);
    curve.write(folder / "loss_curve");
    return {.kind = JobOutcome::Kind::finished,
            .step = state_.step,
            .outputs = {{"model", folder / "model"}, {"loss_curve", folder / "loss_curve"}},
            .summary = {{"examples", examples_.count()},
                        {"firstLoss", state_.losses.front()},
                        {"lastLoss", state_.losses.back()},
                        {"parameters", static_cast<int64_t>(state_.parameters.values().size())},
                        {"trainedParameters", state_.parameters.trained_elements()}}};
  }

  JobProgress& progress() { return context_.host().progress(); }

  JobContext& context_;
  TuneRecipe recipe_;
  VocabularySizes vocabulary_;
  TrainingExamples examples_;
  ExampleOrder order_;
  TuneState state_;
  std::optional<LaneReducer> reducer_;       // of the gang that this rank is in
  std::optional<Bf16Weights> bf16_weights_;  // packed from the parameters; empty in fp32
  std::vector<Decoder> decoders_;            // by slot of the reducer
  LanePlan lane_plan_;
  uint32_t untold_control_ = 0;  // asked for in a reduction that broke
};

}  // namespace

JobOutcome run_tune(JobContext& context) { return Tuner(context).run(); }

}  // namespace collimate
