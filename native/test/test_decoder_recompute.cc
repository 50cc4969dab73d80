// Activations that are made again: the same bytes of loss and gradient as those that were kept, for every kind of
// decoder, in fewer bytes of memory; and the workspace that is foretold is the one that is taken.
#include <doctest/doctest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "core/model/decoder.h"
#include "fixtures.h"
#include "pool_decoder.h"
#include "tiny_decoder.h"

namespace collimate {
namespace {

struct Passes {
  double loss = 0.0;
  std::vector<float> gradient;
  int64_t bytes = 0;
};

// Two passes of unlike size on one decoder, so that the second finds the first's leavings in its workspace.
struct Variant {
  Precision precision = Precision::fp32;
  bool recompute = false;
  float dropout = 0.0f;
  int threads = 2;
};

Passes run(const Parameters& parameters, const Variant& variant) {
  Pool pool(variant.threads);
  const PoolWeights of(parameters, pool, variant.precision);
  Decoder decoder(of.weights, 16, {.recompute = variant.recompute});
  Passes passes;
  passes.gradient.assign(static_cast<size_t>(parameters.trained_elements()), 0.0f);
  PackedBatch small;
  small.add(std::vector<int32_t>{4, 1, 9}, std::vector<uint8_t>{0, 1, 1});
  for (const PackedBatch& batch : {tiny_batch(), small}) {
    passes.loss +=
        decoder.forward_backward(batch, {.loss_scale = 0.125f,
                                         .dropout = {.probability = variant.dropout, .seed = 3, .step = 2, .lane = 1},
                                         .gradient = passes.gradient});
  }
  passes.bytes = decoder.workspace_bytes();
  return passes;
}

void check_same(const Parameters& parameters, Precision precision) {
  for (const float dropout : {0.0f, 0.3f}) {
    CAPTURE(dropout);
    const Passes kept = run(parameters, {.precision = precision, .dropout = dropout});
    for (const int threads : {1, 2, 3}) {
      const Passes again =
          run(parameters, {.precision = precision, .recompute = true, .dropout = dropout, .threads = threads});
      CHECK(again.loss == kept.loss);
      CHECK(again.gradient == kept.gradient);
      CHECK(again.bytes < kept.bytes);
    }
  }
}

TEST_CASE("recompute: equal bytes, tied and untied, in full and with adapters, with dropout and without") {
  for (const bool tie : {false, true}) {
    for (const bool lora : {false, true}) {
      CAPTURE(tie);
      CAPTURE(lora);
      check_same(tiny_parameters(tie, lora), Precision::fp32);
    }
  }
}

TEST_CASE("recompute: equal bytes in bf16") {
  if (bf16_unit() == Bf16Unit::none) {
    MESSAGE("skipped: this processor has no bf16 unit");
    return;
  }
  for (const bool lora : {false, true}) check_same(tiny_parameters(true, lora), Precision::bf16);
}

TEST_CASE("recompute: equal bytes for each architecture: biases, norms of heads, windows") {
  for (const std::string architecture : {"llama", "llama_bias", "mistral", "qwen2", "qwen3"}) {
    CAPTURE(architecture);
    const auto folder = parity_fixture(architecture) / "base";
    BaseFiles files{.config = folder / "config.json", .shards = {}};
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      if (entry.path().extension() == ".safetensors") files.shards.push_back(entry.path());
    }
    for (const bool lora : {false, true}) {
      Parameters::Options options{.config = files.read_config()};
      if (lora) options.trainable = {.lora = true, .rank = 2, .alpha = 4.0, .targets = {"q_proj", "o_proj", "up_proj"}};
      Parameters parameters(options);
      load_base(parameters, files, 1);
      initialise_adapters(parameters, 1);
      check_same(parameters, Precision::fp32);
    }
  }
}

TEST_CASE("recompute: a deeper decoder costs the residual stream a layer, not the layer") {
  const auto bytes = [](int64_t layers, bool recompute) {
    const Parameters parameters({.config = DecoderConfig::from_shape(
                                     {.layers = layers, .dim = 64, .heads = 4, .kv_heads = 2, .ffn_dim = 176}, 100)});
    return Decoder::workspace_bytes(parameters, {.rows = 32, .labels = 10, .recompute = recompute});
  };
  const int64_t stream = 32 * 64 * 4;
  CHECK(bytes(9, true) - bytes(8, true) == 2 * stream);
  CHECK(bytes(9, false) - bytes(8, false) > 10 * stream);
}

TEST_CASE("recompute: the workspace that is foretold is the one that is taken") {
  for (const bool recompute : {false, true}) {
    for (const bool lora : {false, true}) {
      const Parameters parameters = tiny_parameters(true, lora);
      const PackedBatch batch = tiny_batch();
      const int64_t foretold = Decoder::workspace_bytes(
          parameters, {.rows = batch.rows(), .labels = batch.labels(), .recompute = recompute});
      CHECK(run(parameters, {.recompute = recompute}).bytes == foretold);
    }
  }
}

}  // namespace
}  // namespace collimate
