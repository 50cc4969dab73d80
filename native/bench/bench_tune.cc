// Training speed of the `tune` step at the shape of the scratch decoder: lanes, reduction, clipping and AdamW included;
// reading examples, metrics and checkpoints not. Random weights and tokens, every token labelled.
// One JSON line per thread count. Usage: bench_tune [threads ...]   (default: 1 2)
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <vector>

#include "core/lanes.h"
#include "core/model/decoder.h"
#include "core/model/optimizer.h"
#include "core/model/parameters.h"
#include "core/ops.h"
#include "core/philox.h"

namespace {

using namespace collimate;

constexpr int kSequences = 64, kLength = 128, kLanes = 8;
constexpr int kWarmUpSteps = 1, kTimedSteps = 3;
constexpr int64_t kVocabulary = 2048;

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Processor seconds of all threads: what is left of a measurement on a busy machine.
double cpu_seconds_now() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

std::vector<PackedBatch> random_lanes() {
  std::vector<PackedBatch> lanes(kLanes);
  for (int s = 0; s < kSequences; ++s) {
    std::vector<int32_t> tokens;
    for (int i = 0; i < kLength; ++i) {
      const RandomStream stream{.seed = 1, .site = RandomSite::test, .stream = static_cast<uint64_t>(s)};
      tokens.push_back(static_cast<int32_t>(random_below(stream, static_cast<uint64_t>(i), kVocabulary)));
    }
    lanes[static_cast<size_t>(s * kLanes / kSequences)].add(tokens, std::vector<uint8_t>(kLength, 1));
  }
  return lanes;
}

void measure(int threads) {
  Pool pool(threads);
  prepare_compute_thread();
  Parameters parameters({.config = DecoderConfig::from_shape(
                             {.layers = 6, .dim = 256, .heads = 8, .kv_heads = 8, .ffn_dim = 688}, kVocabulary)});
  initialise_scratch(parameters, 1);
  Decoder decoder(parameters, pool, kLength);
  Optimizer optimizer(parameters, {.beta2 = 0.95, .weight_decay = 0.1, .clip_norm = 1.0});
  LaneReducer reducer({.lanes = kLanes, .elements = parameters.trained_elements(), .scalars = 1, .pool = &pool});
  const std::vector<PackedBatch> lanes = random_lanes();
  const float scale = 1.0f / (kSequences * (kLength - 1));
  double loss = 0.0;
  std::vector<double> seconds, cpu_seconds;
  for (int step = 0; step < kWarmUpSteps + kTimedSteps; ++step) {
    const double begin = seconds_now(), cpu_begin = cpu_seconds_now();
    for (const PackedBatch& lane : lanes) {
      const auto gradient = reducer.begin_lane();
      const double lane_loss = decoder.forward_backward(lane, {.loss_scale = scale, .gradient = gradient});
      reducer.end_lane(std::span(&lane_loss, 1));
    }
    const LaneReducer::Result sum = reducer.reduce(step, 0);
    loss = sum.scalars[0] * static_cast<double>(scale);
    const double norm = std::sqrt(ops::sum_squares(pool, sum.gradient));
    optimizer.apply(pool, {.step = step, .learning_rate = 3e-4, .gradient = sum.gradient, .gradient_norm = norm});
    if (step < kWarmUpSteps) continue;
    seconds.push_back(seconds_now() - begin);
    cpu_seconds.push_back(cpu_seconds_now() - cpu_begin);
  }
  std::sort(seconds.begin(), seconds.end());
  std::sort(cpu_seconds.begin(), cpu_seconds.end());
  const double tokens = kSequences * kLength;
  std::printf(
      "{\"bench\":\"tune\",\"shape\":\"scratch\",\"threads\":%d,\"batch\":%d,\"seq\":%d,\"lanes\":%d,\"dtype\":"
      "\"float32\","
      "\"tok_s_max\":%.1f,\"tok_s_median\":%.1f,\"tok_per_cpu_s_max\":%.1f,\"last_loss\":%.6f}\n",
      threads, kSequences, kLength, kLanes, tokens / seconds.front(), tokens / seconds[seconds.size() / 2],
      tokens / cpu_seconds.front(), loss);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<int> threads;
  for (int i = 1; i < argc; ++i) threads.push_back(std::max(1, std::atoi(argv[i])));
  if (threads.empty()) threads = {1, 2};
  for (const int count : threads) measure(count);
  return 0;
}
