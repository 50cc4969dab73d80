// What all groups of a shard share, read only: checked request, rotary table, head rows, shapes by level.
#pragma once

#include <cstdint>
#include <vector>

#include "core/ops.h"
#include "core/pool.h"
#include "core/rank/ranker.h"

namespace collimate {

struct RankPlan {
  // JobFailure(bad_input) for prompts, shard or options that do not fit.
  static RankPlan make(Pool& pool, const RankRequest& request);

  const RankRequest* request = nullptr;
  Pool* pool = nullptr;
  ops::RopeTable rope;
  int64_t prompt_max = 0;
  int64_t first_group = 0, groups = 0;
  std::vector<std::vector<float>> level_heads;  // under `valid`: head rows of trie.level_tokens(level), [columns, C]
  std::vector<int64_t> compared;                // prompts whose list is held against an exact one, ascending

  int64_t levels() const { return request->trie->levels(); }
  // Hypotheses of a user before a level, at most.
  int64_t rows(int64_t level) const { return Beam::live_max(*request->trie, request->beam, level); }
  // The most that are fed back as tokens at any level; 0 with one level.
  int64_t rows_max() const;
  int64_t columns(int64_t level) const {
    return Beam::columns(*request->trie, request->beam.normaliser, level, request->parameters->config().vocabulary);
  }
  // Rows whose logits are made at once: a large vocabulary takes fewer.
  int64_t rows_per_product(int64_t level) const;
  // logits[rows, columns(level)] of hidden[rows, C].
  void head_logits(int64_t level, int64_t rows, const float* hidden, float* logits) const;

  [[noreturn]] void fail_not_finite(int64_t prompt, int64_t level) const;
};

}  // namespace collimate
