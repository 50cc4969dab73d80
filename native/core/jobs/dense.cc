// The `dense` job: a causal sequence model over items, with a full softmax at every position, by the course of
// core/jobs/laned_training.h.
//
// 1. It is a decoder of the Llama family whose tokens are items: rotary positions, RMSNorm and SwiGLU in place of
//    SASRec's, and a cosine head. Its table is made of id rows and text (core/dense/item_rows.h).
// 2. Lanes reduce the gradient of decoder and table; that of the text network follows from the sum.
#include <algorithm>
#include <cmath>
#include <optional>

#include "core/dense/dense_model.h"
#include "core/dense/dense_recipe.h"
#include "core/dense/item_rows.h"
#include "core/dense/sequences.h"
#include "core/failure.h"
#include "core/job.h"
#include "core/jobs/laned_training.h"
#include "core/safetensors.h"

namespace collimate {

namespace {

using dense::DenseRecipe;

DenseRecipe read_recipe(const Json& json, int64_t sequences) {
  DenseRecipe recipe = DenseRecipe::parse(json);
  recipe.schedule.steps = (recipe.epochs * sequences + recipe.batch_sequences - 1) / recipe.batch_sequences;
  return recipe;
}

std::optional<dense::TextVectors> read_text(const JobContext& context, int64_t items) {
  if (!context.has_input("text_vectors")) return std::nullopt;
  return dense::TextVectors::read(context.input("text_vectors"), items);
}

Parameters make_parameters(const DenseRecipe& recipe, int64_t items, const dense::TextVectors* text) {
  Parameters::Options options{.config = DecoderConfig::from_shape(recipe.shape, items)};
  if (text != nullptr) {
    options.appended = {{dense::kTextIn, 2 * recipe.text_hidden, text->dim},
                        {dense::kTextOut, recipe.shape.dim, recipe.text_hidden}};
  }
  Parameters parameters(options);
  initialise_scratch(parameters, recipe.seed);
  return parameters;
}

class DenseTrainer : public LanedModel {
 public:
  explicit DenseTrainer(JobContext& context)
      : context_(context),
        log_(context.input("dataset")),
        sequences_(log_, DenseRecipe::parse(context.recipe()).items_max),
        recipe_(read_recipe(context.recipe(), sequences_.count())),
        text_(read_text(context, log_.items())),
        order_(order_options()),
        state_(make_parameters(recipe_, log_.items(), text()), context.ops(), recipe_.optimizer),
        weights_(state_.parameters, context.ops()),
        rows_(weights_, context.pool(), text()) {
    if (context.spec().join_survivors) {
      state_.step = -1;
    } else if (context.spec().resume_dir) {
      state_.resume(*context.spec().resume_dir, recipe_.schedule.steps);
    }
    weights_.refresh(state_.optimizer.trained());
  }

  LanedSettings settings() const override {
    const Parameters& parameters = state_.parameters;
    return {.steps = recipe_.schedule.steps,
            .batch_sequences = recipe_.batch_sequences,
            .lanes = recipe_.lanes,
            .reduced_elements = text() ? parameters.at(parameters.number_of(dense::kTextIn)).gradient_offset
                                       : parameters.trained_elements(),
            .schedule = recipe_.schedule};
  }
  TuneState& state() override { return state_; }

  StepBatch batch(int64_t step) override {
    StepBatch batch{.examples = order_.batch(step)};
    for (const int64_t example : batch.examples) batch.tokens += sequences_.rows_of(example);
    batch.terms = batch.tokens;
    return batch;
  }

  void begin_step() override {
    rows_.make({.probability = static_cast<float>(recipe_.id_dropout), .seed = recipe_.seed, .step = state_.step});
  }

  std::vector<double> run_lane(const StepBatch& batch, const LaneReducer::Lane& lane, LaneSeconds& seconds) override {
    const auto begun = std::chrono::steady_clock::now();
    PackedBatch packed;
    const LaneSlice slice = lane_slice(recipe_.batch_sequences, recipe_.lanes, lane.number);
    for (int64_t j = slice.begin; j < slice.end; ++j)
      sequences_.append_to(packed, batch.examples[static_cast<size_t>(j)]);
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
                                          .seconds = &passes});
    seconds.forward += passes.forward;
    seconds.backward += passes.backward;
    return {loss};
  }

