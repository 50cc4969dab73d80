// The `tune` job: trains a decoder on packed examples, by the course of core/jobs/laned_training.h.
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "core/failure.h"
#include "core/job.h"
#include "core/jobs/laned_training.h"
#include "core/jobs/reference_pass.h"
#include "core/jobs/tune_recipe.h"
#include "core/jobs/tune_state.h"
#include "core/model/aligned_rows.h"
#include "core/model/decoder.h"
#include "core/model/decoder_weights.h"
#include "core/model/parameters.h"
#include "core/model/peft_adapter.h"
#include "core/model/training_examples.h"
#include "core/safetensors.h"

namespace collimate {

namespace {

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

class Tuner : public LanedModel {
 public:
  explicit Tuner(JobContext& context)
      : context_(context),
        recipe_(TuneRecipe::parse(context.recipe())),
        vocabulary_(read_vocabulary(context.input("vocabulary"))),
        examples_(context.input("train_examples"), vocabulary_.tokens),
        order_(order_options()),
        state_(make_parameters(context, recipe_, vocabulary_), context.ops(), recipe_.optimizer) {
    // Before any other weights take the place of those that training begins with.
    reference_ = reference_log_probabilities(
        context, {.examples = examples_, .parameters = state_.parameters, .precision = precision()});
    if (context.spec().join_survivors) {
      state_.step = -1;
    } else if (context.spec().resume_dir) {
      state_.resume(*context.spec().resume_dir, recipe_.steps);
    }
    weights_.emplace(state_.parameters, context.ops(), precision());
    if (recipe_.precision != Precision::fp32) weights_->release_frozen(state_.parameters);
  }

  LanedSettings settings() const override {
    return {.steps = recipe_.steps,
            .batch_sequences = recipe_.batch_sequences,
            .lanes = recipe_.lanes,
            .reduced_elements = state_.parameters.trained_elements(),
            .sums = 1 + static_cast<int>(examples_.task_names().size()),
            .schedule = recipe_.schedule};
  }
  TuneState& state() override { return state_; }

  StepBatch batch(int64_t step) override {
    StepBatch batch{.examples = order_.batch(step)};
    for (const int64_t example : batch.examples) {
      batch.terms += examples_.terms_of(example);
      batch.tokens += examples_.tokens_of(example);
    }
    return batch;
  }

  // The lane's sum of losses, and each task's part of it.
  std::vector<double> run_lane(const StepBatch& batch, const LaneReducer::Lane& lane, LaneSeconds& seconds) override {
    const auto begun = std::chrono::steady_clock::now();
    PackedBatch packed;
    std::vector<int64_t> label_ends;  // by example
    const LaneSlice slice = lane_slice(recipe_.batch_sequences, recipe_.lanes, lane.number);
    for (int64_t j = slice.begin; j < slice.end; ++j) {
      examples_.append_to(packed, batch.examples[static_cast<size_t>(j)], reference_);
      label_ends.push_back(packed.labels());
    }
    std::vector<double> label_losses(static_cast<size_t>(packed.labels()));
    seconds.data += seconds_since(begun);
    Decoder::PassSeconds passes;
    Decoder& decoder = decoders_[static_cast<size_t>(lane.slot)];
    const double loss =
        decoder.forward_backward(packed, {.loss_scale = static_cast<float>(1.0 / static_cast<double>(batch.terms)),
                                          .dropout = {.probability = static_cast<float>(recipe_.dropout),
                                                      .seed = recipe_.seed,
                                                      .step = state_.step,
                                                      .lane = lane.number},
                                          .gradient = lane.gradient,
                                          .preference_beta = recipe_.preference_beta,
                                          .label_losses = label_losses,
                                          .seconds = &passes});
    seconds.forward += passes.forward;
    seconds.backward += passes.backward;
    std::vector<double> sums(1 + examples_.task_names().size(), 0.0);
    sums[0] = loss;
    if (sums.size() == 1) return sums;
    size_t label = 0;
    for (int64_t j = slice.begin; j < slice.end; ++j) {
      double& sum = sums[1 + static_cast<size_t>(examples_.task_of(batch.examples[static_cast<size_t>(j)]))];
      const auto end = static_cast<size_t>(label_ends[static_cast<size_t>(j - slice.begin)]);
      for (; label < end; ++label) sum += label_losses[label];
    }
    return sums;
  }

  // The loss of each task that the batch has, over its own terms.
  void add_metrics(const StepBatch& batch, std::span<const double> sums,
                   std::map<std::string, double>& metrics) const override {
    const std::vector<std::string>& names = examples_.task_names();
    std::vector<int64_t> terms(names.size(), 0);
    if (names.empty()) return;
    for (const int64_t example : batch.examples)
      terms[static_cast<size_t>(examples_.task_of(example))] += examples_.terms_of(example);
    for (size_t task = 0; task < names.size(); ++task) {
      if (terms[task] > 0) metrics["loss_" + names[task]] = sums[1 + task] / static_cast<double>(terms[task]);
    }
  }

  void parameters_changed() override { weights_->refresh(state_.optimizer.trained()); }

  int prepare_lanes(const LaneRange& range) override {
    const LanePlan plan = plan_decoder_lanes(context_, {.weights = *weights_,
                                                        .settings = settings(),
                                                        .range = range,
                                                        .order = order_options(),
                                                        .step = state_.step,
                                                        .size_of = [&](int64_t example) -> DecoderLanes::Size {
                                                          return {.rows = examples_.tokens_of(example),
                                                                  .labels = examples_.labels_of(example)};
                                                        }});
    for (int i = 0; i < plan.at_once; ++i) {
      decoders_.emplace_back(*weights_, examples_.longest(), Decoder::Options{.recompute = plan.recompute});
    }
    return plan.at_once;
  }
  void release_lanes() override { decoders_.clear(); }

  JobOutcome result() override {
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

 private:
  ExampleOrder::Options order_options() const {
    return {.examples = examples_.count(), .batch_sequences = recipe_.batch_sequences, .seed = recipe_.seed};
  }

  Precision precision() const { return recipe_.precision; }

  JobContext& context_;
  TuneRecipe recipe_;
  VocabularySizes vocabulary_;
  TrainingExamples examples_;
  ExampleOrder order_;
  TuneState state_;
  std::vector<double> reference_;          // by sequence; empty without groups
  std::optional<DecoderWeights> weights_;  // of the state's parameters
  std::vector<Decoder> decoders_;          // by slot of the reducer
};

}  // namespace

JobOutcome run_tune(JobContext& context) {
  Tuner tuner(context);
  return train_in_lanes(context, tuner);
}

}  // namespace collimate
