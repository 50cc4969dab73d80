// The `rank` job: the best items of a shard of prompts, by trie-constrained beam search on a finished model.
//
// 1. A shard is short: no checkpoints are written, and a request to stop is answered by finishing it.
// 2. One step = one group of prompts. Groups finish in any order; `lists` is in prompt order.
// 3. The search loss is measured beside the lists and never alters them; its sums run in prompt order.
#include <map>
#include <string>
#include <vector>

#include "core/failure.h"
#include "core/job.h"
#include "core/jobs/recipe_fields.h"
#include "core/model/parameters.h"
#include "core/rank/ranker.h"
#include "core/safetensors.h"

namespace collimate {
namespace {

constexpr double kBeamsMax = 1 << 20;

std::string recipe_text(const Json& recipe, const char* name) {
  if (recipe.contains(name) && recipe.at(name).is_string()) return recipe.at(name).get<std::string>();
  fail_bad_input(std::string("recipe: expected a string `") + name + "`, got " +
                 (recipe.contains(name) ? recipe.at(name).dump() : "nothing"));
}

// A number, or a list of one width per level.
BeamWidths recipe_beams(const Json& recipe) {
  if (!recipe.contains("beams") || !recipe.at("beams").is_array())
    return recipe_integer(recipe, "beams", {1, kBeamsMax});
  std::vector<int64_t> widths;
  // One by one through the same checks, under the list's name.
  for (const Json& width : recipe.at("beams"))
    widths.push_back(recipe_integer({{"beams", width}}, "beams", {1, kBeamsMax}));
  return widths;
}

// "fp32" where the recipe does not say.
Precision recipe_precision(const Json& recipe) {
  if (!recipe.contains("precision")) return Precision::fp32;
  const std::string name = recipe_text(recipe, "precision");
  if (name != "fp32" && name != "bf16")
    fail_bad_input("recipe.precision: expected \"fp32\" or \"bf16\", got \"" + name + "\"");
  return name == "bf16" ? Precision::bf16 : Precision::fp32;
}

RankRequest read_recipe(const Json& recipe) {
  RankRequest request;
  request.beam.beams = recipe_beams(recipe);
  request.beam.top_k = recipe_integer(recipe, "topK", {1, kBeamsMax});
  request.beam.normaliser = parse_score_normaliser(recipe_text(recipe, "scoreNormaliser"));
  request.first = recipe_integer(recipe, "first", {0});
  request.count = recipe_integer(recipe, "count", {1});
  request.search_loss_prompts = recipe_integer(recipe, "searchLossPrompts", {0});
  return request;
}

ItemTrie read_trie(const SafetensorsFile& vocabulary, const DecoderConfig& config) {
  const auto sizes = vocabulary.i64("sizes", {2});
  if (sizes[0] != config.vocabulary) {
    fail_bad_input("rank: expected a model of the vocabulary's " + std::to_string(sizes[0]) + " tokens, got one of " +
                   std::to_string(config.vocabulary) + "; use the model and the vocabulary of one run");
  }
  const auto item_tokens = vocabulary.i32("item_tokens", {-1, -1});
  const auto& shape = vocabulary.get("item_tokens").shape;
  return ItemTrie::build(
      {.item_tokens = item_tokens, .items = shape[0], .levels = shape[1], .vocabulary = config.vocabulary});
}

PromptSet read_prompts(const SafetensorsFile& file) {
  PromptSet prompts{
      .tokens = file.i32("tokens", {-1}), .offsets = file.i64("offsets", {-1}), .users = file.i32("users", {-1})};
  const auto tokens = static_cast<int64_t>(prompts.tokens.size());
  bool fits = prompts.offsets.size() == prompts.users.size() + 1 && prompts.offsets.front() == 0 &&
              prompts.offsets.back() == tokens;
  for (size_t i = 1; fits && i < prompts.offsets.size(); ++i) fits = prompts.offsets[i - 1] <= prompts.offsets[i];
  if (fits) return prompts;
  fail_bad_input(
      "rank: expected prompts with users [n] and offsets [n + 1] ascending from 0 to the number of tokens, got " +
      std::to_string(prompts.users.size()) + " users, " + std::to_string(prompts.offsets.size()) + " offsets and " +
      std::to_string(tokens) + " tokens; render again");
}

Json describe(const SearchLoss& loss) {
  Json described = {{"prompts", loss.compared}, {"givenUp", loss.given_up}};
  const auto mean = [&](double sum) { return loss.compared > 0 ? Json(sum / double(loss.compared)) : Json(nullptr); };
  described["bestMissed"] = mean(double(loss.missed));
  described["bestGap"] = mean(loss.gap_sum);
  described["overlap"] = mean(loss.overlap_sum);
  return described;
}

Json summary_of(const RankRequest& request, const RankedLists& lists) {
  double top_scores = 0.0;
  int64_t short_lists = 0;
  for (int64_t i = 0; i < request.count; ++i) {
    const auto at = static_cast<size_t>(i * request.beam.top_k);
    top_scores += static_cast<double>(lists.scores[at]);
    if (lists.items[at + static_cast<size_t>(request.beam.top_k) - 1] < 0) ++short_lists;
  }
  SearchLoss loss;
  for (const PromptLoss& prompt : lists.losses) loss.add(prompt);
  return {{"users", request.count},
          {"meanTopScore", top_scores / static_cast<double>(request.count)},
          {"shortLists", short_lists},
          {"searchLoss", request.search_loss_prompts > 0 ? describe(loss) : Json(nullptr)}};
}

std::map<std::string, double> metrics_of(const GroupDone& done) {
  std::map<std::string, double> metrics = {{"users", static_cast<double>(done.users)},
                                           {"mean_top_score", done.top_score_sum / static_cast<double>(done.users)}};
  const SearchLoss& loss = done.search_loss;
  if (loss.compared == 0) return metrics;
  const auto compared = static_cast<double>(loss.compared);
  metrics["search_loss_prompts"] = compared;
  metrics["search_loss_best_missed"] = static_cast<double>(loss.missed) / compared;
  metrics["search_loss_best_gap"] = loss.gap_sum / compared;
  metrics["search_loss_overlap"] = loss.overlap_sum / compared;
  return metrics;
}

}  // namespace

JobOutcome run_rank(JobContext& context) {
  RankRequest request = read_recipe(context.recipe());
  const auto prompts_file = SafetensorsFile::open(context.input("prompts"));
  const auto vocabulary_file = SafetensorsFile::open(context.input("vocabulary"));
  const PromptSet prompts = read_prompts(prompts_file);
  const Parameters parameters = load_model(context.input("model"), context.spec().inputs);
  const ItemTrie trie = read_trie(vocabulary_file, parameters.config());
  const DecoderWeights weights(parameters, context.ops(), recipe_precision(context.recipe()));
  request.weights = &weights;
  request.trie = &trie;
  request.prompts = &prompts;

  int64_t steps = 0;
  const RankHooks hooks{.on_group =
                            [&](const GroupDone& done) {
                              steps = done.groups_total;
                              context.host().on_step(done.groups, done.groups_total, metrics_of(done));
                            },
                        .check = [&] { context.throw_if_aborted(); }};
  const RankedLists lists = rank_prompts(context.pool(), request, hooks);

  const auto path = context.spec().output_dir / "lists.safetensors";
  SafetensorsWriter writer;
  writer.add_i32("users", {request.count},
                 prompts.users.subspan(static_cast<size_t>(request.first), static_cast<size_t>(request.count)));
  writer.add_i32("items", {request.count, request.beam.top_k}, lists.items);
  writer.add_f32("scores", {request.count, request.beam.top_k}, lists.scores);
  writer.write(path);
  return {.step = steps, .outputs = {{"lists", path}}, .summary = summary_of(request, lists)};
}

}  // namespace collimate
