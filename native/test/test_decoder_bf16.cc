// The decoder with bf16 products: close to fp32 in loss and every gradient, and the same bytes however it is run.
//
// Tolerance: a rounded operand is off by up to 2^-9 of itself, at random. With weights of order one, where attention is
// sharp, that has been seen to grow to 4.8 % of a gradient's length; a term left out or wrong is of order one.
#include <doctest/doctest.h>

#include <cmath>

#include "core/model/decoder.h"
#include "pool_decoder.h"
#include "tiny_decoder.h"
#include "tune_runs.h"

namespace collimate {
namespace {

constexpr double kGradient = 0.08;

bool has_unit() {
  if (bf16_unit() != Bf16Unit::none) return true;
  MESSAGE("skipped: this processor has no bf16 unit");
  return false;
}

struct Result {
  double loss = 0;
  std::vector<float> gradient, logits;
};

Result run(const DecoderWeights& weights) {
  const Parameters& parameters = weights.parameters();
  Decoder decoder(weights, 16);
  Result result;
  result.gradient.assign(static_cast<size_t>(parameters.trained_elements()), 0.0f);
  result.logits = decoder.logits(tiny_batch());
  result.loss = decoder.forward_backward(tiny_batch(), {.loss_scale = 0.125f, .gradient = result.gradient});
  return result;
}

double relative_distance(std::span<const float> a, std::span<const float> b) {
  double distance = 0, length = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    distance += std::pow(double(a[i]) - double(b[i]), 2);
    length += std::pow(double(b[i]), 2);
  }
  return std::sqrt(distance / length);
}

}  // namespace

TEST_CASE("decoder in bf16: loss, logits and every gradient are those of fp32 up to rounding") {
  if (!has_unit()) return;
  Pool pool(2);
  for (const bool tie : {false, true}) {
    for (const bool lora : {false, true}) {
      CAPTURE(tie);
      CAPTURE(lora);
      const Parameters parameters = tiny_parameters(tie, lora);
      const PoolWeights plain(parameters, pool), packed(parameters, pool, Precision::bf16);
      const Result exact = run(plain.weights), rounded = run(packed.weights);
      CHECK(rounded.loss == doctest::Approx(exact.loss).epsilon(0.01));
      CHECK(relative_distance(rounded.logits, exact.logits) < kGradient);
      CHECK(rounded.logits != exact.logits);
      for (const Parameter& parameter : parameters.all()) {
        if (parameter.train_rows == 0) continue;
        CAPTURE(parameter.name);
        const auto part = [&](const Result& result) {
          return std::span(result.gradient)
              .subspan(static_cast<size_t>(parameter.gradient_offset),
                       static_cast<size_t>(parameter.trained_elements()));
        };
        CHECK(relative_distance(part(rounded), part(exact)) < kGradient);
      }
    }
  }
}

TEST_CASE("decoder in bf16: weights that were refreshed are weights that were packed anew") {
  if (!has_unit()) return;
  Pool pool(1);
  for (const bool lora : {false, true}) {
    Parameters parameters = tiny_parameters(true, lora);
    PoolWeights refreshed(parameters, pool, Precision::bf16);
    for (int number = 0; number < static_cast<int>(parameters.all().size()); ++number) {
      const Parameter& parameter = parameters.at(number);
      float* trained = parameters.data(number) + parameter.train_first_row * parameter.row_elements();
      for (int64_t i = 0; i < parameter.trained_elements(); ++i) trained[i] *= 1.5f;
    }
    const Result stale = run(refreshed.weights);
    refreshed.weights.refresh();
    const PoolWeights anew(parameters, pool, Precision::bf16);
    const Result expected = run(anew.weights), got = run(refreshed.weights);
    CHECK(got.gradient == expected.gradient);
    CHECK(got.logits == expected.logits);
    CHECK(stale.logits != expected.logits);
  }
}

TEST_CASE("decoder in bf16: frozen matrices are let go without changing a byte; trained ones and the embedding stay") {
  if (!has_unit()) return;
  Pool pool(2);
  for (const bool tie : {false, true}) {
    CAPTURE(tie);
    // Matrices of many pages.
    Parameters parameters(
        {.config = DecoderConfig::from_shape(
             {.layers = 2, .dim = 64, .heads = 4, .kv_heads = 2, .ffn_dim = 256, .tie_embeddings = tie}, 400),
         .trainable = {.lora = true, .rank = 4, .alpha = 8.0, .targets = {"q_proj", "down_proj"}},
         .first_trained_rows = {400, 400}});
    const auto values = random_values(static_cast<int64_t>(parameters.values().size()), 12, 0.2f);
    std::copy(values.begin(), values.end(), parameters.values().begin());
    const PoolWeights packed(parameters, pool, Precision::bf16);
    const Result before = run(packed.weights);
    packed.weights.release_frozen(parameters);
    const Result after = run(packed.weights);
    CHECK(after.loss == before.loss);
    CHECK(after.gradient == before.gradient);
    CHECK(after.logits == before.logits);
    for (int number = 0; number < static_cast<int>(parameters.all().size()); ++number) {
      const Parameter& parameter = parameters.at(number);
      CAPTURE(parameter.name);
      const auto elements = static_cast<size_t>(parameter.elements());
      const bool same =
          std::equal(parameters.data(number), parameters.data(number) + elements, values.begin() + parameter.offset);
      const bool let_go = parameter.train_rows == 0 && parameter.shape.size() == 2 && number != parameters.embedding();
      CHECK(same == !let_go);
    }
  }
}

TEST_CASE("tune in bf16: threads, ranks and an interruption do not change the bytes; fp32 has others") {
  if (!has_unit()) return;
  const TemporaryFolder folder;
  write_toy_inputs(folder.path());
  ToyRun run = toy_run(folder.path(), 6);
  TuneHost host;
  run_rank_of(run, folder.path() / "fp32", host, nullptr);
  run.recipe["precision"] = "bf16";
  run.checkpoint_interval = 4;
  TuneHost saving;
  run_rank_of(run, folder.path() / "alone", saving, nullptr);
  const std::string expected = output_bytes(folder.path() / "alone");
  CHECK(output_bytes(folder.path() / "fp32") != expected);
  run.threads = 3;
  run_rank_of(run, folder.path() / "threads", host, nullptr);
  CHECK(output_bytes(folder.path() / "threads") == expected);
  run.threads = 1;
  run_gang(3, [&](Transport& transport) {
    TuneHost own;
    const auto to = folder.path() / std::to_string(transport.rank());
    run_rank_of(run, to, own, &transport);
    CHECK(output_bytes(to) == expected);
  });
  run.resume = saving.checkpoints.at(4);
  run_rank_of(run, folder.path() / "resumed", host, nullptr);
  CHECK(output_bytes(folder.path() / "resumed") == expected);
}

}  // namespace collimate
