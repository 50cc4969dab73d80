// What all groups of a shard share, read only: checked request, rotary table, head rows, shapes by level.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/ops.h"
#include "core/ops_backend.h"
#include "core/pool.h"
#include "core/rank/group_decoder.h"
#include "core/rank/ranker.h"

namespace collimate {

struct RankPlan {
  // JobFailure(bad_input) for prompts, shard or options that do not fit.
  static RankPlan make(Pool& pool, const RankRequest& request);

  const RankRequest* request = nullptr;
  Pool* pool = nullptr;
  ops::RopeTable rope;
  PlacedArray<float> rope_cos, rope_sin;
  int64_t prompt_max = 0;
  int64_t group_users = 0;
  int64_t first_group = 0, groups = 0;
  // Under `valid`: head rows of trie.level_tokens(level), [columns, C].
  struct LevelHead {
    std::vector<float> rows;
    PlacedArray<float> placed;
    std::unique_ptr<ops::PackedMatrix> packed;  // in bf16
  };
  std::vector<LevelHead> level_heads;
  // Under `full` on a device: trie.level_tokens(level), whose logits alone come to the host.
  std::vector<PlacedArray<int32_t>> level_columns;
  std::vector<int64_t> compared;  // prompts whose list is held against an exact one, ascending

  OpsBackend& backend() const { return request->weights->backend(); }

  int64_t levels() const { return request->trie->levels(); }
  // Hypotheses of a user before a level, at most.
  int64_t rows(int64_t level) const { return Beam::live_max(*request->trie, request->beam, level); }
  // The most that are fed back as tokens at any level; 0 with one level.
  int64_t rows_max() const;
  int64_t columns(int64_t level) const {
    return Beam::columns(*request->trie, request->beam.normaliser, level,
                         request->weights->parameters().config().vocabulary);
  }
  // Rows whose logits are made at once: a large vocabulary takes fewer.
  int64_t rows_per_product(int64_t level) const;
  // Prompts that are prefilled together have no more rows than this.
  int64_t prefill_rows() const;
  GroupDecoder::Options decoder(int64_t users, int64_t rows_most) const;
  // Logits of a level's hypotheses on the host, and the memory that a device makes them in.
  struct LevelLogits {
    std::vector<float> rows, log_sum_exp;
    BackendArray<float> rows_there, chosen_there, log_sum_exp_there;
    int64_t columns = 0;
    bool chosen = false;  // rows are of level_columns, and log_sum_exp is theirs
    Beam::Logits from(int64_t row) const;
  };
  // Of hidden[rows, C] of the backend.
  void head_logits(int64_t level, int64_t row_count, const float* hidden, LevelLogits& logits) const;

  [[noreturn]] void fail_not_finite(int64_t prompt, int64_t level) const;
};

}  // namespace collimate
