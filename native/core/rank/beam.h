// Beam search over the trie of valid ids for one user, from next-token logits that the caller brings level by level.
//
// 1. A candidate's score is its parent's plus the log-probability of its token, in f32. Depth is fixed: no end
//    token, no length penalty.
// 2. Order is total: higher score first, then (inside the search) the lower token path, (in the result) the lower item.
//    The last level picks the result directly, so ties at its cut follow the item index too.
// 3. Every valid continuation of every live hypothesis is a candidate. No log-probability is above 0, so no
//    continuation beats its prefix: a search that keeps every prefix down to a score finds every item down to it.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/rank/trie.h"

namespace collimate {

enum class ScoreNormaliser {
  full,   // log-softmax over the whole vocabulary
  valid,  // log-softmax over the valid next tokens of the hypothesis
};

// "full" or "valid"; JobFailure(bad_input) for anything else.
ScoreNormaliser parse_score_normaliser(const std::string& name);

// Score of list entries behind the end (item -1): finite, so that no reader meets an infinity, and below every real
// score.
inline constexpr float kPaddingScore = -1e30f;

// How many hypotheses stay after each level: one number for all, or a list with one for each level. The last level
// gives the result, cut at top_k; its width is only a bound.
class BeamWidths {
 public:
  BeamWidths() = default;
  BeamWidths(int64_t all) : widths_{all} {}
  BeamWidths(std::vector<int64_t> per_level) : widths_(std::move(per_level)), per_level_(true) {}

  int64_t after(int64_t level) const { return widths_[per_level_ ? static_cast<size_t>(level) : 0]; }
  int64_t last() const { return widths_.empty() ? 0 : widths_.back(); }
  // JobFailure(bad_input) unless every width is at least 1, top_k is in 1..last() and a list has one width a level.
  void check(int64_t levels, int64_t top_k) const;

 private:
  std::vector<int64_t> widths_;
  bool per_level_ = false;
};

struct BeamOptions {
  BeamWidths beams;
  int64_t top_k = 0;  // <= beams.last()
  ScoreNormaliser normaliser = ScoreNormaliser::full;
  // Hypotheses and items below it are dropped, however few are left.
  float least_score = -std::numeric_limits<float>::infinity();
};

struct Hypothesis {
  int32_t node = ItemTrie::kRoot;
  int32_t parent = -1;  // index of its parent among the hypotheses of the level before
  int32_t token = -1;   // that led here
  float score = 0.0f;
};

struct RankedItem {
  int32_t item = -1;
  float score = kPaddingScore;
};

class Beam {
 public:
  // `trie` must outlive the beam.
  Beam(const ItemTrie& trie, const BeamOptions& options);

  // The next level to expand; trie.levels() when done.
  int64_t level() const { return level_; }
  // Hypotheses of this level, best first; before level 0 the empty prefix alone.
  std::span<const Hypothesis> live() const { return live_; }
  // Most hypotheses that can be live before a level, whatever the logits.
  static int64_t live_max(const ItemTrie& trie, const BeamOptions& options, int64_t level);
  // Columns of a row of logits at a level: the vocabulary under `full`, trie.level_tokens(level) under `valid`.
  static int64_t columns(const ItemTrie& trie, ScoreNormaliser normaliser, int64_t level, int64_t vocabulary);

  struct Logits {
    const float* rows = nullptr;  // row i for live()[i]
    int64_t columns = 0;
    int64_t stride = 0;  // floats between rows
    // Under `full`, where rows are of trie.level_tokens(level) alone: what their whole rows sum to. Null: rows are
    // whole.
    const float* log_sum_exp = nullptr;
  };
  // One level. False when a logit or a score is not finite; the beam is then of no further use.
  [[nodiscard]] bool expand(const Logits& logits);
  // The same in parts, for rows whose logits are too many to be held at once: hypotheses [first, first + count), in
  // order, then the choice among all.
  [[nodiscard]] bool add(const Logits& logits, int64_t first, int64_t count);
  void close_level();

  // After the last level: at most top_k items, best first.
  std::span<const RankedItem> result() const { return result_; }

 private:
  struct Candidate {
    float score;
    int32_t parent;
    int64_t edge;
  };
  void keep_hypotheses();
  void keep_items();

  const ItemTrie& trie_;
  BeamOptions options_;
  int64_t level_ = 0;
  std::vector<Hypothesis> live_;
  std::vector<Candidate> candidates_;
  std::vector<RankedItem> result_;
};

}  // namespace collimate
