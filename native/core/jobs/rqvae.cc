// Job `rqvae`: an autoencoder with residual codebooks between its halves (core/rqvae/loss.h) turns the item vectors
// into latents, which job `codebooks` then clusters in place of the vectors. One step = one batch of items.
//
// 1. The codebooks of the training only shape the latents: `codebooks` fits its own to what the encoder ended with, so
//    that ids, held-out errors and later items work the same in both forms.
// 2. A checkpoint holds parameters, moments and the loss curve; the step number gives the rest.
// 3. Items that are held out are encoded like all others, but not trained on.
// 4. A gang of one: control flags are taken from the host directly.
#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/alignment/map.h"
#include "core/failure.h"
#include "core/job.h"
#include "core/jobs/codebook_rows.h"
#include "core/jobs/curve_training.h"
#include "core/jobs/held_out.h"
#include "core/jobs/recipe_fields.h"
#include "core/row_ops.h"
#include "core/rqvae/trainer.h"
#include "core/safetensors.h"

namespace collimate {
namespace {

constexpr double kWidthMax = 1 << 16;

struct Recipe {
  rqvae::TrainerOptions training;
  JoinedRows::Weights rows;
  int64_t levels = 0, codes = 0, hidden = 0, latent = 0;
  double held_out_share = 0;
};

Recipe read_recipe(const Json& json) {
  const int64_t steps = recipe_integer(json, "steps", {1, 1e9});
  return {.training = {.loss = {.commitment = recipe_number(json, "commitmentWeight", {0, 1e6})},
                       .steps = steps,
                       .warmup_steps = recipe_integer(json, "warmupSteps", {0, static_cast<double>(steps)}),
                       .batch_items = recipe_integer(json, "batchItems", {1, 1 << 20}),
                       .learning_rate = recipe_number(json, "learningRate", {0, 1e3}),
                       .seed = static_cast<uint64_t>(recipe_integer(json, "seed", {0}))},
          .rows = {.collaborative = recipe_number(json, "collaborativeWeight", {0, 1e6}),
                   .text = recipe_number(json, "textWeight", {0, 1e6})},
          .levels = recipe_integer(json, "levels", {1, 16}),
          .codes = recipe_integer(json, "codes", {1, 1 << 20}),
          .hidden = recipe_integer(json, "hiddenDim", {1, kWidthMax}),
          .latent = recipe_integer(json, "latentDim", {1, kWidthMax}),
          .held_out_share = recipe_number(json, "holdoutShare", {0, 0.5})};
}

double mean_squared_norm(const RowSource& rows) {
  std::vector<float> row(rows.dim);
  double sum = 0;
  for (int64_t i = 0; i < rows.rows; ++i) {
    rows.copy(i, 1, row.data());
    sum += static_cast<double>(row_dot(row.data(), row.data(), rows.dim));
  }
  return sum / static_cast<double>(rows.rows);
}

class Autoencoder {
 public:
  explicit Autoencoder(JobContext& context)
      : context_(context),
        recipe_(read_recipe(context.recipe())),
        rows_(context, recipe_.rows),
        held_out_(HeldOut::choose(rows_.rows, recipe_.held_out_share)),
        trained_(rows_, held_out_.trained),
        shape_{.dim = rows_.dim,
               .hidden = recipe_.hidden,
               .latent = recipe_.latent,
               .levels = recipe_.levels,
               .codes = recipe_.codes} {
    if (trained_.rows == 0)
      fail_bad_input(
          "input `collaborative`: expected at least one item that is not held out, got none; lower "
          "holdoutShare");
    recipe_.training.loss.mean_squared_norm = mean_squared_norm(trained_);
    if (!(recipe_.training.loss.mean_squared_norm > 0))
      fail_bad_input("inputs: expected at least one vector that is not zero, got none; nothing can be learned of them");
    trainer_ = std::make_unique<rqvae::Trainer>(context.pool(), shape_, trained_, recipe_.training);
    if (context.spec().resume_dir)
      trainer_->set_state(
          read_curve_checkpoint(*context.spec().resume_dir, "rqvae", {recipe_.training.steps, shape_.elements()}));
  }

  JobOutcome run() {
    const auto run_step = [&]() -> std::map<std::string, double> {
      const double learning_rate = trainer_->learning_rate();
      const rqvae::Loss loss = trainer_->run_step();
      return {{"loss", loss.total},
              {"reconstruction", loss.reconstruction},
              {"code_distance", loss.distance},
              {"learning_rate", learning_rate}};
    };
    const CurveTraining training{
        .steps = recipe_.training.steps, .name = "rqvae", .state = &trainer_->state(), .run_step = run_step};
    if (!run_curve_training(context_, training))
      return {.kind = JobOutcome::Kind::stopped, .step = trainer_->state().step};
    return finish();
  }

