// Groups over the pool: prefill, then level by level head, beam and decoder step.
#include "core/rank/ranker.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>

#include "core/rank/exact_search.h"
#include "core/rank/group_decoder.h"
#include "core/rank/rank_plan.h"

namespace collimate {
namespace {

// Everything one thread needs to rank one group; reused from group to group.
class GroupRanker {
 public:
  explicit GroupRanker(const RankPlan& plan) : plan_(plan), decoder_(plan.decoder(plan.group_users, plan.rows_max())) {}

  // Ranks the prompts of the group that lie in the shard; their numbers are begin..end.
  GroupDone run(int64_t group, const std::function<void()>& check, RankedLists& lists) {
    const RankRequest& request = *plan_.request;
    const int64_t begin = std::max(request.first, group * plan_.group_users);
    const int64_t end = std::min(request.first + request.count, (group + 1) * plan_.group_users);
    beams_.clear();
    beams_.resize(static_cast<size_t>(plan_.group_users));
    decoder_.reset();
    for (int64_t index = begin; index < end; ++index) beam_of(index).emplace(*request.trie, request.beam);
    prefill(begin, end, check);
    const float* hidden = decoder_.finish_prompts();
    for (int64_t level = 0; level < plan_.levels(); ++level) {
      if (level > 0) hidden = step(level);
      expand(level, hidden, group);
    }
    GroupDone done{.users = end - begin};
    for (int64_t index = begin; index < end; ++index) done.top_score_sum += store(index, lists);
    done.search_loss = compare(begin, end, check, lists);
    return done;
  }

 private:
  std::optional<Beam>& beam_of(int64_t index) { return beams_[static_cast<size_t>(index % plan_.group_users)]; }

  // One prompt after the other on the processor, as many as fit together on a device.
  void prefill(int64_t begin, int64_t end, const std::function<void()>& check) {
    std::vector<GroupDecoder::Prompt> together;
    int64_t rows = 0;
    for (int64_t index = begin; index < end; ++index) {
      check();
      const auto tokens = plan_.request->prompts->prompt(index);
      const auto length = static_cast<int64_t>(tokens.size());
      if (!together.empty() && (plan_.backend().is_host() || rows + length + kPromptAlignment > plan_.prefill_rows())) {
        decoder_.prefill(together);
        together.clear();
        rows = 0;
      }
      together.push_back({index % plan_.group_users, tokens});
      rows += (length + kPromptAlignment - 1) / kPromptAlignment * kPromptAlignment;
    }
    decoder_.prefill(together);
  }

  const float* step(int64_t level) {
    std::vector<std::span<const Hypothesis>> live;
    for (const auto& beam : beams_) live.push_back(beam ? beam->live() : std::span<const Hypothesis>{});
    return decoder_.step(plan_.rows(level), live);
  }

  void expand(int64_t level, const float* hidden, int64_t group) {
    const int64_t rows = plan_.rows(level), all = plan_.group_users;
    const int64_t users = std::clamp<int64_t>(plan_.rows_per_product(level) / rows, 1, all);
    const int64_t dim = plan_.request->weights->parameters().config().dim;
    std::vector<uint8_t> finite(static_cast<size_t>(all), 1);
    for (int64_t slot = 0; slot < all; slot += users) {
      const int64_t together = std::min(users, all - slot);
      plan_.head_logits(level, together * rows, hidden + slot * rows * dim, logits_);
      plan_.pool->for_each(together, [&](int64_t i) {
        auto& beam = beams_[static_cast<size_t>(slot + i)];
        if (beam) finite[static_cast<size_t>(slot + i)] = beam->expand(logits_.from(i * rows)) ? 1 : 0;
      });
      for (int64_t i = slot; i < slot + together; ++i) {
        if (finite[static_cast<size_t>(i)] == 0) plan_.fail_not_finite(group * all + i, level);
      }
    }
  }

  // Writes the list of a prompt and returns its best score.
  double store(int64_t index, RankedLists& lists) const {
    const auto result = beams_[static_cast<size_t>(index % plan_.group_users)]->result();
    auto at = static_cast<size_t>((index - plan_.request->first) * plan_.request->beam.top_k);
    for (const RankedItem& ranked : result) {
      lists.items[at] = ranked.item;
      lists.scores[at++] = ranked.score;
    }
    return static_cast<double>(result.front().score);
  }

  // The lists of begin..end that are to be compared, against exact ones.
  SearchLoss compare(int64_t begin, int64_t end, const std::function<void()>& check, RankedLists& lists) {
    SearchLoss loss;
    const auto& compared = plan_.compared;
    for (auto at = std::ranges::lower_bound(compared, begin); at != compared.end() && *at < end; ++at) {
      check();
      if (!exact_) exact_ = std::make_unique<ExactSearch>(plan_);
      const auto list = beams_[static_cast<size_t>(*at % plan_.group_users)]->result();
      PromptLoss& prompt = lists.losses[static_cast<size_t>(at - compared.begin())];
      prompt = compare_lists(list, exact_->run(*at, list));
      loss.add(prompt);
    }
    return loss;
  }

  const RankPlan& plan_;
  GroupDecoder decoder_;
  std::unique_ptr<ExactSearch> exact_;  // made by the first prompt that is compared
  std::vector<std::optional<Beam>> beams_;
  RankPlan::LevelLogits logits_;
};

// Rankers that are not in use; as many come to be as threads run at once.
class RankerShelf {
 public:
  explicit RankerShelf(const RankPlan& plan) : plan_(plan) {}
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
  const RankPlan& plan_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<GroupRanker>> idle_;
};

}  // namespace

std::span<const int32_t> PromptSet::prompt(int64_t index) const {
  const int64_t begin = offsets[static_cast<size_t>(index)], end = offsets[static_cast<size_t>(index) + 1];
  return tokens.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
}

RankedLists rank_prompts(Pool& pool, const RankRequest& request, const RankHooks& hooks) {
  const RankPlan plan = RankPlan::make(pool, request);
  RankerShelf shelf(plan);
  const auto cells = static_cast<size_t>(request.count * request.beam.top_k);
  RankedLists lists{std::vector<int32_t>(cells, -1), std::vector<float>(cells, kPaddingScore),
                    std::vector<PromptLoss>(plan.compared.size())};
  std::mutex hooks_mutex;
  int64_t finished = 0;
  const auto check = [&] {
    const std::lock_guard lock(hooks_mutex);
    if (hooks.check) hooks.check();
  };
  // A failure of one group does not hide that of an earlier one: the lowest is reported.
  std::vector<std::exception_ptr> failures(static_cast<size_t>(plan.groups));
  std::atomic<int64_t> lowest_failed{plan.groups};
  const auto run = [&](int64_t item) {
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
  };
  if (plan.backend().is_host()) {
    pool.for_each(plan.groups, run);
  } else {
    for (int64_t item = 0; item < plan.groups; ++item) run(item);
  }
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
  return lists;
}

}  // namespace collimate