  std::span<const float> whole_gradient(std::span<const float> sum) override {
    constexpr int64_t kFloatBytes = sizeof(float);
    const int64_t elements = state_.parameters.trained_elements(), summed = settings().reduced_elements;
    if (gradient_.size() == 0) gradient_ = BackendArray<float>(context_.ops(), elements);
    context_.ops().copy(gradient_.data(), sum.data(), summed * kFloatBytes);
    context_.ops().zero(gradient_.data() + summed, (elements - summed) * kFloatBytes);
    rows_.backward(gradient_.data());
    return {gradient_.data(), static_cast<size_t>(elements)};
  }

  void parameters_changed() override { weights_.refresh(state_.optimizer.trained()); }

  int prepare_lanes(const LaneRange& range) override {
    const LanePlan plan = plan_decoder_lanes(context_, {.weights = weights_,
                                                        .settings = settings(),
                                                        .range = range,
                                                        .order = order_options(),
                                                        .step = state_.step,
                                                        .size_of = [&](int64_t example) -> DecoderLanes::Size {
                                                          return {.rows = sequences_.rows_of(example),
                                                                  .labels = sequences_.rows_of(example)};
                                                        }});
    for (int i = 0; i < plan.at_once; ++i) {
      decoders_.emplace_back(
          weights_, recipe_.items_max,
          Decoder::Options{.recompute = plan.recompute,
                           .table = rows_.table(),
                           .hidden_length = dense::hidden_length(recipe_.shape.dim, recipe_.temperature)});
    }
    return plan.at_once;
  }
  void release_lanes() override { decoders_.clear(); }

  JobOutcome result() override {
    rows_.make({});
    // The loss of a step is that before its update: the last update is seen here only.
    const std::vector<float> table = rows_.host_table();
    if (!std::all_of(table.begin(), table.end(), [](float value) { return std::isfinite(value); }))
      throw JobFailure(FailureCause::nan_loss,
                       "dense: the item rows after the last step are not finite; lower "
                       "learningRate or raise temperature");
    const std::filesystem::path& folder = context_.spec().output_dir;
    dense::write_dense_model({.parameters = state_.parameters,
                              .item_rows = table,
                              .items_max = recipe_.items_max,
                              .temperature = recipe_.temperature},
                             folder / "model");
    SafetensorsWriter curve;
    curve.add_f32("loss", {state_.step}, state_.losses);
    curve.write(folder / "loss_curve");
    return {.kind = JobOutcome::Kind::finished,
            .step = state_.step,
            .outputs = {{"model", folder / "model"}, {"loss_curve", folder / "loss_curve"}},
            .summary = {{"sequences", sequences_.count()},
                        {"items", log_.items()},
                        {"steps", state_.step},
                        {"firstLoss", state_.losses.front()},
                        {"lastLoss", state_.losses.back()},
                        {"parameters", state_.parameters.trained_elements()},
                        {"text", text() != nullptr}}};
  }

 private:
  ExampleOrder::Options order_options() const {
    return {.examples = sequences_.count(), .batch_sequences = recipe_.batch_sequences, .seed = recipe_.seed};
  }
  const dense::TextVectors* text() const { return text_ ? &*text_ : nullptr; }

  JobContext& context_;
  dense::UserLog log_;
  dense::Sequences sequences_;
  DenseRecipe recipe_;
  std::optional<dense::TextVectors> text_;
  ExampleOrder order_;
  TuneState state_;
  DecoderWeights weights_;
  dense::ItemRows rows_;
  BackendArray<float> gradient_;   // of all that is trained
  std::vector<Decoder> decoders_;  // by slot of the reducer
};

}  // namespace

JobOutcome run_dense(JobContext& context) {
  DenseTrainer trainer(context);
  return train_in_lanes(context, trainer);
}

}  // namespace collimate
