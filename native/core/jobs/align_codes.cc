// Job `align_codes`: moves the codebooks of an earlier job towards the space of the item texts, and encodes again. One
// step = one batch of items.
//
// 1. Levels, codes and where training starts are those of the input `codes`; W starts as the ridge solution on them
//    (core/alignment/map.h), so "before" in the summary is the best linear image of codebooks that know of no texts.
// 2. A checkpoint holds parameters, moments and the loss curve; the step number gives the rest.
// 3. Items without a text are encoded like all others, but take no part in the training.
// 4. A gang of one: control flags are taken from the host directly.
#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/alignment/map.h"
#include "core/alignment/trainer.h"
#include "core/failure.h"
#include "core/gemm.h"
#include "core/job.h"
#include "core/jobs/codebook_output.h"
#include "core/jobs/codebook_rows.h"
#include "core/jobs/curve_training.h"
#include "core/jobs/recipe_fields.h"
#include "core/safetensors.h"

namespace collimate {
namespace {

struct Recipe {
  alignment::TrainerOptions training;
  JoinedRows::Weights rows;
  int64_t beam = 1;
};

Recipe read_recipe(const Json& json) {
  const Recipe recipe{
      .training = {.loss = {.weight = recipe_number(json, "weight", {0, 1e6}),
                            .prefix_weight = recipe_number(json, "prefixWeight", {0, 1e6}),
                            .temperature = static_cast<float>(recipe_number(json, "temperature", {1e-3, 1e3}))},
                   .steps = recipe_integer(json, "steps", {1, 1e9}),
                   .batch_items = recipe_integer(json, "batchItems", {2, 1 << 20}),
                   .learning_rate = recipe_number(json, "learningRate", {0, 1e3}),
                   .seed = static_cast<uint64_t>(recipe_integer(json, "seed", {0}))},
      .rows = {.collaborative = recipe_number(json, "collaborativeWeight", {0, 1e6}),
               .text = recipe_number(json, "textWeight", {0, 1e6})},
      .beam = recipe_integer(json, "beam", {1, static_cast<double>(kBeamMax)})};
  if (!(recipe.training.loss.weight > 0) && !(recipe.training.loss.prefix_weight > 0))
    fail_bad_input("recipe: expected `weight` or `prefixWeight` above 0, got none; leave the job out instead");
  return recipe;
}

// The codebooks of the input, and its codes of each item.
struct Codes {
  SafetensorsFile file;
  ResidualCodebooks books;
  std::span<const int32_t> nearest;  // [items, levels]

  explicit Codes(const std::filesystem::path& path, const RowSource& rows) : file(SafetensorsFile::open(path)) {
    const std::span<const float> centroids = file.f32("centroids", {-1, -1, rows.dim});
    const std::vector<int64_t>& shape = file.get("centroids").shape;
    books = {shape[0], shape[1], rows.dim, centroids};
    nearest = file.i32("nearest", {rows.rows, books.levels});
    for (const int32_t code : nearest)
      if (code < 0 || code >= books.codes)
        fail_bad_input("input `codes`: expected codes from 0 to " + std::to_string(books.codes - 1) + ", got " +
                       std::to_string(code) + "; make the codebooks again");
  }
};

std::vector<int64_t> items_with_text(const RowSource& text) {
  std::vector<int64_t> items;
  std::vector<float> row(text.dim);
  for (int64_t item = 0; item < text.rows; ++item) {
    text.copy(item, 1, row.data());
    if (std::any_of(row.begin(), row.end(), [](float value) { return value != 0.0f; })) items.push_back(item);
  }
  if (items.size() < 2)
    fail_bad_input("input `text`: expected at least two items with a text to tell apart, got " +
                   std::to_string(items.size()) + "; switch the alignment off");
  return items;
}

double mean_squared_norm(Pool& pool, const RowSource& rows) {
  std::vector<double> sums((rows.rows + kRowsPerItem - 1) / kRowsPerItem);
  for_row_tiles(pool, rows, 128, [&](int64_t first, int64_t count, const float* values) {
    for (int64_t c = 0; c < count * rows.dim; ++c)
      sums[first / kRowsPerItem] += static_cast<double>(values[c]) * static_cast<double>(values[c]);
  });
  double sum = 0;
  for (const double value : sums) sum += value;
  return sum / static_cast<double>(rows.rows);
}

class Aligner {
 public:
  explicit Aligner(JobContext& context)
      : context_(context),
        recipe_(read_recipe(context.recipe())),
        rows_(context, recipe_.rows),
        codes_(context.input("codes"), rows_),
        text_(context.input("text"), "items"),
        unit_text_(text_),
        items_(items_with_text(unit_text_)),
        shape_{codes_.books.levels, codes_.books.codes, rows_.dim, text_.dim},
        start_map_(ridge_map(context.pool(), coded(codes_.books, codes_.nearest))) {
    recipe_.training.loss.mean_squared_norm = mean_squared_norm(context.pool(), rows_);
    trainer_.emplace(context.pool(), shape_, alignment::Data{rows_, unit_text_, items_}, recipe_.training);
    if (context.spec().resume_dir) {
      trainer_->set_state(
          read_curve_checkpoint(*context.spec().resume_dir, "alignment",
                                {recipe_.training.steps, shape_.centroid_elements() + shape_.map_elements()}));
    } else {
      trainer_->start(codes_.books.centroids, start_map_);
    }
  }

