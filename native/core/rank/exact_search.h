// The best items of a prompt without pruning: what a beam is measured against.
//
// 1. A prefix that scores below what top_k items are known to reach is dropped: no log-probability is above 0, so
//    nothing behind it could enter the list. That is exact, and once a model has learned it leaves little of the trie.
// 2. The prefixes of one level are at most kExactRowsMax: a prompt that would need more is given up before they are
//    decoded. So a model that has learned nothing costs the first levels, and memory is bounded.
// 3. A result is a function of the model, the trie, the options and the prompt alone; products have a multiple of
//    kExactRowStep rows, missing ones padded, so that few shapes occur.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/rank/group_decoder.h"
#include "core/rank/rank_plan.h"

namespace collimate {

inline constexpr int64_t kExactRowsMax = 1024;
inline constexpr int64_t kExactRowStep = 32;

class ExactSearch {
 public:
  // `plan` must outlive the search.
  explicit ExactSearch(const RankPlan& plan);
  // The best top_k items, or all when there are fewer; nothing when given up. `list`: what the beam found, best first.
  // JobFailure(nan_loss) for logits that are not finite.
  std::optional<std::vector<RankedItem>> run(int64_t prompt, std::span<const RankedItem> list);

 private:
  const RankPlan& plan_;
  GroupDecoder decoder_;
  RankPlan::LevelLogits logits_;
};

}  // namespace collimate
