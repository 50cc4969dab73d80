// Job `dccf`: collaborative embeddings of users and items from the training graph. One step = one batch of edges.
//
// 1. A checkpoint holds parameters and Adam's moments; the step number gives the rest.
// 2. A gang of one: control flags are taken from the host directly.
#include <algorithm>
#include <cmath>
#include <string>

#include "core/accelerator.h"
#include "core/atomic_file.h"
#include "core/dccf/trainer.h"
#include "core/failure.h"
#include "core/job.h"
#include "core/jobs/recipe_fields.h"
#include "core/safetensors.h"

namespace collimate {
namespace {

dccf::TrainerOptions read_recipe(const Json& json) {
  const dccf::TrainerOptions options{
      .model = {.dim = recipe_integer(json, "dim", {1, 4096}),
                .layers = recipe_integer(json, "layers", {1, 16}),
                .intents = recipe_integer(json, "intents", {0, 65536}),
                .weight_decay = static_cast<float>(recipe_number(json, "weightDecay", {0, 1e6})),
                .intent_weight = static_cast<float>(recipe_number(json, "intentWeight", {0, 1e6})),
                .contrast_weight = static_cast<float>(recipe_number(json, "contrastWeight", {0, 1e6})),
                .temperature = static_cast<float>(recipe_number(json, "temperature", {1e-3, 1e6})),
                .contrast_rows_max = recipe_integer(json, "contrastRowsMax", {1, 1 << 20}),
                .seed = static_cast<uint64_t>(recipe_integer(json, "seed", {0}))},
      .epochs = recipe_integer(json, "epochs", {1, 1 << 20}),
      .batch_size = recipe_integer(json, "batchSize", {1, 1 << 24}),
      .learning_rate = static_cast<float>(recipe_number(json, "learningRate", {0, 1e3}))};
  if (options.model.intents == 0 && (options.model.intent_weight > 0 || options.model.contrast_weight > 0))
    fail_bad_input("recipe: expected `intentWeight` and `contrastWeight` 0 without `intents`, got " +
                   json.at("intentWeight").dump() + " and " + json.at("contrastWeight").dump() +
                   "; the graph alone has nothing that they could weigh");
  return options;
}

dccf::Graph read_graph(const std::filesystem::path& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  const std::span<const int64_t> counts = file.i64("counts", {2});
  return {counts[0], counts[1], file.i32("users", {-1}), file.i32("items", {-1})};
}

void write_checkpoint(JobContext& context, const dccf::Trainer& trainer) {
  context.write_checkpoint(trainer.step(), [state = trainer.state()](const std::filesystem::path& folder) {
    const int64_t size = static_cast<int64_t>(state.parameters.size());
    SafetensorsWriter writer;
    writer.add_f32("parameters", {size}, state.parameters);
    writer.add_f32("first_moment", {size}, state.first_moment);
    writer.add_f32("second_moment", {size}, state.second_moment);
    writer.write(folder / "dccf.safetensors");
    write_text_atomically(folder / "state.json", Json({{"step", state.step}}).dump() + "\n");
  });
}

void resume(const std::filesystem::path& folder, dccf::Trainer& trainer) {
  const Json json = Json::parse(read_text_file(folder / "state.json"), nullptr, false);
  if (!json.is_object())
    throw JobFailure(FailureCause::corrupt_artifact,
                     "checkpoint: state.json is not a JSON object; resume from another");
  const SafetensorsFile file = SafetensorsFile::open(folder / "dccf.safetensors");
  const int64_t size = static_cast<int64_t>(trainer.state().parameters.size());
  const auto tensor = [&](const char* name) {
    const std::span<const float> values = file.f32(name, {size});
    return std::vector<float>(values.begin(), values.end());
  };
  trainer.set_state({.step = recipe_integer(json, "step", {0, static_cast<double>(trainer.steps_total())}),
                     .parameters = tensor("parameters"),
                     .first_moment = tensor("first_moment"),
                     .second_moment = tensor("second_moment")});
}

JobOutcome finish(JobContext& context, const dccf::Graph& graph, const dccf::TrainerOptions& options,
                  dccf::Trainer& trainer) {
  const std::span<const float> all = trainer.embeddings();
  // The loss of a step is that before its update: the last update is seen here only.
  if (!std::all_of(all.begin(), all.end(), [](float value) { return std::isfinite(value); }))
    throw JobFailure(FailureCause::nan_loss, "dccf: the embeddings after step " + std::to_string(trainer.step()) +
                                                 " are not finite; lower learningRate or raise temperature");
  const int64_t dim = options.model.dim;
  JobOutcome outcome{.step = trainer.step()};
  const std::filesystem::path path = context.spec().output_dir / "embeddings.safetensors";
  SafetensorsWriter writer;
  writer.add_f32("users", {graph.users(), dim}, all.first(graph.users() * dim));
  writer.add_f32("items", {graph.items(), dim}, all.last(graph.items() * dim));
  writer.write(path);
  outcome.outputs["embeddings"] = path;
  outcome.summary = {{"edges", graph.edges()}, {"steps", trainer.step()}};
  return outcome;
}

}  // namespace

JobOutcome run_dccf(JobContext& context) {
  const dccf::TrainerOptions options = read_recipe(context.recipe());
  const dccf::Graph graph = read_graph(context.input("graph"));
  dccf::Trainer trainer(context.pool(), graph, options, make_passes(context.pool(), graph, options.model.dim));
  if (context.spec().resume_dir) resume(*context.spec().resume_dir, trainer);
  while (!trainer.done()) {
    context.throw_if_aborted();
    const dccf::LossValue loss = trainer.run_step();
    context.host().on_step(trainer.step(), trainer.steps_total(),
                           {{"loss", loss.total},
                            {"loss_rank", loss.rank},
                            {"loss_contrast", loss.contrast},
                            {"learning_rate", options.learning_rate}});
    const uint32_t control = context.host().take_control() | context.control_due(trainer.step());
    if (trainer.done()) break;
    if ((control & (kControlCheckpoint | kControlStop)) != 0 || context.checkpoint_due(trainer.step()))
      write_checkpoint(context, trainer);
    if ((control & kControlStop) != 0) {
      context.finish_checkpoints();
      return {.kind = JobOutcome::Kind::stopped, .step = trainer.step()};
    }
  }
  context.finish_checkpoints();
  return finish(context, graph, options, trainer);
}

}  // namespace collimate
