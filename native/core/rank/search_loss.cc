// Comparison of a list with the exact one.
#include "core/rank/search_loss.h"

#include <algorithm>

namespace collimate {

void SearchLoss::add(const PromptLoss& prompt) {
  if (!prompt.compared) {
    ++given_up;
    return;
  }
  ++compared;
  missed += prompt.missed ? 1 : 0;
  gap_sum += prompt.gap;
  overlap_sum += prompt.overlap;
}

std::vector<int64_t> compared_prompts(const PromptRange& range, int64_t wanted) {
  const int64_t parts = std::min(wanted, range.count);
  std::vector<int64_t> prompts;
  for (int64_t i = 0; i < parts; ++i) prompts.push_back(range.first + (2 * i + 1) * range.count / (2 * parts));
  return prompts;
}

PromptLoss compare_lists(std::span<const RankedItem> list, const std::optional<std::vector<RankedItem>>& exact) {
  PromptLoss loss;
  if (!exact) return loss;
  const auto has = [&](const RankedItem& item) {
    return std::ranges::find(list, item.item, &RankedItem::item) != list.end();
  };
  loss.compared = true;
  loss.missed = !has(exact->front());
  if (loss.missed) {
    const double best = static_cast<double>(exact->front().score), first = static_cast<double>(list.front().score);
    loss.gap = std::max(0.0, best - first);
  }
  loss.overlap = static_cast<double>(std::ranges::count_if(*exact, has)) / static_cast<double>(exact->size());
  return loss;
}

}  // namespace collimate
