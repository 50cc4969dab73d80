// Groups over the pool: prefill, then level by level head, beam and decoder step.
#include "core/rank/ranker.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "core/failure.h"
#include "core/ops.h"
#include "core/rank/group_decoder.h"

namespace collimate {
namespace {

// Logits of so many floats are made at once; a large vocabulary takes the hypotheses of fewer users per product.
constexpr int64_t kLogitsMax = int64_t{1} << 23;

// What all groups share, read only.
struct Plan {
  const RankRequest* request = nullptr;
  Pool* pool = nullptr;
  ops::RopeTable rope;
  int64_t prompt_max = 0;
  int64_t first_group = 0, groups = 0;
  std::vector<std::vector<float>> level_heads;  // under `valid`: head rows of trie.level_tokens(level), [columns, C]

  int64_t levels() const { return request->trie->levels(); }
  int64_t rows(int64_t level) const { return Beam::live_max(*request->trie, request->beam, level); }
  int64_t columns(int64_t level) const {
    return Beam::columns(*request->trie, request->beam.normaliser, level, request->parameters->config().vocabulary);
  }
  const float* head(int64_t level) const {
    return level_heads.empty() ? request->parameters->data(request->parameters->head())
                               : level_heads[static_cast<size_t>(level)].data();
  }
  int64_t users_per_product(int64_t level) const {
    return std::clamp<int64_t>(kLogitsMax / (rows(level) * columns(level)), 1, kGroupUsers);
  }
};

void check_request(const RankRequest& request) {
  const BeamOptions& beam = request.beam;
  if (beam.beams < 1 || beam.top_k < 1 || beam.top_k > beam.beams) {
    fail_bad_input("rank: expected 1 <= topK <= beams, got topK " + std::to_string(beam.top_k) + " and beams " +
                   std::to_string(beam.beams));
  }
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

Plan make_plan(Pool& pool, const RankRequest& request) {
  check_request(request);
  Plan plan;
  plan.request = &request;
  plan.pool = &pool;
  plan.prompt_max = check_prompts(request);
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

// Everything one thread needs to rank one group; reused from group to group.
class GroupRanker {
 public:
  explicit GroupRanker(const Plan& plan)
      : plan_(plan),
        decoder_({.parameters = plan.request->parameters,
                  .rope = &plan.rope,
                  .pool = plan.pool,
                  .users = kGroupUsers,
                  .rows_max = plan.rows(std::max<int64_t>(plan.levels() - 1, 0)),
                  .steps_max = plan.levels() - 1,
                  .prompt_max = plan.prompt_max}) {}

  // Ranks the prompts of the group that lie in the shard; their numbers are begin..end.
  GroupDone run(int64_t group, const std::function<void()>& check, RankedLists& lists) {
    const RankRequest& request = *plan_.request;
    const int64_t begin = std::max(request.first, group * kGroupUsers);
    const int64_t end = std::min(request.first + request.count, (group + 1) * kGroupUsers);
    beams_.clear();
    beams_.resize(kGroupUsers);
    decoder_.reset();
    for (int64_t index = begin; index < end; ++index) {
      check();
      beams_[static_cast<size_t>(index % kGroupUsers)].emplace(*request.trie, request.beam);
      decoder_.prefill(index % kGroupUsers, request.prompts->prompt(index));
    }
    std::span<const float> hidden = decoder_.finish_prompts();
    for (int64_t level = 0; level < plan_.levels(); ++level) {
      if (level > 0) hidden = step(level);
      expand(level, hidden, group);
    }
    GroupDone done{.users = end - begin};
    for (int64_t index = begin; index < end; ++index) done.top_score_sum += store(index, lists);
    return done;
  }

 private:
  std::span<const float> step(int64_t level) {
    std::vector<std::span<const Hypothesis>> live;
    for (const auto& beam : beams_) live.push_back(beam ? beam->live() : std::span<const Hypothesis>{});
    return decoder_.step(plan_.rows(level), live);
  }

  void expand(int64_t level, std::span<const float> hidden, int64_t group) {
    const int64_t rows = plan_.rows(level), columns = plan_.columns(level), users = plan_.users_per_product(level);
    const int64_t dim = plan_.request->parameters->config().dim;
    logits_.resize(
        static_cast<size_t>(std::max<int64_t>(static_cast<int64_t>(logits_.size()), users * rows * columns)));
    for (int64_t slot = 0; slot < kGroupUsers; slot += users) {
      ops::linear_forward(*plan_.pool, {.rows = std::min(users, kGroupUsers - slot) * rows,
                                        .in = dim,
                                        .out = columns,
                                        .x = hidden.data() + slot * rows * dim,
                                        .x_stride = dim,
                                        .weight = plan_.head(level),
                                        .y = logits_.data(),
                                        .y_stride = columns});
      for (int64_t i = 0; i < std::min(users, kGroupUsers - slot); ++i) {
        auto& beam = beams_[static_cast<size_t>(slot + i)];
        const Beam::Logits logits{logits_.data() + i * rows * columns, columns, columns};
        if (!beam || beam->expand(logits)) continue;
        const auto index = static_cast<size_t>(group * kGroupUsers + slot + i);
        throw JobFailure(FailureCause::nan_loss, "rank: the logits of user " +
                                                     std::to_string(plan_.request->prompts->users[index]) +
                                                     " are not finite at level " + std::to_string(level) +
                                                     "; the model's parameters are damaged or its training diverged");
      }
    }
  }

  // Writes the list of a prompt and returns its best score.
  double store(int64_t index, RankedLists& lists) const {
    const auto result = beams_[static_cast<size_t>(index % kGroupUsers)]->result();
    auto at = static_cast<size_t>((index - plan_.request->first) * plan_.request->beam.top_k);
    for (const RankedItem& ranked : result) {
      lists.items[at] = ranked.item;
      lists.scores[at++] = ranked.score;
    }
    return static_cast<double>(result.front().score);
  }

  const Plan& plan_;
  GroupDecoder decoder_;
  std::vector<std::optional<Beam>> beams_;
  std::vector<float> logits_;
};

// Rankers that are not in use; as many come to be as threads run at once.
class RankerShelf {
 public:
  explicit RankerShelf(const Plan& plan) : plan_(plan) {}
  std::unique_ptr<GroupRanker> take() {
    {
      const std::lock_guard lock(mutex_);
      if (!idle_.empty()) {
        auto ranker = std::move(idle_.back());
        idle_.pop_back();
        return ranker;
      }
    }
    return std::make_unique<GroupRanker>(plan_);
  }
  void put(std::unique_ptr<GroupRanker> ranker) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(ranker));
  }

 private:
  const Plan& plan_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<GroupRanker>> idle_;
};

}  // namespace

std::span<const int32_t> PromptSet::prompt(int64_t index) const {
  const int64_t begin = offsets[static_cast<size_t>(index)], end = offsets[static_cast<size_t>(index) + 1];
  return tokens.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
}

RankedLists rank_prompts(Pool& pool, const RankRequest& request, const RankHooks& hooks) {
  const Plan plan = make_plan(pool, request);
  RankerShelf shelf(plan);
  const auto cells = static_cast<size_t>(request.count * request.beam.top_k);
  RankedLists lists{std::vector<int32_t>(cells, -1), std::vector<float>(cells, kPaddingScore)};
  std::mutex hooks_mutex;
  int64_t finished = 0;
  const auto check = [&] {
    const std::lock_guard lock(hooks_mutex);
    if (hooks.check) hooks.check();
  };
  // A failure of one group does not hide that of an earlier one: the lowest is reported.
  std::vector<std::exception_ptr> failures(static_cast<size_t>(plan.groups));
  std::atomic<int64_t> lowest_failed{plan.groups};
  pool.for_each(plan.groups, [&](int64_t item) {
    if (item > lowest_failed.load()) return;
    try {
      auto ranker = shelf.take();
      GroupDone done = ranker->run(plan.first_group + item, check, lists);
      shelf.put(std::move(ranker));
      const std::lock_guard lock(hooks_mutex);
      done.groups = ++finished;
      done.groups_total = plan.groups;
      if (hooks.on_group) hooks.on_group(done);
    } catch (...) {
      failures[static_cast<size_t>(item)] = std::current_exception();
      int64_t lowest = lowest_failed.load();
      while (item < lowest && !lowest_failed.compare_exchange_weak(lowest, item)) {
      }
    }
  });
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
  return lists;
}

}  // namespace collimate
