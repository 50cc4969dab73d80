// Beam search over the trie of valid ids for one user, from next-token logits that the caller brings level by level.
//
// 1. A candidate's score is its parent's plus the log-probability of its token, in f32. Depth is fixed: no end token,
// no
//    length penalty.
// 2. Order is total: higher score first, then (inside the search) the lower token path, (in the result) the lower item.
//    The last level picks the result directly, so ties at its cut follow the item index too.
// 3. Every valid continuation of every live hypothesis is a candidate; with as many beams as items the search is
// exhaustive.
#pragma once

#include <cstdint>
#include <span>
#include <string>
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

struct BeamOptions {
  int64_t beams = 0;
  int64_t top_k = 0;  // <= beams
  ScoreNormaliser normaliser = ScoreNormaliser::full;
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
  };
  // One level. False when a logit or a score is not finite; the beam is then of no further use.
  [[nodiscard]] bool expand(const Logits& logits);

  // After the last level: at most top_k items, best first.
  std::span<const RankedItem> result() const { return result_; }

 private:
  struct Candidate {
    float score;
    int32_t parent;
    int64_t edge;
  };
  bool collect(const Logits& logits);
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
