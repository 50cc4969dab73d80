// The `tune` job: trains a decoder on packed examples, alone or as one rank of a gang.
//
// 1. State (parameters, moments, loss curve) is replicated: every rank applies the same update to the same bytes.
// 2. A step is: own lanes -> reduction (gradient, losses, control flags) -> check -> update -> report -> agreed
// control.
// 3. Checkpoints hold the state after a whole step and nothing about ranks, hosts or time.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "core/atomic_file.h"
#include "core/failure.h"
#include "core/job.h"
#include "core/jobs/lane_plan.h"
#include "core/jobs/tune_recipe.h"
#include "core/lanes.h"
#include "core/memory.h"
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

const char* const kTrainingFile = "training.safetensors";
const char* const kStateFile = "state.json";
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

Parameters make_parameters(JobContext& context, const TuneRecipe& recipe, const VocabularySizes& vocabulary) {
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

class Tuner {
 public:
  explicit Tuner(JobContext& context)
      : context_(context),
        recipe_(TuneRecipe::parse(context.recipe())),
        vocabulary_(read_vocabulary(context.input("vocabulary"))),
        examples_(context.input("train_examples"), vocabulary_.tokens),
        order_({.examples = examples_.count(), .batch_sequences = recipe_.batch_sequences, .seed = recipe_.seed}),
        parameters_(make_parameters(context, recipe_, vocabulary_)),
        optimizer_(parameters_, recipe_.optimizer),
        reducer_({.lanes = recipe_.lanes,
                  .elements = parameters_.trained_elements(),
                  .scalars = 1,
                  .transport = context.transport(),
                  .pool = &context.pool()}) {
    if (context.spec().resume_dir) resume(*context.spec().resume_dir);
    if (recipe_.bf16) {
      bf16_weights_.emplace(parameters_, context.pool());
      bf16_weights_->release_frozen(parameters_);
    }
    choose_lane_plan();
  }

  JobOutcome run() {
    while (step_ < recipe_.steps) {
      context_.throw_if_aborted();
      const uint32_t control = train_one_step();
      const bool last = step_ == recipe_.steps;
      if (last) break;
      if ((control & (kControlStop | kControlCheckpoint)) != 0 || context_.checkpoint_due(step_)) write_checkpoint();
      if ((control & kControlStop) != 0) return stopped();
    }
    return finished();
  }

 private:
  // Returns the control flags that the ranks agreed on.
  uint32_t train_one_step() {
    const std::vector<int64_t> batch = order_.batch(step_);
    int64_t labels = 0, tokens = 0;
    for (const int64_t example : batch) {
      labels += examples_.labels_of(example);
      tokens += examples_.tokens_of(example);
    }
    reducer_.compute(lane_plan_.at_once, [&](const LaneReducer::Lane& lane) { return run_lane(batch, lane, labels); });
    const LaneReducer::Result sum = reducer_.reduce(step_, context_.host().take_control());
    const double loss = sum.scalars[0] / static_cast<double>(labels);
    const double norm = std::sqrt(ops::sum_squares(context_.pool(), sum.gradient));
    check_finite(loss, norm, batch);
    const double learning_rate = recipe_.schedule.at(step_);
    optimizer_.apply(context_.pool(),
                     {.step = step_, .learning_rate = learning_rate, .gradient = sum.gradient, .gradient_norm = norm});
    if (bf16_weights_) bf16_weights_->refresh(context_.pool());
    losses_.push_back(static_cast<float>(loss));
    ++step_;
    context_.host().on_step(step_, recipe_.steps,
                            {{"loss", loss},
                             {"learning_rate", learning_rate},
                             {"grad_norm", norm},
                             {"tokens", static_cast<double>(tokens)},
                             {"samples", static_cast<double>(batch.size())}});
    return sum.control;
  }

  std::vector<double> run_lane(const std::vector<int64_t>& batch, const LaneReducer::Lane& lane, int64_t labels) {
    context_.throw_if_aborted();
    PackedBatch packed;
    const LaneSlice slice = lane_slice(recipe_.batch_sequences, recipe_.lanes, lane.number);
    for (int64_t j = slice.begin; j < slice.end; ++j) examples_.append_to(packed, batch[static_cast<size_t>(j)]);
    Decoder& decoder = decoders_[static_cast<size_t>(lane.slot)];
    return {decoder.forward_backward(packed, {.loss_scale = static_cast<float>(1.0 / static_cast<double>(labels)),
                                              .dropout = {.probability = static_cast<float>(recipe_.dropout),
                                                          .seed = recipe_.seed,
                                                          .step = step_,
                                                          .lane = lane.number},
                                              .gradient = lane.gradient})};
  }

  // A lane to each thread wastes less than all threads on one lane, if there are lanes enough and memory for their
  // activations.
  void choose_lane_plan() {
    const int threads = context_.pool().threads();
    const int64_t gradient = parameters_.trained_elements() * static_cast<int64_t>(sizeof(float));
    Decoder::WorkspaceShape shape = largest_lane();
    // Lanes of later epochs may be somewhat larger.
    const auto lane_bytes = [&](bool recompute) {
      shape.recompute = recompute;
      return Decoder::workspace_bytes(parameters_, shape) / 4 * 5 + gradient;
    };
    const LaneMemory memory{
        .kept_bytes = lane_bytes(false),
        .recomputed_bytes = lane_bytes(true),
        .available_bytes = static_cast<int64_t>(kMemoryShare * static_cast<double>(available_memory_bytes())),
        .lanes_wanted = reducer_.range().count < threads ? 1 : threads};
    lane_plan_ = plan_lanes(memory, recompute_setting());
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
    for (int64_t step = step_; step < std::min(recipe_.steps, step_ + epoch_steps); ++step) {
      const std::vector<int64_t> batch = order.batch(step);
      for (int lane = 0; lane < reducer_.range().count; ++lane) {
        const LaneSlice slice = lane_slice(recipe_.batch_sequences, recipe_.lanes, reducer_.range().first + lane);
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
        parameters_, context_.pool(), examples_.longest(),
        Decoder::Options{.bf16 = bf16_weights_ ? &*bf16_weights_ : nullptr, .recompute = lane_plan_.recompute});
  }

  void check_finite(double loss, double norm, const std::vector<int64_t>& batch) const {
    if (std::isfinite(loss) && std::isfinite(norm)) return;
    const auto shown = static_cast<std::ptrdiff_t>(std::min<size_t>(batch.size(), 32));
    const std::string names =
        Json(std::vector<int64_t>(batch.begin(), batch.begin() + shown)).dump() + (batch.size() > 32 ? " …" : "");
    throw JobFailure(FailureCause::nan_loss, "step " + std::to_string(step_) + ": loss " + std::to_string(loss) +
                                                 ", gradient norm " + std::to_string(norm) +
                                                 "; expected finite numbers; examples " + names +
                                                 "; lower learningRate or look at these examples");
  }

  void write_checkpoint() {
    if (context_.rank() != 0) return;
    struct Snapshot {
      std::vector<float> parameters, first_moment, second_moment, losses;
      int64_t step;
    };
    auto snapshot = std::make_shared<Snapshot>(
        Snapshot{gather_trained(parameters_), optimizer_.first_moment(), optimizer_.second_moment(), losses_, step_});
    context_.write_checkpoint(step_, [snapshot](const std::filesystem::path& folder) {
      const auto elements = static_cast<int64_t>(snapshot->parameters.size());
      SafetensorsWriter writer;
      writer.add_f32("parameters", {elements}, snapshot->parameters);
      writer.add_f32("first_moment", {elements}, snapshot->first_moment);
      writer.add_f32("second_moment", {elements}, snapshot->second_moment);
      writer.add_f32("loss", {snapshot->step}, snapshot->losses);
      writer.write(folder / kTrainingFile);
      write_text_atomically(folder / kStateFile, Json{{"step", snapshot->step}}.dump() + "\n");
    });
  }

  void resume(const std::filesystem::path& folder) {
    const Json state = Json::parse(read_text_file(folder / kStateFile), nullptr, /*allow_exceptions=*/false);
    if (!state.is_object() || !state.contains("step") || !state.at("step").is_number_integer()) {
      throw JobFailure(FailureCause::corrupt_artifact, "checkpoint state.json: expected {\"step\": n}, got " +
                                                           state.dump() + "; resume from an earlier one");
    }
    const auto step = state.at("step").get<int64_t>();
    if (step < 0 || step > recipe_.steps) {
      throw JobFailure(FailureCause::corrupt_artifact, "checkpoint: expected a step of 0.." +
                                                           std::to_string(recipe_.steps) + ", got " +
                                                           std::to_string(step) + "; resume from an earlier one");
    }
    const SafetensorsFile file = SafetensorsFile::open(folder / kTrainingFile);
    const std::vector<int64_t> shape{parameters_.trained_elements()};
    scatter_trained(parameters_, file.f32("parameters", shape));
    const auto first = file.f32("first_moment", shape), second = file.f32("second_moment", shape);
    std::copy(first.begin(), first.end(), optimizer_.first_moment().begin());
    std::copy(second.begin(), second.end(), optimizer_.second_moment().begin());
    const auto losses = file.f32("loss", {step});
    losses_.assign(losses.begin(), losses.end());
    step_ = step;
  }

  JobOutcome stopped() {
    context_.finish_checkpoints();
    JobOutcome outcome;
    outcome.kind = JobOutcome::Kind::stopped;
    outcome.step = step_;
    return outcome;
  }

  JobOutcome finished() {
    context_.finish_checkpoints();
    const std::filesystem::path& folder = context_.spec().output_dir;
    write_model(parameters_, folder / "model");
    SafetensorsWriter curve;
    curve.add_f32("loss", {step_}, losses_);
    curve.write(folder / "loss_curve");
    return {.kind = JobOutcome::Kind::finished,
            .step = step_,
            .outputs = {{"model", folder / "model"}, {"loss_curve", folder / "loss_curve"}},
            .summary = {{"examples", examples_.count()},
                        {"firstLoss", losses_.front()},
                        {"lastLoss", losses_.back()},
                        {"parameters", static_cast<int64_t>(parameters_.values().size())},
                        {"trainedParameters", parameters_.trained_elements()}}};
  }

  JobContext& context_;
  TuneRecipe recipe_;
  VocabularySizes vocabulary_;
  TrainingExamples examples_;
  ExampleOrder order_;
  Parameters parameters_;
  Optimizer optimizer_;
  LaneReducer reducer_;
  std::optional<Bf16Weights> bf16_weights_;  // packed from parameters_; empty in fp32
  std::vector<Decoder> decoders_;            // by slot of the reducer
  LanePlan lane_plan_;
  std::vector<float> losses_;
  int64_t step_ = 0;  // updates applied
};

}  // namespace

JobOutcome run_tune(JobContext& context) { return Tuner(context).run(); }

}  // namespace collimate
