// Checks of a request, and the tables made from it once.
#include "core/rank/rank_plan.h"

#include <algorithm>
#include <string>

#include "core/failure.h"
#include "core/rank/search_loss.h"

namespace collimate {
namespace {

// Logits of so many floats are made at once. Each time the head is read: a device needs more rows for it.
constexpr int64_t kLogitsMax = int64_t{1} << 23, kDeviceLogitsMax = int64_t{1} << 27;
// Prompts together fill a device, and their activations stay a fraction of its memory.
constexpr int64_t kDevicePrefillRows = 16384;

constexpr int64_t kFloatBytes = sizeof(float);

void grow(std::vector<float>& values, int64_t count) {
  if (static_cast<int64_t>(values.size()) < count) values.resize(static_cast<size_t>(count));
}
void grow(OpsBackend& backend, BackendArray<float>& values, int64_t count) {
  if (values.size() >= count) return;
  values = {};  // before the new one comes
  values = BackendArray<float>(backend, count);
}

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
  const DecoderConfig& config = request.weights->parameters().config();
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
  const DecoderConfig& config = request.weights->parameters().config();
  OpsBackend& backend = plan.backend();
  plan.rope = ops::make_rope_table(config.rope_inverse_frequency(), plan.prompt_max + plan.levels());
  plan.rope_cos = PlacedArray<float>(backend, plan.rope.cos);
  plan.rope_sin = PlacedArray<float>(backend, plan.rope.sin);
  plan.group_users = backend.is_host() ? kGroupUsers : kDeviceGroupUsers;
  plan.first_group = request.first / plan.group_users;
  plan.groups = (request.first + request.count - 1) / plan.group_users + 1 - plan.first_group;
  if (request.beam.normaliser == ScoreNormaliser::full) {
    for (int64_t level = 0; level < plan.levels() && !backend.is_host(); ++level)
      plan.level_columns.emplace_back(backend, request.trie->level_tokens(level));
    return plan;
  }
  for (int64_t level = 0; level < plan.levels(); ++level) {
    const auto tokens = request.trie->level_tokens(level);
    const auto columns = static_cast<int64_t>(tokens.size());
    const Parameters& parameters = request.weights->parameters();
    LevelHead& head = plan.level_heads.emplace_back();
    head.rows.resize(static_cast<size_t>(columns * config.dim));
    ops::gather_rows(pool, {.rows = columns,
                            .dim = config.dim,
                            .index = tokens.data(),
                            .from = parameters.data(parameters.head()),
                            .to = head.rows.data()});
    if (request.weights->is_bf16())
      head.packed = backend.pack({.values = head.rows.data(), .out = columns, .in = config.dim});
    else
      head.placed = PlacedArray<float>(backend, head.rows);
  }
  return plan;
}

int64_t RankPlan::rows_max() const {
  int64_t most = 0;
  for (int64_t level = 1; level < levels(); ++level) most = std::max(most, rows(level));
  return most;
}

int64_t RankPlan::rows_per_product(int64_t level) const {
  return std::max<int64_t>((backend().is_host() ? kLogitsMax : kDeviceLogitsMax) / columns(level), 1);
}

int64_t RankPlan::prefill_rows() const {
  return backend().is_host() ? prompt_max : std::max(prompt_max, kDevicePrefillRows);
}

GroupDecoder::Options RankPlan::decoder(int64_t users, int64_t rows_most) const {
  return {.weights = request->weights,
          .rope_cos = rope_cos.data(),
          .rope_sin = rope_sin.data(),
          .users = users,
          .rows_max = rows_most,
          .steps_max = levels() - 1,
          .prompt_max = prompt_max,
          .prefill_rows = users > 1 ? prefill_rows() : prompt_max};
}

Beam::Logits RankPlan::LevelLogits::from(int64_t row) const {
  return {rows.data() + row * columns, columns, columns, chosen ? log_sum_exp.data() + row : nullptr};
}

void RankPlan::head_logits(int64_t level, int64_t row_count, const float* hidden, LevelLogits& logits) const {
  const DecoderWeights& weights = *request->weights;
  OpsBackend& on = backend();
  const int64_t dim = weights.parameters().config().dim, width = columns(level);
  const int head = weights.parameters().head();
  logits.chosen = !level_columns.empty();
  logits.columns = logits.chosen ? static_cast<int64_t>(request->trie->level_tokens(level).size()) : width;
  grow(logits.rows, row_count * logits.columns);
  float* made = logits.rows.data();
  if (!on.is_host()) {
    grow(on, logits.rows_there, row_count * width);
    made = logits.rows_there.data();
  }
  const LevelHead* own = level_heads.empty() ? nullptr : &level_heads[static_cast<size_t>(level)];
  if (weights.is_bf16()) {
    on.bf16_linear_forward({.rows = row_count,
                            .weight = own != nullptr ? own->packed.get() : &weights.matrix(head),
                            .x = hidden,
                            .x_stride = dim,
                            .y = made,
                            .y_stride = width});
  } else {
    on.linear_forward({.rows = row_count,
                       .in = dim,
                       .out = width,
                       .x = hidden,
                       .x_stride = dim,
                       .weight = own != nullptr ? own->placed.data() : weights.data(head),
                       .y = made,
                       .y_stride = width});
  }
  if (on.is_host()) return;
  if (logits.chosen) {
    grow(on, logits.chosen_there, row_count * logits.columns);
    grow(on, logits.log_sum_exp_there, row_count);
    grow(logits.log_sum_exp, row_count);
    on.choose_columns({.rows = row_count,
                       .width = width,
                       .count = logits.columns,
                       .x = made,
                       .chosen = level_columns[static_cast<size_t>(level)].data(),
                       .y = logits.chosen_there.data(),
                       .log_sum_exp = logits.log_sum_exp_there.data()});
    made = logits.chosen_there.data();
    on.download(logits.log_sum_exp.data(), logits.log_sum_exp_there.data(), row_count * kFloatBytes);
  }
  on.download(logits.rows.data(), made, row_count * logits.columns * kFloatBytes);
}

void RankPlan::fail_not_finite(int64_t prompt, int64_t level) const {
  throw JobFailure(FailureCause::nan_loss, "rank: the logits of user " +
                                               std::to_string(request->prompts->users[static_cast<size_t>(prompt)]) +
                                               " are not finite at level " + std::to_string(level) +
                                               "; the model's parameters are damaged or its training diverged");
}

}  // namespace collimate
