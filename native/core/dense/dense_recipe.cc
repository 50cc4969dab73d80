#include "core/dense/dense_recipe.h"

#include "core/failure.h"
#include "core/jobs/recipe_fields.h"

namespace collimate::dense {

namespace {

constexpr double kAny = 1e30;
constexpr double kBelowOne = 0.999;
// Of the decoder's form, what need not be chosen.
constexpr double kRopeTheta = 10000.0, kNormEps = 1e-5;

}  // namespace

DenseRecipe DenseRecipe::parse(const Json& json) {
  DenseRecipe recipe;
  const int64_t heads = recipe_integer(json, "heads", {1, 1024}), dim = recipe_integer(json, "dim", {2, 65536});
  if (dim % heads != 0 || dim / heads % 2 != 0) {
    fail_bad_input("recipe: expected `dim` to be an even number for each of the `heads`, got " + std::to_string(dim) +
                   " for " + std::to_string(heads));
  }
  recipe.shape = {.layers = recipe_integer(json, "layers", {1, 128}),
                  .dim = dim,
                  .heads = heads,
                  .kv_heads = heads,
                  .ffn_dim = recipe_integer(json, "ffnDim", {1, 65536}),
                  .rope_theta = kRopeTheta,
                  .norm_eps = kNormEps,
                  .tie_embeddings = true};
  recipe.items_max = recipe_integer(json, "itemsMax", {1, 65536});
  recipe.text_hidden = recipe_integer(json, "textHidden", {1, 65536});
  recipe.temperature = recipe_number(json, "temperature", {1e-3, 1e3});
  recipe.dropout = recipe_number(json, "dropout", {0, kBelowOne});
  recipe.id_dropout = recipe_number(json, "idDropout", {0, 1});
  recipe.epochs = recipe_integer(json, "epochs", {1, 1 << 20});
  recipe.batch_sequences = recipe_integer(json, "batchSequences", {1, 1 << 24});
  recipe.lanes = static_cast<int>(recipe_integer(json, "lanes", {1, 8192}));
  if ((recipe.lanes & (recipe.lanes - 1)) != 0)
    fail_bad_input("recipe: expected `lanes` to be a power of two, got " + std::to_string(recipe.lanes));
  recipe.schedule = {.maximum = recipe_number(json, "learningRate", {0, kAny}),
                     .minimum = recipe_number(json, "minLearningRate", {0, kAny}),
                     .warmup_steps = recipe_integer(json, "warmupSteps", {0}),
                     .steps = 0};
  recipe.optimizer = {.beta1 = recipe_number(json, "beta1", {0, kBelowOne}),
                      .beta2 = recipe_number(json, "beta2", {0, 0.999999}),
                      .epsilon = recipe_number(json, "epsilon", {1e-30, 1}),
                      .weight_decay = recipe_number(json, "weightDecay", {0, kAny}),
                      .clip_norm = recipe_number(json, "clipNorm", {0, kAny})};
  recipe.seed = static_cast<uint64_t>(recipe_integer(json, "seed", {0}));
  return recipe;
}

}  // namespace collimate::dense
