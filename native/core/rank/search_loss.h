// What the beam's pruning costs: its lists beside those of an exact search, for some prompts of a shard.
//
// 1. Which prompts: evenly spaced by number, so that the choice follows neither threads nor scores.
// 2. The two searches round differently (their products have other shapes), so items are compared, not scores: the best
//    item is missed when the beam's list does not have it, and the gap is 0 where it is not missed.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/rank/beam.h"

namespace collimate {

struct PromptLoss {
  bool compared = false;  // false: the exact search was given up (ExactSearch)
  bool missed = false;    // the best item is not in the list
  double gap = 0.0;       // score of the best item less that of the list's first
  double overlap = 0.0;   // share of the exact list that is in the beam's
};

struct SearchLoss {
  int64_t compared = 0, given_up = 0, missed = 0;
  double gap_sum = 0.0, overlap_sum = 0.0;  // over the compared
  void add(const PromptLoss& prompt);
};

struct PromptRange {
  int64_t first = 0, count = 0;
};
// At most `wanted` prompts of the range, ascending: the middles of `wanted` equal parts.
std::vector<int64_t> compared_prompts(const PromptRange& range, int64_t wanted);

PromptLoss compare_lists(std::span<const RankedItem> list, const std::optional<std::vector<RankedItem>>& exact);

}  // namespace collimate
