// Speed and memory of one `tune` step: lanes, reduction, clipping and AdamW included; reading examples, metrics and
// checkpoints not. Random weights and tokens.
// One JSON line per case. Usage: bench_tune [--threads N] [--lanes N] [--steps N] [--bf16] [--recompute] [part of a
// case's name ...]
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "bench/training_case.h"
#include "core/lanes.h"
#include "core/model/optimizer.h"
#include "core/ops.h"

namespace {

using namespace collimate;
using namespace collimate::bench;

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int64_t peak_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * int64_t{1024};
}

struct Variant {
  int threads = 2;
  bool bf16 = false, recompute = false;
};

void measure(const TrainingCase& work, const Variant& variant) {
  const auto [threads, bf16, recompute] = variant;
  Pool pool(threads);
  prepare_compute_thread();
  Parameters::Options options{
      .config = DecoderConfig::from_shape(work.shape, work.vocabulary),
      .first_trained_rows = {work.vocabulary, work.vocabulary}};  // as the peer: no new token rows
  if (work.lora) {
    options.trainable = {.lora = true,
                         .rank = 16,
                         .alpha = 32,
                         .targets = {"down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"}};
  }
  Parameters parameters(std::move(options));
  initialise_scratch(parameters, 1);
  const auto backend = ops_on_processor(pool);
  DecoderWeights weights(parameters, *backend, bf16 ? Precision::bf16 : Precision::fp32);
  if (bf16) weights.release_frozen(parameters);
  const int at_once = std::min(threads, work.lanes);
  std::vector<Decoder> decoders;
  for (int i = 0; i < at_once; ++i) {
    decoders.emplace_back(weights, *std::max_element(work.lengths.begin(), work.lengths.end()),
                          Decoder::Options{.recompute = recompute});
  }
  Optimizer optimizer(parameters, *backend, {.beta2 = 0.95, .weight_decay = 0.1, .clip_norm = 1.0});
  LaneReducer reducer({.lanes = work.lanes,
                       .elements = parameters.trained_elements(),
                       .scalars = 1,
                       .pool = &pool,
                       .backend = backend.get()});
  const std::vector<PackedBatch> lanes = random_lanes(work);
  int64_t labels = 0;
  for (const PackedBatch& lane : lanes) labels += lane.labels();
  const float scale = 1.0f / static_cast<float>(labels);
  double loss = 0.0;
  std::vector<double> seconds;
  for (int step = 0; step < work.warm_up_steps + work.timed_steps; ++step) {
    const double begin = seconds_now();
    reducer.compute(at_once, [&](const LaneReducer::Lane& lane) -> std::vector<double> {
      return {decoders[static_cast<size_t>(lane.slot)].forward_backward(
          lanes[static_cast<size_t>(lane.number)], {.loss_scale = scale, .gradient = lane.gradient})};
    });
    const LaneReducer::Result sum = reducer.reduce(step, 0);
    loss = sum.scalars[0] * static_cast<double>(scale);
    const double norm = std::sqrt(backend->sum_squares(sum.gradient.data(), parameters.trained_elements()));
    optimizer.apply({.step = step, .learning_rate = 3e-4, .gradient = sum.gradient, .gradient_norm = norm});
    weights.refresh();
    if (step >= work.warm_up_steps) seconds.push_back(seconds_now() - begin);
  }
  std::sort(seconds.begin(), seconds.end());
  const auto tokens = static_cast<double>(work.tokens());
  const double median = seconds[seconds.size() / 2];
  std::printf(
      "{\"work\":\"%s\",\"precision\":\"%s\",\"recompute\":%s,\"unit\":\"tok/"
      "s\",\"best\":%.1f,\"median\":%.1f,\"threads\":%d,\"lanes\":%d,\"tokens\":%.0f,"
      "\"labels\":%lld,\"gflop_s\":%.1f,\"peak_mb\":%.0f,\"loss\":%.6f}\n",
      work.name.c_str(), bf16 ? "bf16" : "fp32", recompute ? "true" : "false", tokens / seconds.front(),
      tokens / median, threads, work.lanes, tokens, static_cast<long long>(labels),
      step_flop(work, parameters.config(), labels) / median * 1e-9, static_cast<double>(peak_bytes()) * 1e-6, loss);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  Variant variant;
  int lanes = 0, steps = 0;
  std::vector<std::string> wanted;
  for (int i = 1; i < argc; ++i) {
    if (i + 1 < argc && std::strcmp(argv[i], "--threads") == 0) {
      variant.threads = std::max(1, std::atoi(argv[++i]));
    } else if (i + 1 < argc && std::strcmp(argv[i], "--lanes") == 0) {
      lanes = std::max(1, std::atoi(argv[++i]));
    } else if (i + 1 < argc && std::strcmp(argv[i], "--steps") == 0) {
      steps = std::max(1, std::atoi(argv[++i]));
    } else if (std::strcmp(argv[i], "--bf16") == 0) {
      variant.bf16 = true;
    } else if (std::strcmp(argv[i], "--recompute") == 0) {
      variant.recompute = true;
    } else {
      wanted.emplace_back(argv[i]);
    }
  }
  for (TrainingCase work : training_cases()) {
    const bool chosen = wanted.empty() || std::any_of(wanted.begin(), wanted.end(), [&](const std::string& part) {
                          return work.name.find(part) != std::string::npos;
                        });
    if (lanes > 0) work.lanes = lanes;
    if (steps > 0) work.timed_steps = steps;
    if (chosen) measure(work, variant);
  }
  return 0;
}
