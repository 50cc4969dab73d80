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

void BeamWidths::check(int64_t levels, int64_t top_k) const {
  if (per_level_ && static_cast<int64_t>(widths_.size()) != levels) {
    fail_bad_input("rank: expected beams to be a number or a list of one width for each of the " +
                   std::to_string(levels) + " levels of the ids, got a list of " + std::to_string(widths_.size()));
  }
  for (const int64_t width : widths_) {
    if (width < 1) fail_bad_input("rank: expected beams of at least 1, got " + std::to_string(width));
  }
  if (top_k < 1 || top_k > last()) {
    fail_bad_input("rank: expected 1 <= topK <= beams, got topK " + std::to_string(top_k) + " and beams " +
                   std::to_string(last()) + (per_level_ ? " at the last level" : ""));
  }
}

Beam::Beam(const ItemTrie& trie, const BeamOptions& options) : trie_(trie), options_(options), live_(1) {
  options.beams.check(trie.levels(), options.top_k);
}

int64_t Beam::live_max(const ItemTrie& trie, const BeamOptions& options, int64_t level) {
  return level == 0 ? 1 : std::min(options.beams.after(level - 1), trie.nodes_at(level));
}

int64_t Beam::columns(const ItemTrie& trie, ScoreNormaliser normaliser, int64_t level, int64_t vocabulary) {
  return normaliser == ScoreNormaliser::full ? vocabulary : static_cast<int64_t>(trie.level_tokens(level).size());
}

bool Beam::expand(const Logits& logits) {
  if (!add(logits, 0, static_cast<int64_t>(live_.size()))) return false;
  close_level();
  return true;
}

void Beam::close_level() {
  ++level_;
  if (level_ == trie_.levels()) {
    keep_items();
  } else {
    keep_hypotheses();
  }
  candidates_.clear();
}

bool Beam::add(const Logits& logits, int64_t first, int64_t count) {
  const bool full = options_.normaliser == ScoreNormaliser::full, whole = full && logits.log_sum_exp == nullptr;
  std::vector<float> valid;
  for (int64_t h = first; h < first + count; ++h) {
    const Hypothesis& hypothesis = live_[static_cast<size_t>(h)];
    const float* row = logits.rows + (h - first) * logits.stride;
    const ItemTrie::EdgeRange range = trie_.edges(hypothesis.node);
    valid.clear();
    for (int64_t edge = range.first; edge < range.first + range.count; ++edge) {
      valid.push_back(row[whole ? trie_.edge_token(edge) : trie_.edge_column(edge)]);
    }
    // Of the whole row under `full`, for every hypothesis: there is no exact way round it. The sum over a vocabulary
    // needs each of its logits, and a bound on those left out would make scores depend on how the bound was found.
    const float normaliser = whole  ? ops::log_sum_exp({row, static_cast<size_t>(logits.columns)})
                             : full ? logits.log_sum_exp[h - first]
                                    : ops::log_sum_exp(valid);
    for (int64_t i = 0; i < range.count; ++i) {
      const float score = hypothesis.score + (valid[static_cast<size_t>(i)] - normaliser);
      if (!std::isfinite(score)) return false;
      if (score >= options_.least_score) candidates_.push_back({score, static_cast<int32_t>(h), range.first + i});
    }
  }
  return true;
}

void Beam::keep_hypotheses() {
  const auto kept = std::min(candidates_.size(), static_cast<size_t>(options_.beams.after(level_ - 1)));
  const auto better = [](const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score > b.score : a.edge < b.edge;
  };
  if (kept < candidates_.size()) {
    std::ranges::nth_element(candidates_, candidates_.begin() + static_cast<std::ptrdiff_t>(kept) - 1, better);
    candidates_.resize(kept);
  }
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
