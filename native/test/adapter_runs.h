// Tune runs of adapters over the fixture base `llama` in tests.
#pragma once

#include <doctest/doctest.h>

#include "core/failure.h"
#include "fixtures.h"
#include "tune_runs.h"

namespace collimate {

inline std::filesystem::path base_folder() { return parity_fixture("llama") / "base"; }

// The toy task over the fixture's base, its tokens moved to the end of a vocabulary of 50 (the base has 40).
inline ToyRun lora_run(const std::filesystem::path& folder, int64_t steps) {
  write_toy_inputs(folder);
  ToyRun run = toy_run(folder, steps);
  run.recipe["base"] = {{"kind", "huggingface"}};
  run.recipe["trainable"] = {
      {"kind", "lora"}, {"rank", 4}, {"alpha", 8}, {"targets", {"q_proj", "v_proj", "gate_proj", "down_proj"}}};
  run.recipe["learningRate"] = 0.02;
  run.inputs["base/config.json"] = base_folder() / "config.json";
  run.inputs["base/model.safetensors"] = base_folder() / "model.safetensors";
  const SafetensorsFile file = SafetensorsFile::open(folder / "train_examples");
  std::vector<int32_t> tokens(file.i32("tokens", {-1}).begin(), file.i32("tokens", {-1}).end());
  for (int32_t& token : tokens) token += 26;
  SafetensorsWriter writer;
  writer.add_i32("tokens", {static_cast<int64_t>(tokens.size())}, tokens);
  writer.add_i64("offsets", {-1 + static_cast<int64_t>(file.i64("offsets", {-1}).size()) + 1},
                 file.i64("offsets", {-1}));
  writer.add("label_mask", DType::u8, {static_cast<int64_t>(tokens.size())}, file.u8("label_mask", {-1}).data());
  writer.write(folder / "moved");
  run.inputs["train_examples"] = folder / "moved";
  SafetensorsWriter vocabulary;
  const std::vector<int64_t> sizes{50, 42};
  vocabulary.add_i64("sizes", {2}, sizes);
  vocabulary.write(folder / "vocabulary");
  return run;
}

inline std::string failure_of(const ToyRun& run) {
  const TemporaryFolder folder;
  TuneHost host;
  try {
    run_rank_of(run, folder.path(), host, nullptr);
  } catch (const JobFailure& failure) {
    CHECK(failure.cause() == FailureCause::bad_input);
    return failure.what();
  }
  return "no failure";
}

}  // namespace collimate
