// Every message names the field, what was expected and what came.
#include "core/jobs/tune_recipe.h"

#include <algorithm>
#include <array>
#include <string>

#include "core/failure.h"

namespace collimate {

namespace {

const std::array<const char*, 7> kLinears{"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};

class Fields {
 public:
  Fields(const Json& json, std::string path) : json_(json), path_(std::move(path)) {
    if (!json.is_object()) fail_bad_input(path_ + ": expected an object, got " + json.dump());
  }
  [[noreturn]] void fail(const std::string& field, const std::string& expected) const {
    fail_bad_input(path_ + "." + field + ": expected " + expected + ", got " +
                   (json_.contains(field) ? json_.at(field).dump() : "nothing"));
  }
  int64_t integer(const std::string& field, int64_t least) const {
    const std::string expected = "an integer of at least " + std::to_string(least);
    if (!json_.contains(field) || !json_.at(field).is_number_integer()) fail(field, expected);
    const auto value = json_.at(field).get<int64_t>();
    if (value < least) fail(field, expected);
    return value;
  }
  // In [least, below).
  double number(const std::string& field, double least, double below) const {
    const std::string expected =
        "a number of at least " + std::to_string(least) + " and below " + std::to_string(below);
    if (!json_.contains(field) || !json_.at(field).is_number()) fail(field, expected);
    const auto value = json_.at(field).get<double>();
    if (!(value >= least && value < below)) fail(field, expected);
    return value;
  }
  bool flag(const std::string& field) const {
    if (!json_.contains(field) || !json_.at(field).is_boolean()) fail(field, "true or false");
    return json_.at(field).get<bool>();
  }
  std::string text(const std::string& field, const std::string& expected) const {
    if (!json_.contains(field) || !json_.at(field).is_string()) fail(field, expected);
    return json_.at(field).get<std::string>();
  }
  Fields object(const std::string& field) const {
    if (!json_.contains(field)) fail(field, "an object");
    return {json_.at(field), path_ + "." + field};
  }
  const Json& raw(const std::string& field) const {
    if (!json_.contains(field)) fail(field, "a value");
    return json_.at(field);
  }

 private:
  const Json& json_;
  std::string path_;
};

constexpr double kAny = 1e30;
constexpr int64_t kStepsMax = (int64_t{1} << 36) - 1;  // what the dropout stream leaves for the step
constexpr int64_t kBatchMax = int64_t{1} << 24;

std::optional<DecoderConfig::Shape> read_base(const Fields& base) {
  const std::string expected = "\"scratch\" or \"huggingface\"";
  const std::string kind = base.text("kind", expected);
  if (kind == "huggingface") return std::nullopt;
  if (kind != "scratch") base.fail("kind", expected);
  DecoderConfig::Shape shape;
  shape.layers = base.integer("layers", 1);
  shape.dim = base.integer("dim", 1);
  shape.heads = base.integer("heads", 1);
  shape.kv_heads = base.integer("kvHeads", 1);
  shape.ffn_dim = base.integer("ffnDim", 1);
  shape.rope_theta = base.number("ropeTheta", 1.0, kAny);
  shape.norm_eps = base.number("normEps", 1e-12, 1.0);
  shape.tie_embeddings = base.flag("tieEmbeddings");
  return shape;
}

Precision read_precision(const Fields& fields) {
  const std::string expected = "\"fp32\", \"bf16\" or \"fp8\"";
  const std::string precision = fields.text("precision", expected);
  if (precision == "bf16") return Precision::bf16;
  if (precision == "fp8") return Precision::fp8;
  if (precision != "fp32") fields.fail("precision", expected);
  return Precision::fp32;
}

Trainable read_trainable(const Fields& fields) {
  const std::string expected = "\"full\" or \"lora\"";
  const std::string kind = fields.text("kind", expected);
  Trainable trainable;
  if (kind == "full") return trainable;
  if (kind != "lora") fields.fail("kind", expected);
  trainable.lora = true;
  trainable.rank = fields.integer("rank", 1);
  trainable.alpha = fields.number("alpha", 1e-6, kAny);
  const Json& targets = fields.raw("targets");
  const std::string wanted =
      "a list of distinct names out of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj";
  if (!targets.is_array() || targets.empty()) fields.fail("targets", wanted);
  for (const Json& target : targets) {
    const bool known = std::any_of(kLinears.begin(), kLinears.end(), [&](const char* name) { return target == name; });
    if (!known) fields.fail("targets", wanted);
    trainable.targets.push_back(target.get<std::string>());
  }
  // One order whatever the recipe's, so that the output does not depend on it.
  std::sort(trainable.targets.begin(), trainable.targets.end());
  if (std::adjacent_find(trainable.targets.begin(), trainable.targets.end()) != trainable.targets.end()) {
    fields.fail("targets", wanted);
  }
  return trainable;
}

}  // namespace

TuneRecipe TuneRecipe::parse(const Json& json) {
  const Fields fields(json, "recipe");
  TuneRecipe recipe;
  recipe.scratch = read_base(fields.object("base"));
  recipe.trainable = read_trainable(fields.object("trainable"));
  if (recipe.scratch && recipe.trainable.lora) {
    fields.object("trainable").fail("kind", "\"full\", since a scratch base has no trained weights to adapt");
  }
  recipe.steps = fields.integer("steps", 1);
  if (recipe.steps > kStepsMax) fields.fail("steps", "an integer of at most " + std::to_string(kStepsMax));
  recipe.batch_sequences = fields.integer("batchSequences", 1);
  if (recipe.batch_sequences > kBatchMax)
    fields.fail("batchSequences", "an integer of at most " + std::to_string(kBatchMax));
  const int64_t lanes = fields.integer("lanes", 1);
  // The dropout stream leaves 14 bits for the lane.
  if ((lanes & (lanes - 1)) != 0 || lanes > 8192) fields.fail("lanes", "a power of two up to 8192");
  recipe.lanes = static_cast<int>(lanes);
  recipe.schedule = {.maximum = fields.number("learningRate", 0.0, kAny),
                     .minimum = fields.number("minLearningRate", 0.0, kAny),
                     .warmup_steps = fields.integer("warmupSteps", 0),
                     .steps = recipe.steps};
  recipe.optimizer = {.beta1 = fields.number("beta1", 0.0, 1.0),
                      .beta2 = fields.number("beta2", 0.0, 1.0),
                      .epsilon = fields.number("epsilon", 1e-30, 1.0),
                      .weight_decay = fields.number("weightDecay", 0.0, kAny),
                      .clip_norm = fields.number("clipNorm", 0.0, kAny)};
  recipe.dropout = fields.number("dropout", 0.0, 1.0);
  recipe.preference_beta = fields.number("preferenceBeta", 1e-6, kAny);
  recipe.precision = read_precision(fields);
  recipe.seed = static_cast<uint64_t>(fields.integer("seed", 0));
  return recipe;
}

}  // namespace collimate
