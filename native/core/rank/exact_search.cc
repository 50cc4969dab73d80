// A beam as wide as the trie with a least score, its logits made a few rows at a time.
#include "core/rank/exact_search.h"

#include <algorithm>
#include <limits>

namespace collimate {
namespace {

// The searches' scores differ by rounding; a thousandth has not been seen.
constexpr float kRounding = 0.01f;

int64_t padded(int64_t rows) { return (rows + kExactRowStep - 1) / kExactRowStep * kExactRowStep; }

// Prefixes of one level, at most: no trie needs more than it has.
int64_t rows_max(const ItemTrie& trie) {
  int64_t most = 0;
  for (int64_t level = 1; level < trie.levels(); ++level) most = std::max(most, trie.nodes_at(level));
  return padded(std::min(most, kExactRowsMax));
}

// What the last item of the exact list reaches for certain; -infinity when the beam found fewer than there are.
float reached_by(std::span<const RankedItem> list, int64_t wanted) {
  if (static_cast<int64_t>(list.size()) < wanted) return -std::numeric_limits<float>::infinity();
  return list.back().score - kRounding;
}

}  // namespace

ExactSearch::ExactSearch(const RankPlan& plan)
    : plan_(plan), decoder_(plan.decoder(1, rows_max(*plan.request->trie))) {}

std::optional<std::vector<RankedItem>> ExactSearch::run(int64_t prompt, std::span<const RankedItem> list) {
  const RankRequest& request = *plan_.request;
  const int64_t dim = request.weights->parameters().config().dim;
  const int64_t wanted = std::min(request.beam.top_k, request.trie->items());
  Beam beam(*request.trie, {.beams = std::max(request.trie->items(), request.beam.top_k),
                            .top_k = request.beam.top_k,
                            .normaliser = request.beam.normaliser,
                            .least_score = reached_by(list, wanted)});
  decoder_.reset();
  const GroupDecoder::Prompt alone{0, request.prompts->prompt(prompt)};
  decoder_.prefill({&alone, 1});
  const float* hidden = decoder_.finish_prompts();
  for (int64_t level = 0; level < plan_.levels(); ++level) {
    const auto live = static_cast<int64_t>(beam.live().size());
    if (live > kExactRowsMax) return std::nullopt;
    if (level > 0) {
      const std::span<const Hypothesis> hypotheses[] = {beam.live()};
      hidden = decoder_.step(padded(live), hypotheses);
    }
    for (int64_t first = 0; first < live; first += plan_.rows_per_product(level)) {
      const int64_t rows = std::min(plan_.rows_per_product(level), live - first);
      plan_.head_logits(level, rows, hidden + first * dim, logits_);
      if (!beam.add(logits_.from(0), first, rows)) plan_.fail_not_finite(prompt, level);
    }
    beam.close_level();
  }
  // Fewer would mean that rounding was taken for less than it is.
  if (static_cast<int64_t>(beam.result().size()) < wanted) return std::nullopt;
  return std::vector<RankedItem>(beam.result().begin(), beam.result().end());
}

}  // namespace collimate
