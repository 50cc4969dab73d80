// Job `codebooks`: residual k-means over item vectors, then unique ids. One step = one Lloyd iteration of one level.
//
// 1. Step number = level * iterations + iteration; a level whose iteration changes nothing ends early and its remaining
//    numbers are skipped. So the state after a step is a function of the recipe and the inputs.
// 2. A checkpoint holds centroids only: those of finished levels and the current ones. Codes of finished levels are
//    found again on resume by the operations that made them.
// 3. Rows and their residuals are made as they are read (core/row_source.h): beside the codebooks, memory is some
//    blocks of rows and a few bytes a row and level, however large the input files.
// 4. Items that are held out take no part in clustering, and are encoded like the others afterwards. A second
//    training on all items would give codes that the measured error is not of.
// 5. With the input `published` nothing is trained: codebooks and ids of an earlier run stay, and items that came
//    later are put into them (jobs/published_ids.h).
// 6. A gang of one: control flags are taken from the host directly.
#include <memory>
#include <string>
#include <vector>

#include "core/accelerator.h"
#include "core/atomic_file.h"
#include "core/failure.h"
#include "core/job.h"
#include "core/jobs/codebook_output.h"
#include "core/jobs/codebook_rows.h"
#include "core/jobs/held_out.h"
#include "core/jobs/published_ids.h"
#include "core/jobs/recipe_fields.h"
#include "core/residual_quantizer.h"
#include "core/safetensors.h"

namespace collimate {
namespace {

struct Recipe {
  int64_t levels = 0, codes = 0, iterations = 0;
  int64_t beam = 1;
  double collaborative_weight = 0, text_weight = 0;
  double held_out_share = 0;
  uint64_t seed = 0;
};

Recipe read_recipe(const Json& json) {
  return {.levels = recipe_integer(json, "levels", {1, 16}),
          .codes = recipe_integer(json, "codes", {1, 1 << 20}),
          .iterations = recipe_integer(json, "iterations", {1, 1 << 20}),
          .beam = recipe_integer(json, "beam", {1, static_cast<double>(kBeamMax)}),
          .collaborative_weight = recipe_number(json, "collaborativeWeight", {0, 1e6}),
          .text_weight = recipe_number(json, "textWeight", {0, 1e6}),
          .held_out_share = recipe_number(json, "holdoutShare", {0, 0.5}),
          .seed = static_cast<uint64_t>(recipe_integer(json, "seed", {0}))};
}

// Where training stands between two steps.
struct Progress {
  int64_t level = 0;             // being trained
  int64_t iteration = 0;         // of it, done
  std::vector<float> centroids;  // finished levels, then the current one when iteration > 0
};

class Trainer {
 public:
  Trainer(JobContext& context, const Recipe& recipe, const RowSource& rows)
      : context_(context),
        recipe_(recipe),
        rows_(rows),
        clusterer_(make_clusterer(context.pool(), rows, recipe.levels)) {}

  bool done() const { return progress_.level == recipe_.levels; }
  int64_t step() const { return progress_.level * recipe_.iterations + progress_.iteration; }
  int64_t steps_total() const { return recipe_.levels * recipe_.iterations; }
  std::span<const float> centroids() const { return progress_.centroids; }

  std::map<std::string, double> run_step() {
    if (progress_.iteration == 0) {
      const std::vector<float> initial = kmeans_initial_centroids(
          context_.pool(), residuals(),
          {.clusters = recipe_.codes, .seed = recipe_.seed, .stream = static_cast<uint64_t>(progress_.level)});
      progress_.centroids.insert(progress_.centroids.end(), initial.begin(), initial.end());
    }
    const LloydStep step = clusterer_->lloyd_step(finished_levels(), current_level());
    const double level = static_cast<double>(progress_.level);
    ++progress_.iteration;
    if (!step.changed || progress_.iteration == recipe_.iterations) finish_level();
    return {{"level", level},
            {"objective", step.objective / static_cast<double>(rows_.rows)},
            {"dead_codes", static_cast<double>(step.empty_clusters)}};
  }

