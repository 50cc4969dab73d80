// Lists for many prompts: groups of users are decoded side by side, each by one thread; on a device one after the
// other.
//
// 1. A group is kGroupUsers consecutive prompts (kDeviceGroupUsers on a device), aligned to the prompts' global
// numbers. A user's list is a function of the
//    model, the trie, the options, its own prompt and its number modulo the size of a group: not of the shard, not of
//    the other users, not of the number of threads.
// 2. The head is one product per level over the hypotheses of a group: all rows of the head under `full`, only the
//    rows of tokens that occur at that level under `valid`.
// 3. Lists that are compared with exact ones (search_loss.h) are the same bytes as those that are not.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/model/decoder_weights.h"
#include "core/pool.h"
#include "core/rank/beam.h"
#include "core/rank/search_loss.h"
#include "core/rank/trie.h"

namespace collimate {

inline constexpr int64_t kGroupUsers = 8;
inline constexpr int64_t kDeviceGroupUsers = 64;  // one group at a time has to fill a device

// Prompts end to end, as in a `prompts` file; users name them in messages.
struct PromptSet {
  std::span<const int32_t> tokens;   // [T]
  std::span<const int64_t> offsets;  // [n + 1]
  std::span<const int32_t> users;    // [n]
  int64_t size() const { return static_cast<int64_t>(users.size()); }
  std::span<const int32_t> prompt(int64_t index) const;
};

struct RankRequest {
  const DecoderWeights* weights = nullptr;  // of merged parameters: load_model
  const ItemTrie* trie = nullptr;
  const PromptSet* prompts = nullptr;
  BeamOptions beam;
  int64_t first = 0, count = 0;     // of the prompts
  int64_t search_loss_prompts = 0;  // of the shard whose lists are compared with exact ones
};

struct RankedLists {
  std::vector<int32_t> items;      // [count, top_k], -1 behind the end
  std::vector<float> scores;       // [count, top_k], kPaddingScore behind the end
  std::vector<PromptLoss> losses;  // of compared_prompts()
};

struct GroupDone {
  int64_t groups = 0, groups_total = 0;  // finished so far, this one included
  int64_t users = 0;                     // in this group
  double top_score_sum = 0.0;            // of their best items
  SearchLoss search_loss{};              // of those that were compared
};

// Called by one thread at a time, from the pool's threads, in the order in which groups finish.
struct RankHooks {
  std::function<void(const GroupDone&)> on_group = nullptr;
  std::function<void()> check = nullptr;  // throws to abandon the work; called before every prompt
};

// JobFailure(bad_input) for prompts, shard or options that do not fit; nan_loss naming the first user whose logits are
// not finite.
RankedLists rank_prompts(Pool& pool, const RankRequest& request, const RankHooks& hooks);

}  // namespace collimate
