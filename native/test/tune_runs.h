// Runs of the jobs that are trained in lanes, tune first, in tests: a toy task, a recording host, gangs, and the bytes
// of what came out.
#pragma once

#include <doctest/doctest.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "core/atomic_file.h"
#include "core/job.h"
#include "core/philox.h"
#include "core/safetensors.h"
#include "gang.h"
#include "temporary_folder.h"

namespace collimate {

constexpr int64_t kToyVocabulary = 24;
constexpr int64_t kToyFirstItem = 16;

// Sequences x, x+3, x+6, ... modulo the vocabulary, of 3 to 10 tokens; the first two tokens are the prompt.
inline void write_toy_inputs(const std::filesystem::path& folder, int64_t examples = 40) {
  std::vector<int32_t> tokens;
  std::vector<int64_t> offsets{0};
  std::vector<uint8_t> mask;
  for (int64_t e = 0; e < examples; ++e) {
    const auto index = static_cast<uint64_t>(e);
    const uint32_t start = random_below({.seed = 1}, index, kToyVocabulary);
    const uint32_t length = 3 + random_below({.seed = 2}, index, 8);
    for (uint32_t i = 0; i < length; ++i) {
      tokens.push_back(static_cast<int32_t>((start + 3 * i) % kToyVocabulary));
      mask.push_back(i >= 2 ? 1 : 0);
    }
    offsets.push_back(static_cast<int64_t>(tokens.size()));
  }
  SafetensorsWriter writer;
  writer.add_i32("tokens", {static_cast<int64_t>(tokens.size())}, tokens);
  writer.add_i64("offsets", {examples + 1}, offsets);
  writer.add("label_mask", DType::u8, {static_cast<int64_t>(mask.size())}, mask.data());
  writer.write(folder / "train_examples");
  SafetensorsWriter vocabulary;
  const std::vector<int32_t> items{16, 17, 18, 19, 20, 21, 22, 23};
  const std::vector<int64_t> sizes{kToyVocabulary, kToyFirstItem};
  vocabulary.add_i32("item_tokens", {4, 2}, items);
  vocabulary.add_i64("sizes", {2}, sizes);
  vocabulary.write(folder / "vocabulary");
}

inline Json toy_recipe(int64_t steps) {
  return {{"base",
           {{"kind", "scratch"},
            {"layers", 2},
            {"dim", 32},
            {"heads", 4},
            {"kvHeads", 2},
            {"ffnDim", 48},
            {"ropeTheta", 1000.0},
            {"normEps", 1e-5},
            {"tieEmbeddings", true}}},
          {"trainable", {{"kind", "full"}}},
          {"steps", steps},
          {"batchSequences", 14},
          {"lanes", 4},
          {"learningRate", 0.01},
          {"minLearningRate", 0.001},
          {"warmupSteps", 3},
          {"weightDecay", 0.05},
          {"beta1", 0.9},
          {"beta2", 0.95},
          {"epsilon", 1e-8},
          {"clipNorm", 1.0},
          {"dropout", 0.1},
          {"preferenceBeta", 0.1},
          {"precision", "fp32"},
          {"seed", 5}};
}

class TuneHost : public JobHost {
 public:
  void on_step(int64_t step, int64_t, const std::map<std::string, double>& metrics) override {
    steps.push_back(step);
    last_metrics = metrics;
    if (step == stop_after) flags |= kControlStop;
    if (step == checkpoint_after) flags |= kControlCheckpoint;
    if (step == abort_after) abandoned = true;
  }
  void on_log(const char*, const std::string&) override {}
  void on_checkpoint(int64_t step, const std::filesystem::path& folder, double) override {
    const std::lock_guard lock(mutex);
    checkpoints[step] = folder;
  }
  uint32_t take_control() override {
    const uint32_t taken = flags;
    flags &= ~static_cast<uint32_t>(kControlCheckpoint);
    return taken;
  }
  bool aborted() override { return abandoned; }

  int64_t stop_after = -1, checkpoint_after = -1, abort_after = -1;
  std::vector<int64_t> steps;
  std::map<std::string, double> last_metrics;
  std::map<int64_t, std::filesystem::path> checkpoints;

 private:
  std::mutex mutex;
  uint32_t flags = 0;
  std::atomic<bool> abandoned{false};
};

struct ToyRun {
  std::string kind = "tune";
  Json recipe;
  std::map<std::string, std::filesystem::path> inputs;
  int threads = 1;
  int64_t checkpoint_interval = 0;
  int64_t stop_step = 0;
  std::optional<std::filesystem::path> resume;
};

inline ToyRun toy_run(const std::filesystem::path& inputs, int64_t steps) {
  return {.recipe = toy_recipe(steps),
          .inputs = {{"train_examples", inputs / "train_examples"}, {"vocabulary", inputs / "vocabulary"}},
          .resume = std::nullopt};
}

// One rank; `folder` is its own.
inline JobOutcome run_rank_of(const ToyRun& run, const std::filesystem::path& folder, JobHost& host,
                              Transport* transport) {
  std::filesystem::create_directories(folder / "out");
  std::filesystem::create_directories(folder / "scratch");
  JobSpec spec{.kind = run.kind,
               .recipe = run.recipe,
               .inputs = run.inputs,
               .output_dir = folder / "out",
               .scratch_dir = folder / "scratch",
               .resume_dir = run.resume,
               .checkpoint_interval_steps = run.checkpoint_interval,
               .stop_step = run.stop_step,
               .threads = run.threads};
  JobContext context(spec, host, transport);
  prepare_compute_thread();
  JobOutcome outcome = run_job(context);
  context.finish_checkpoints();
  return outcome;
}

// model + loss_curve, as bytes.
inline std::string output_bytes(const std::filesystem::path& folder) {
  return read_text_file(folder / "out" / "model") + read_text_file(folder / "out" / "loss_curve");
}
inline std::string checkpoint_bytes(const std::filesystem::path& folder) {
  return read_text_file(folder / "training.safetensors") + read_text_file(folder / "state.json");
}

}  // namespace collimate
