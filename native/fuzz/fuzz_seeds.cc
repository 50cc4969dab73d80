// Valid inputs to start each fuzz target from. Usage: fuzz_seeds FOLDER; writes FOLDER/<target>/seed*.
#include <cstdio>
#include <filesystem>
#include <vector>

#include "core/atomic_file.h"
#include "core/json.h"
#include "core/model/decoder_config.h"
#include "core/safetensors.h"

namespace {

using namespace collimate;

std::filesystem::path folder_of(const std::filesystem::path& root, const char* target) {
  std::filesystem::create_directories(root / target);
  return root / target;
}

void write_tensors(const std::filesystem::path& path) {
  const std::vector<float> floats{1, 2, 3, 4, 5, 6};
  const std::vector<uint16_t> halves{0x3c00, 0x7c00, 0x0001};
  const std::vector<int64_t> integers{7, 8};
  SafetensorsWriter writer;
  writer.add_f32("a", {2, 3}, floats);
  writer.add("b", DType::f16, {3}, halves.data());
  writer.add("c", DType::bf16, {1, 3}, halves.data());
  writer.add_i64("d", {2}, integers);
  writer.set_metadata("format", "pt");
  writer.write(path);
}

void write_examples(const std::filesystem::path& path, bool grouped) {
  const std::vector<int32_t> tokens{1, 2, 3, 4, 5};
  const std::vector<int64_t> offsets{0, 2, 5}, groups{0, 2};
  const std::vector<uint8_t> mask{0, 1, 0, 0, 1}, tasks{1};
  SafetensorsWriter writer;
  writer.add_i32("tokens", {5}, tokens);
  writer.add_i64("offsets", {3}, offsets);
  writer.add("label_mask", DType::u8, {5}, mask.data());
  if (grouped) {
    writer.add_i64("groups", {2}, groups);
    writer.add("tasks", DType::u8, {1}, tasks.data());
    writer.set_metadata("tasks", "sequential ranking");
  }
  writer.write(path);
}

Json tune_recipe() {
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
          {"trainable", {{"kind", "lora"}, {"rank", 2}, {"alpha", 4}, {"targets", {"q_proj"}}}},
          {"steps", 3},
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
          {"preferenceBeta", 0.1},
          {"dropout", 0.1},
          {"precision", "fp32"},
          {"seed", 5}};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: fuzz_seeds FOLDER\n");
    return 2;
  }
  const std::filesystem::path root = argv[1];
  write_tensors(folder_of(root, "fuzz_safetensors") / "seed");
  write_examples(folder_of(root, "fuzz_train_examples") / "seed", false);
  write_examples(folder_of(root, "fuzz_train_examples") / "seed_grouped", true);
  const auto specs = folder_of(root, "fuzz_job_spec");
  const Json job = {{"kind", "tune"},
                    {"recipe", tune_recipe()},
                    {"inputs", {{"vocabulary", "v"}}},
                    {"outputDir", "out"},
                    {"scratchDir", "scratch"},
                    {"checkpointIntervalSteps", 2},
                    {"threads", 2},
                    {"gang", {{"rank", 0}, {"world", 2}, {"addresses", {"127.0.0.1:1", "127.0.0.1:2"}}, {"epoch", 1}}}};
  write_text_atomically(specs / "seed-job", job.dump());
  write_text_atomically(specs / "seed-recipe", tune_recipe().dump());
  Json config = Json::parse(
      DecoderConfig::from_shape({.layers = 2, .dim = 16, .heads = 4, .kv_heads = 2, .ffn_dim = 20}, 23).to_text());
  write_text_atomically(specs / "seed-config", config.dump());
  config["architectures"] = {"Qwen3ForCausalLM"};
  config["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", 4.0},
                            {"low_freq_factor", 1.0},
                            {"high_freq_factor", 4.0},
                            {"original_max_position_embeddings", 64}};
  write_text_atomically(specs / "seed-qwen", config.dump());
  return 0;
}
