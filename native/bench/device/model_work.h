// A decoder's training step and its beam search on any backend, timed: the work of bench/training_case.h and of
// bench_beam, on a device.
//
// 1. Weights are random numbers that repeat, of the size that fresh ones have: a product costs the same whatever they
//    are.
// 2. A step is what `tune` does in one: lanes, their sum, clipping, AdamW, and the weights made of the new values.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "bench/machine_peaks.h"
#include "bench/training_case.h"
#include "core/lanes.h"
#include "core/model/decoder_weights.h"
#include "core/model/optimizer.h"
#include "core/ops.h"
#include "core/rank/ranker.h"

namespace collimate::bench {

inline void fill_repeated(Parameters& parameters) {
  constexpr size_t kPeriod = 1000003;
  const std::span<float> values = parameters.values();
  const size_t drawn = std::min(kPeriod, values.size());
  for (size_t i = 0; i < drawn; ++i)
    values[i] = 0.02f * random_normal({.seed = 17, .site = RandomSite::test, .stream = 7}, i);
  for (size_t at = drawn; at < values.size(); at += drawn)
    std::memcpy(values.data() + at, values.data(), std::min(drawn, values.size() - at) * sizeof(float));
  for (const Parameter& parameter : parameters.all())
    if (parameter.shape.size() == 1) std::fill_n(values.data() + parameter.offset, parameter.elements(), 1.0f);
}

struct TrainingRate {
  double seconds = 0, loss = 0, flop = 0;  // of a step: median; of the last; multiply-adds times two of its products
  int64_t labels = 0;
};

inline TrainingRate time_training(const TrainingCase& work, OpsBackend& backend, Pool& pool, Precision precision) {
  Parameters::Options options{.config = DecoderConfig::from_shape(work.shape, work.vocabulary),
                              .first_trained_rows = {work.vocabulary, work.vocabulary}};
  if (work.lora)
    options.trainable = {.lora = true,
                         .rank = 16,
                         .alpha = 32,
                         .targets = {"down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"}};
  Parameters parameters(std::move(options));
  fill_repeated(parameters);
  DecoderWeights weights(parameters, backend, precision);
  Decoder decoder(weights, *std::max_element(work.lengths.begin(), work.lengths.end()));
  Optimizer optimizer(parameters, backend, {.beta2 = 0.95, .weight_decay = 0.1, .clip_norm = 1.0});
  LaneReducer reducer({.lanes = work.lanes,
                       .elements = parameters.trained_elements(),
                       .scalars = 1,
                       .pool = &pool,
                       .backend = &backend});
  const std::vector<PackedBatch> lanes = random_lanes(work);
  TrainingRate rate;
  for (const PackedBatch& lane : lanes) rate.labels += lane.labels();
  rate.flop = step_flop(work, parameters.config(), rate.labels);
  const float scale = 1.0f / static_cast<float>(rate.labels);
  std::vector<double> seconds;
  for (int step = 0; step < work.warm_up_steps + work.timed_steps; ++step) {
    const double begin = seconds_now();
    reducer.compute(1, [&](const LaneReducer::Lane& lane) -> std::vector<double> {
      return {decoder.forward_backward(lanes[static_cast<size_t>(lane.number)],
                                       {.loss_scale = scale, .gradient = lane.gradient})};
    });
    const LaneReducer::Result sum = reducer.reduce(step, 0);
    rate.loss = sum.scalars[0] * static_cast<double>(scale);
    const double norm = std::sqrt(backend.sum_squares(sum.gradient.data(), parameters.trained_elements()));
    optimizer.apply({.step = step, .learning_rate = 3e-4, .gradient = sum.gradient, .gradient_norm = norm});
    weights.refresh(optimizer.trained());
    backend.synchronize();
    if (step >= work.warm_up_steps) seconds.push_back(seconds_now() - begin);
  }
  std::sort(seconds.begin(), seconds.end());
  rate.seconds = seconds[seconds.size() / 2];
  return rate;
}

struct BeamWork {
  std::string name;
  DecoderConfig::Shape shape;
  int64_t vocabulary = 0, prompt = 0, users = 0, items = 0, beams = 0;
  int64_t levels = 4, codes = 256;  // tokens of a level: the last levels * codes of the vocabulary
};
struct BeamRate {
  double seconds = 0;  // for all users
  float best_score = 0;
};

inline BeamRate time_beam(const BeamWork& work, OpsBackend& backend, Pool& pool, Precision precision) {
  Parameters parameters({.config = DecoderConfig::from_shape(work.shape, work.vocabulary)});
  fill_repeated(parameters);
  const DecoderWeights weights(parameters, backend, precision);
  const auto drawn = [](uint64_t stream, int64_t i, int64_t below) {
    return static_cast<int64_t>(random_below({.seed = 3, .site = RandomSite::test, .stream = stream},
                                             static_cast<uint64_t>(i), static_cast<uint32_t>(below)));
  };
  const int64_t first = work.vocabulary - work.levels * work.codes;
  std::vector<int32_t> item_tokens;  // the item's number in base `codes`, digits shuffled: no two alike
  for (int64_t item = 0; item < work.items; ++item) {
    int64_t rest = item;
    for (int64_t level = work.levels; level-- > 0; rest /= work.codes) {
      const int64_t code = (rest + drawn(1, level, work.codes)) % work.codes;
      item_tokens.push_back(static_cast<int32_t>(first + (work.levels - 1 - level) * work.codes + code));
    }
  }
  const ItemTrie trie = ItemTrie::build(
      {.item_tokens = item_tokens, .items = work.items, .levels = work.levels, .vocabulary = work.vocabulary});
  std::vector<int32_t> tokens, users;
  std::vector<int64_t> offsets{0};
  for (int64_t user = 0; user < work.users; ++user) {
    for (int64_t i = 0; i < work.prompt; ++i)
      tokens.push_back(static_cast<int32_t>(drawn(2, user * work.prompt + i, first)));
    offsets.push_back(static_cast<int64_t>(tokens.size()));
    users.push_back(static_cast<int32_t>(user));
  }
  const PromptSet prompts{tokens, offsets, users};
  BeamRate rate;
  std::vector<double> seconds;
  for (int run = 0; run < 4; ++run) {
    const double begin = seconds_now();
    const RankedLists lists = rank_prompts(pool,
                                           {.weights = &weights,
                                            .trie = &trie,
                                            .prompts = &prompts,
                                            .beam = {.beams = work.beams, .top_k = work.beams},
                                            .count = work.users},
                                           {});
    if (run > 0) seconds.push_back(seconds_now() - begin);
    rate.best_score = lists.scores.front();
  }
  std::sort(seconds.begin(), seconds.end());
  rate.seconds = seconds[seconds.size() / 2];
  return rate;
}

}  // namespace collimate::bench