  JobOutcome run() {
    const auto run_step = [&]() -> std::map<std::string, double> {
      const double learning_rate = trainer_->learning_rate();
      const alignment::Loss loss = trainer_->run_step();
      return {{"loss", loss.total},
              {"alignment_loss", loss.whole},
              {"prefix_loss", loss.prefixes},
              {"reconstruction", loss.reconstruction},
              {"learning_rate", learning_rate}};
    };
    const CurveTraining training{
        .steps = recipe_.training.steps, .name = "alignment", .state = &trainer_->state(), .run_step = run_step};
    if (!run_curve_training(context_, training))
      return {.kind = JobOutcome::Kind::stopped, .step = trainer_->state().step};
    return finish();
  }

 private:
  alignment::CodedTexts coded(const ResidualCodebooks& books, std::span<const int32_t> codes) const {
    return {books, codes, unit_text_, items_};
  }

  // W e of every code: what `tune` begins that code's token row with.
  void write_aligned(JobOutcome& outcome) const {
    const int64_t count = shape_.levels * shape_.codes;
    std::vector<float> images(count * shape_.text_dim);
    gemm(context_.pool(), {.transpose_b = true,
                           .m = count,
                           .n = shape_.text_dim,
                           .k = shape_.dim,
                           .a = trainer_->centroids().data(),
                           .lda = shape_.dim,
                           .b = trainer_->map().data(),
                           .ldb = shape_.dim,
                           .c = images.data(),
                           .ldc = shape_.text_dim});
    const std::filesystem::path path = context_.spec().output_dir / "aligned.safetensors";
    SafetensorsWriter writer;
    writer.add_f32("map", {shape_.text_dim, shape_.dim}, trainer_->map());
    writer.add_f32("rows", {shape_.levels, shape_.codes, shape_.text_dim}, images);
    writer.write(path);
    outcome.outputs["aligned"] = path;
    const std::filesystem::path curve_path = context_.spec().output_dir / "loss_curve.safetensors";
    SafetensorsWriter curve;
    curve.add_f32("loss", {trainer_->state().step}, trainer_->state().curve);
    curve.write(curve_path);
    outcome.outputs["loss_curve"] = curve_path;
  }

  JobOutcome finish() {
    JobOutcome outcome{.step = trainer_->state().step};
    const ResidualCodebooks books{shape_.levels, shape_.codes, shape_.dim, trainer_->centroids()};
    const std::vector<int32_t> nearest = write_codes(context_, rows_, {.books = books, .beam = recipe_.beam}, outcome);
    write_aligned(outcome);
    const auto retrieval = [&](const ResidualCodebooks& of, std::span<const int32_t> codes,
                               std::span<const float> map) -> Json {
      const alignment::Retrieval found = alignment::retrieve(context_.pool(), coded(of, codes), map);
      return {{"recallAt1", found.recall_at_1}, {"recallAt10", found.recall_at_10}, {"items", found.items}};
    };
    const alignment::Verdict verdict = alignment::judge_curve(trainer_->state().curve);
    outcome.summary["alignment"] = {{"itemsWithText", items_.size()},
                                    {"firstLoss", verdict.first},
                                    {"lastLoss", verdict.last},
                                    {"convergedAtStep", verdict.converged ? Json(verdict.step) : Json(nullptr)},
                                    {"before", retrieval(codes_.books, codes_.nearest, start_map_)},
                                    {"after", retrieval(books, nearest, trainer_->map())}};
    return outcome;
  }

  JobContext& context_;
  Recipe recipe_;
  JoinedRows rows_;
  Codes codes_;
  TensorRows text_;
  alignment::UnitRows unit_text_;
  std::vector<int64_t> items_;
  alignment::Shape shape_;
  std::vector<float> start_map_;  // [T, D]
  std::optional<alignment::Trainer> trainer_;
};

}  // namespace

JobOutcome run_align_codes(JobContext& context) {
  context.input("text");  // told as missing here: the rows could do without
  return Aligner(context).run();
}

}  // namespace collimate
