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
  // logits[rows, columns(level)], on the host, of hidden[rows, C] of the backend. `there`: room for them on a device.
  struct HeadLogits {
    int64_t level = 0, rows = 0;
    const float* hidden = nullptr;
    float* logits = nullptr;
  };
  void head_logits(const HeadLogits& args, BackendArray<float>& there) const;

  [[noreturn]] void fail_not_finite(int64_t prompt, int64_t level) const;
};

}  // namespace collimate