 private:
  // Latents of all items, and what the decoder loses of the rows of `items` through the codes of the training.
  std::vector<float> latents() const {
    std::vector<float> made(rows_.rows * shape_.latent), tile(kRowsPerItem * shape_.dim);
    for (int64_t first = 0; first < rows_.rows; first += kRowsPerItem) {
      const int64_t count = std::min(kRowsPerItem, rows_.rows - first);
      rows_.copy(first, count, tile.data());
      const std::vector<float> part =
          rqvae::encode(context_.pool(), shape_, std::span<const float>(tile).first(count * shape_.dim),
                        trainer_->state().parameters);
      std::copy(part.begin(), part.end(), made.begin() + first * shape_.latent);
    }
    return made;
  }

  double relative_error_of(const std::vector<int64_t>& items, std::span<const float> latents) const {
    const std::span<const float> parameters = trainer_->state().parameters;
    const bool quantized = recipe_.training.warmup_steps < recipe_.training.steps;
    double lost = 0, whole = 0;
    std::vector<float> row(shape_.dim);
    for (int64_t first = 0; first < static_cast<int64_t>(items.size()); first += kRowsPerItem) {
      const int64_t count = std::min<int64_t>(kRowsPerItem, static_cast<int64_t>(items.size()) - first);
      std::vector<float> seen(count * shape_.latent);
      for (int64_t i = 0; i < count; ++i)
        std::copy_n(&latents[items[first + i] * shape_.latent], shape_.latent, &seen[i * shape_.latent]);
      if (quantized) {
        const ResidualCodebooks books = rqvae::codebooks(shape_, parameters);
        std::vector<int32_t> codes(count * shape_.levels);
        residual_encode(context_.pool(), RowMatrix(seen.data(), count, shape_.latent), books, {.codes = codes});
        residual_decode(context_.pool(), codes, books, seen);
      }
      const std::vector<float> decoded = rqvae::decode(context_.pool(), shape_, seen, parameters);
      for (int64_t i = 0; i < count; ++i) {
        rows_.copy(items[first + i], 1, row.data());
        lost += static_cast<double>(wide_squared_distance(&decoded[i * shape_.dim], row.data(), shape_.dim));
        whole += static_cast<double>(row_dot(row.data(), row.data(), shape_.dim));
      }
    }
    return whole > 0 ? lost / whole : 0.0;
  }

  JobOutcome finish() {
    JobOutcome outcome{.step = trainer_->state().step};
    const std::vector<float> made = latents();
    const auto write = [&](const char* name, const SafetensorsWriter& writer) {
      const std::filesystem::path path = context_.spec().output_dir / (std::string(name) + ".safetensors");
      writer.write(path);
      outcome.outputs[name] = path;
    };
    SafetensorsWriter items, network, curve;
    items.add_f32("items", {rows_.rows, shape_.latent}, made);
    write("latents", items);
    const std::span<const float> parameters = trainer_->state().parameters;
    int64_t at = 0;
    const auto tensor = [&](const char* name, std::vector<int64_t> sizes) {
      int64_t count = 1;
      for (const int64_t size : sizes) count *= size;
      network.add_f32(name, std::move(sizes), parameters.subspan(at, count));
      at += count;
    };
    tensor("encoder.gate_up", {2 * shape_.hidden, shape_.dim});
    tensor("encoder.down", {shape_.latent, shape_.hidden});
    tensor("decoder.gate_up", {2 * shape_.hidden, shape_.latent});
    tensor("decoder.down", {shape_.dim, shape_.hidden});
    tensor("centroids", {shape_.levels, shape_.codes, shape_.latent});
    write("network", network);
    curve.add_f32("loss", {trainer_->state().step}, trainer_->state().curve);
    write("loss_curve", curve);
    const alignment::Verdict verdict = alignment::judge_curve(trainer_->state().curve);
    outcome.summary = {{"relativeError", relative_error_of(held_out_.trained, made)},
                       {"firstLoss", verdict.first},
                       {"lastLoss", verdict.last},
                       {"convergedAtStep", verdict.converged ? Json(verdict.step) : Json(nullptr)}};
    if (!held_out_.held.empty())
      outcome.summary["heldOut"] = {{"items", held_out_.held.size()},
                                    {"relativeError", relative_error_of(held_out_.held, made)}};
    return outcome;
  }

  JobContext& context_;
  Recipe recipe_;
  JoinedRows rows_;
  HeldOut held_out_;
  SelectedRows trained_;
  rqvae::Shape shape_;
  std::unique_ptr<rqvae::Trainer> trainer_;
};

}  // namespace

JobOutcome run_rqvae(JobContext& context) { return Autoencoder(context).run(); }

}  // namespace collimate
