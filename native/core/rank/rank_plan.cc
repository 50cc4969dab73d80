// Checks of a request, and the tables made from it once.
#include "core/rank/rank_plan.h"

#include <algorithm>
#include <string>

#include "core/failure.h"
#include "core/rank/search_loss.h"

namespace collimate {
namespace {

// Logits of so many floats are made at once.
constexpr int64_t kLogitsMax = int64_t{1} << 23;

void check_request(const RankRequest& request) {
  request.beam.beams.check(request.trie->levels(), request.beam.top_k);
  const int64_t size = request.prompts->size();
  if (request.first < 0 || request.count < 1 || request.first > size - request.count) {
    fail_bad_input("rank: expected a shard within the " + std::to_string(size) + " prompts, got first " +
                   std::to_string(request.first) + " and count " + std::to_string(request.count));
  }
}

// All prompts of the shard before any work: the lowest bad one is named, whatever the threads do. Returns the longest.
int64_t check_prompts(const RankRequest& request) {
  const DecoderConfig& config = request.parameters->config();
  int64_t longest = 0;
  for (int64_t index = request.first; index < request.first + request.count; ++index) {
    const auto prompt = request.prompts->prompt(index);
    const std::string who =
        "rank: the prompt of user " + std::to_string(request.prompts->users[static_cast<size_t>(index)]);
    if (prompt.empty()) fail_bad_input(who + " is empty, expected at least one token; render again");
    const int64_t positions = static_cast<int64_t>(prompt.size()) + request.trie->levels() - 1;
    if (config.positions_max > 0 && positions > config.positions_max) {
      fail_bad_input(who + " has " + std::to_string(prompt.size()) + " tokens and needs " + std::to_string(positions) +
                     " positions, expected at most " + std::to_string(config.positions_max) +
                     " (the model's); lower historyItemsMax and render again");
    }
    for (const int32_t token : prompt) {
      if (token >= 0 && token < config.vocabulary) continue;
      fail_bad_input(who + " has the token " + std::to_string(token) + ", expected tokens in [0, " +
                     std::to_string(config.vocabulary) + "); use the model and the prompts of one run");
    }
    longest = std::max(longest, static_cast<int64_t>(prompt.size()));
  }
  return longest;
}

}  // namespace

RankPlan RankPlan::make(Pool& pool, const RankRequest& request) {
  check_request(request);
  RankPlan plan;
  plan.request = &request;
  plan.pool = &pool;
  plan.prompt_max = check_prompts(request);
  plan.compared = compared_prompts({.first = request.first, .count = request.count}, request.search_loss_prompts);
  const DecoderConfig& config = request.parameters->config();
  plan.rope = ops::make_rope_table(config.rope_inverse_frequency(), plan.prompt_max + plan.levels());
  plan.first_group = request.first / kGroupUsers;
  plan.groups = (request.first + request.count - 1) / kGroupUsers + 1 - plan.first_group;
  if (request.beam.normaliser == ScoreNormaliser::full) return plan;
  for (int64_t level = 0; level < plan.levels(); ++level) {
    const auto tokens = request.trie->level_tokens(level);
    std::vector<float> rows(tokens.size() * static_cast<size_t>(config.dim));
    ops::gather_rows(pool, {.rows = static_cast<int64_t>(tokens.size()),
                            .dim = config.dim,
                            .index = tokens.data(),
                            .from = request.parameters->data(request.parameters->head()),
                            .to = rows.data()});
    plan.level_heads.push_back(std::move(rows));
  }
  return plan;
}

int64_t RankPlan::rows_max() const {
  int64_t most = 0;
  for (int64_t level = 1; level < levels(); ++level) most = std::max(most, rows(level));
  return most;
}

int64_t RankPlan::rows_per_product(int64_t level) const { return std::max<int64_t>(kLogitsMax / columns(level), 1); }

void RankPlan::head_logits(int64_t level, int64_t rows, const float* hidden, float* logits) const {
  const Parameters& parameters = *request->parameters;
  const int64_t dim = parameters.config().dim;
  ops::linear_forward(*pool, {.rows = rows,
                              .in = dim,
                              .out = columns(level),
                              .x = hidden,
                              .x_stride = dim,
                              .weight = level_heads.empty() ? parameters.data(parameters.head())
                                                            : level_heads[static_cast<size_t>(level)].data(),
                              .y = logits,
                              .y_stride = columns(level)});
}

void RankPlan::fail_not_finite(int64_t prompt, int64_t level) const {
  throw JobFailure(FailureCause::nan_loss, "rank: the logits of user " +
                                               std::to_string(request->prompts->users[static_cast<size_t>(prompt)]) +
                                               " are not finite at level " + std::to_string(level) +
                                               "; the model's parameters are damaged or its training diverged");
}

}  // namespace collimate
