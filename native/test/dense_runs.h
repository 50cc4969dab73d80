// Runs of the dense job in tests: a toy log with structure in behaviour and in text.
#pragma once

#include <filesystem>
#include <vector>

#include "core/philox.h"
#include "core/safetensors.h"
#include "tune_runs.h"

namespace collimate {

constexpr int64_t kDenseItems = 30;
constexpr int64_t kDenseUsers = 60;

// Users go round x, x + 7, x + 14, … modulo the items, over 2 to 9 events; text vectors are noise around one of five
// directions, and items 0 and 1 have none.
inline void write_dense_inputs(const std::filesystem::path& folder) {
  std::vector<int32_t> items;
  std::vector<int64_t> offsets{0};
  for (int64_t user = 0; user < kDenseUsers; ++user) {
    const auto index = static_cast<uint64_t>(user);
    const uint32_t start = user < kDenseItems ? static_cast<uint32_t>(user) : random_below({.seed = 4}, index, 30);
    const uint32_t length = 2 + random_below({.seed = 5}, index, 8);
    for (uint32_t i = 0; i < length; ++i) items.push_back(static_cast<int32_t>((start + 7 * i) % kDenseItems));
    offsets.push_back(static_cast<int64_t>(items.size()));
  }
  SafetensorsWriter dataset;
  dataset.add_i64("user_offsets", {kDenseUsers + 1}, offsets);
  dataset.add_i32("items", {static_cast<int64_t>(items.size())}, items);
  dataset.write(folder / "dataset");
  constexpr int64_t kWidth = 5;
  std::vector<float> rows(kDenseItems * kWidth, 0.0f);
  for (int64_t i = 2; i < kDenseItems; ++i)
    for (int64_t c = 0; c < kWidth; ++c)
      rows[static_cast<size_t>(i * kWidth + c)] =
          (i % kWidth == c ? 1.0f : 0.0f) + 0.2f * random_normal({.seed = 6}, static_cast<uint64_t>(i * kWidth + c));
  SafetensorsWriter text;
  text.add_f32("items", {kDenseItems, kWidth}, rows);
  text.write(folder / "text_vectors");
}

inline Json dense_recipe(int64_t epochs) {
  return {{"layers", 2},
          {"dim", 16},
          {"heads", 2},
          {"ffnDim", 24},
          {"itemsMax", 5},
          {"textHidden", 12},
          {"temperature", 0.1},
          {"dropout", 0.1},
          {"idDropout", 0.3},
          {"epochs", epochs},
          {"batchSequences", 12},
          {"lanes", 4},
          {"learningRate", 0.01},
          {"minLearningRate", 0.001},
          {"warmupSteps", 3},
          {"weightDecay", 0.01},
          {"beta1", 0.9},
          {"beta2", 0.98},
          {"epsilon", 1e-8},
          {"clipNorm", 1.0},
          {"seed", 5}};
}

inline ToyRun dense_run(const std::filesystem::path& inputs, int64_t epochs, bool text = true) {
  ToyRun run{.kind = "dense",
             .recipe = dense_recipe(epochs),
             .inputs = {{"dataset", inputs / "dataset"}},
             .resume = std::nullopt};
  if (text) run.inputs["text_vectors"] = inputs / "text_vectors";
  return run;
}

}  // namespace collimate