  void write_checkpoint() {
    const Progress snapshot = progress_;
    const int64_t at = step(), codes = recipe_.codes, dim = rows_.dim;
    context_.write_checkpoint(at, [snapshot, at, codes, dim](const std::filesystem::path& folder) {
      SafetensorsWriter writer;
      const int64_t levels = static_cast<int64_t>(snapshot.centroids.size()) / (codes * dim);
      writer.add_f32("centroids", {levels, codes, dim}, snapshot.centroids);
      writer.write(folder / "codebooks.safetensors");
      const Json state = {{"iteration", snapshot.iteration}, {"level", snapshot.level}, {"step", at}};
      write_text_atomically(folder / "state.json", state.dump() + "\n");
    });
  }

  void resume(const std::filesystem::path& folder) {
    const Json state = Json::parse(read_text_file(folder / "state.json"), nullptr, false);
    if (!state.is_object())
      throw JobFailure(FailureCause::corrupt_artifact,
                       "checkpoint: state.json is not a JSON object; resume from another");
    progress_.level = recipe_integer(state, "level", {0, static_cast<double>(recipe_.levels)});
    progress_.iteration = recipe_integer(state, "iteration", {0, static_cast<double>(recipe_.iterations - 1)});
    const int64_t levels = progress_.level + (progress_.iteration > 0 ? 1 : 0);
    const SafetensorsFile file = SafetensorsFile::open(folder / "codebooks.safetensors");
    const std::span<const float> saved = file.f32("centroids", {levels, recipe_.codes, rows_.dim});
    progress_.centroids.assign(saved.begin(), saved.end());
    clusterer_->resume(finished_levels());
  }

 private:
  int64_t level_size() const { return recipe_.codes * rows_.dim; }
  std::span<float> current_level() {
    return std::span<float>(progress_.centroids).subspan(progress_.level * level_size(), level_size());
  }
  ResidualCodebooks finished_levels() const {
    return {progress_.level, recipe_.codes, rows_.dim,
            std::span<const float>(progress_.centroids).first(progress_.level * level_size())};
  }
  ResidualRows residuals() const { return {rows_, finished_levels(), {clusterer_->codes(), recipe_.levels}}; }
  void finish_level() {
    clusterer_->assign(finished_levels(), current_level());
    ++progress_.level;
    progress_.iteration = 0;
  }

  JobContext& context_;
  const Recipe& recipe_;
  const RowSource& rows_;
  std::unique_ptr<Clusterer> clusterer_;
  Progress progress_;
};

}  // namespace

JobOutcome run_codebooks(JobContext& context) {
  const Recipe recipe = read_recipe(context.recipe());
  const JoinedRows rows(context, {recipe.collaborative_weight, recipe.text_weight});
  if (context.has_input("published"))
    return extend_published_ids(context, rows, {.levels = recipe.levels, .codes = recipe.codes, .beam = recipe.beam});
  const HeldOut held_out = HeldOut::choose(rows.rows, recipe.held_out_share);
  const SelectedRows selected(rows, held_out.trained);
  const RowSource& trained = held_out.held.empty() ? static_cast<const RowSource&>(rows) : selected;
  Trainer trainer(context, recipe, trained);
  if (context.spec().resume_dir) trainer.resume(*context.spec().resume_dir);
  while (!trainer.done()) {
    context.throw_if_aborted();
    const std::map<std::string, double> metrics = trainer.run_step();
    context.host().on_step(trainer.step(), trainer.steps_total(), metrics);
    const uint32_t control = context.host().take_control() | context.control_due(trainer.step());
    if (trainer.done()) break;
    if ((control & (kControlCheckpoint | kControlStop)) != 0 || context.checkpoint_due(trainer.step()))
      trainer.write_checkpoint();
    if ((control & kControlStop) != 0) {
      context.finish_checkpoints();
      return {.kind = JobOutcome::Kind::stopped, .step = trainer.step()};
    }
  }
  context.finish_checkpoints();
  JobOutcome outcome{.step = trainer.steps_total()};
  write_codes(context, rows,
              {.books = {recipe.levels, recipe.codes, rows.dim, trainer.centroids()},
               .beam = recipe.beam,
               .held_out = &held_out},
              outcome);
  return outcome;
}

}  // namespace collimate
