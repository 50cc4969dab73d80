// The training steps that are timed: shapes, sequences, labels. The peers' script (peers_cpu.py) has the same cases by
// name.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/model/decoder.h"
#include "core/model/parameters.h"
#include "core/philox.h"

namespace collimate::bench {

struct TrainingCase {
  std::string name;
  DecoderConfig::Shape shape;
  int64_t vocabulary = 0;
  bool lora = false;             // rank 16 on all seven matrices; else everything is trained
  std::vector<int64_t> lengths;  // of the sequences of one batch
  int64_t answer = 0;            // labelled tokens at the end of each sequence; 0: all but the first
  int lanes = 1;
  int warm_up_steps = 1, timed_steps = 3;

  int64_t tokens() const {
    int64_t total = 0;
    for (const int64_t length : lengths) total += length;
    return total;
  }
};

inline const DecoderConfig::Shape kScratchShape{.layers = 6, .dim = 256, .heads = 8, .kv_heads = 8, .ffn_dim = 688};
inline const DecoderConfig::Shape kSmallShape{.layers = 8, .dim = 512, .heads = 8, .kv_heads = 4, .ffn_dim = 1408};
inline const DecoderConfig::Shape kQwenShape{
    .layers = 24, .dim = 896, .heads = 14, .kv_heads = 2, .ffn_dim = 4864, .tie_embeddings = true};

inline std::vector<TrainingCase> training_cases() {
  // Mean 40 % of the longest.
  const std::vector<int64_t> uneven{256, 20, 180, 33, 120, 50, 90, 70};
  return {
      {"full training step, scratch", kScratchShape, 2048, false, std::vector<int64_t>(64, 128), 0, 8},
      {"LoRA step, small", kSmallShape, 8192, true, std::vector<int64_t>(8, 256), 0, 4},
      {"LoRA step, small, answers only, uneven lengths", kSmallShape, 8192, true, uneven, 5, 4},
      {"LoRA step, qwen0.5b", kQwenShape, 151936, true, std::vector<int64_t>(4, 256), 0, 2, 1, 2},
  };
}

// Random tokens, sequences dealt to lanes as `tune` deals them.
inline std::vector<PackedBatch> random_lanes(const TrainingCase& work) {
  std::vector<PackedBatch> lanes(static_cast<size_t>(work.lanes));
  const size_t count = work.lengths.size();
  for (size_t s = 0; s < count; ++s) {
    const int64_t length = work.lengths[s];
    std::vector<int32_t> tokens;
    std::vector<uint8_t> labelled(static_cast<size_t>(length), work.answer == 0 ? 1 : 0);
    labelled[0] = 0;
    for (int64_t i = 0; i < length; ++i) {
      const RandomStream stream{.seed = 1, .site = RandomSite::test, .stream = s};
      tokens.push_back(
          static_cast<int32_t>(random_below(stream, static_cast<uint64_t>(i), static_cast<uint32_t>(work.vocabulary))));
      if (i >= length - work.answer) labelled[static_cast<size_t>(i)] = 1;
    }
    lanes[s * lanes.size() / count].add(tokens, labelled);
  }
  return lanes;
}

// Multiply-adds times two of one step's products: forward, and backward into inputs and (trained in full) weights; the
// head on labelled rows only. Attention, norms and adapters are left out: a lower bound of the work.
inline double step_flop(const TrainingCase& work, const DecoderConfig& c, int64_t labels) {
  const double layer = static_cast<double>(c.dim * (c.qkv_dim() + c.q_dim()) + 3 * c.dim * c.ffn_dim);
  const double passes = work.lora ? 4.0 : 6.0;
  return passes * (static_cast<double>(c.layers) * layer * static_cast<double>(work.tokens()) +
                   static_cast<double>(c.dim * c.vocabulary) * static_cast<double>(labels));
}

}  // namespace collimate::bench
