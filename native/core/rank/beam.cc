// Expansion of the live hypotheses and selection of the next ones.
#include "core/rank/beam.h"

#include <algorithm>
#include <cmath>

#include "core/failure.h"
#include "core/rank/decode_ops.h"

namespace collimate {

ScoreNormaliser parse_score_normaliser(const std::string& name) {
  if (name == "full") return ScoreNormaliser::full;
  if (name == "valid") return ScoreNormaliser::valid;
  fail_bad_input("rank: expected scoreNormaliser \"full\" or \"valid\", got \"" + name + "\"");
}

Beam::Beam(const ItemTrie& trie, const BeamOptions& options) : trie_(trie), options_(options), live_(1) {
  if (options.beams < 1 || options.top_k < 1 || options.top_k > options.beams) {
    fail_bad_input("rank: expected 1 <= topK <= beams, got topK " + std::to_string(options.top_k) + " and beams " +
                   std::to_string(options.beams));
  }
}

int64_t Beam::live_max(const ItemTrie& trie, const BeamOptions& options, int64_t level) {
  return std::min(options.beams, trie.nodes_at(level));
}

int64_t Beam::columns(const ItemTrie& trie, ScoreNormaliser normaliser, int64_t level, int64_t vocabulary) {
  return normaliser == ScoreNormaliser::full ? vocabulary : static_cast<int64_t>(trie.level_tokens(level).size());
}

bool Beam::expand(const Logits& logits) {
  if (!collect(logits)) return false;
  ++level_;
  if (level_ == trie_.levels()) {
    keep_items();
  } else {
    keep_hypotheses();
  }
  return true;
}

bool Beam::collect(const Logits& logits) {
  candidates_.clear();
  const bool full = options_.normaliser == ScoreNormaliser::full;
  std::vector<float> valid;
  for (size_t h = 0; h < live_.size(); ++h) {
    const float* row = logits.rows + static_cast<int64_t>(h) * logits.stride;
    const ItemTrie::EdgeRange range = trie_.edges(live_[h].node);
    valid.clear();
    for (int64_t edge = range.first; edge < range.first + range.count; ++edge) {
      valid.push_back(row[full ? trie_.edge_token(edge) : trie_.edge_column(edge)]);
    }
    const float normaliser =
        full ? ops::log_sum_exp({row, static_cast<size_t>(logits.columns)}) : ops::log_sum_exp(valid);
    for (int64_t i = 0; i < range.count; ++i) {
      const float score = live_[h].score + (valid[static_cast<size_t>(i)] - normaliser);
      if (!std::isfinite(score)) return false;
      candidates_.push_back({score, static_cast<int32_t>(h), range.first + i});
    }
  }
  return true;
}

void Beam::keep_hypotheses() {
  const auto kept = std::min(candidates_.size(), static_cast<size_t>(options_.beams));
  const auto better = [](const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score > b.score : a.edge < b.edge;
  };
  std::ranges::nth_element(candidates_, candidates_.begin() + static_cast<std::ptrdiff_t>(kept) - 1, better);
  candidates_.resize(kept);
  std::ranges::sort(candidates_, better);
  live_.clear();
  for (const Candidate& c : candidates_) {
    live_.push_back({ItemTrie::edge_target(c.edge), c.parent, trie_.edge_token(c.edge), c.score});
  }
}

void Beam::keep_items() {
  result_.clear();
  for (const Candidate& c : candidates_) result_.push_back({trie_.leaf_item(ItemTrie::edge_target(c.edge)), c.score});
  const auto kept = std::min(result_.size(), static_cast<size_t>(options_.top_k));
  const auto better = [](const RankedItem& a, const RankedItem& b) {
    return a.score != b.score ? a.score > b.score : a.item < b.item;
  };
  std::ranges::partial_sort(result_, result_.begin() + static_cast<std::ptrdiff_t>(kept), better);
  result_.resize(kept);
  live_.clear();
}

}  // namespace collimate
