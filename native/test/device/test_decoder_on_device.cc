// A decoder on a device: the processor's losses and gradients up to rounding, its own to the byte.
//
// Tolerance in fp32: sums of up to some hundred terms in another order, over two layers; 2e-5 of a gradient's length
// was not reached, a term left out or wrong is of order one. In bf16 both round operands alike, but sums in another
// order flip some of the roundings: see test_decoder_bf16.cc.
#include <doctest/doctest.h>

#include <cmath>
#include <optional>

#include "core/failure.h"
#include "core/model/decoder.h"
#include "core/model/optimizer.h"
#include "cuda/ops_backend.h"
#include "test/pool_decoder.h"
#include "test/tiny_decoder.h"

namespace collimate {
namespace {

constexpr double kExact = 2e-5, kRounded = 0.08;

struct Result {
  double loss = 0;
  std::vector<double> label_losses, losses;
  std::vector<float> gradient, logits, hidden;
};

struct Variant {
  Precision precision = Precision::fp32;
  bool recompute = false;
  float dropout = 0.0f;
};

Result run(const Parameters& parameters, OpsBackend& backend, const PackedBatch& batch, const Variant& variant) {
  const DecoderWeights weights(parameters, backend, variant.precision);
  Decoder decoder(weights, 16, {.recompute = variant.recompute});
  Result result;
  result.logits = decoder.logits(batch);
  result.losses = decoder.losses(batch);
  result.hidden = decoder.hidden_states(batch);
  result.gradient.assign(static_cast<size_t>(parameters.trained_elements()), 0.25f);  // is added to
  const BackendArray<float> gradient(backend, parameters.trained_elements());
  gradient.upload(result.gradient);
  result.label_losses.resize(static_cast<size_t>(batch.labels()));
  result.loss =
      decoder.forward_backward(batch, {.loss_scale = 0.125f,
                                       .dropout = {.probability = variant.dropout, .seed = 3, .step = 2, .lane = 1},
                                       .gradient = {gradient.data(), result.gradient.size()},
                                       .preference_beta = 0.4,
                                       .label_losses = result.label_losses});
  gradient.download(result.gradient);
  return result;
}

// NaN compares as infinitely far.
template <typename T>
double distance(const std::vector<T>& a, const std::vector<T>& b) {
  REQUIRE(a.size() == b.size());
  double apart = 0, length = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    apart += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    length += std::pow(static_cast<double>(b[i]), 2);
  }
  const double relative = std::sqrt(apart / length);
  return std::isfinite(relative) ? relative : INFINITY;
}

void check_near(const Result& got, const Result& expected, double tolerance) {
  CHECK(std::fabs(got.loss - expected.loss) < tolerance * std::fabs(expected.loss));
  CHECK(distance(got.logits, expected.logits) < tolerance);
  CHECK(distance(got.losses, expected.losses) < tolerance);
  CHECK(distance(got.hidden, expected.hidden) < tolerance);
  CHECK(distance(got.label_losses, expected.label_losses) < tolerance);
  CHECK(distance(got.gradient, expected.gradient) < tolerance);
}

void check_same(const Result& got, const Result& expected) {
  CHECK(got.loss == expected.loss);
  CHECK(got.logits == expected.logits);
  CHECK(got.losses == expected.losses);
  CHECK(got.hidden == expected.hidden);
  CHECK(got.gradient == expected.gradient);
}

}  // namespace

TEST_CASE("decoder on a device: losses, logits and gradients of the processor, the same bytes twice and recomputed") {
  Pool pool(2);
  const auto here = ops_on_processor(pool), there = cuda::ops_on_device(0);
  for (const bool tie : {false, true}) {
    for (const bool lora : {false, true}) {
      for (const float dropout : {0.0f, 0.2f}) {
        CAPTURE(tie);
        CAPTURE(lora);
        CAPTURE(dropout);
        const Parameters parameters = tiny_parameters(tie, lora);
        const Result got = run(parameters, *there, tiny_batch(), {.dropout = dropout});
        check_near(got, run(parameters, *here, tiny_batch(), {.dropout = dropout}), kExact);
        check_same(run(parameters, *there, tiny_batch(), {.dropout = dropout}), got);
        check_same(run(parameters, *there, tiny_batch(), {.recompute = true, .dropout = dropout}), got);
      }
    }
  }
}

TEST_CASE("decoder on a device: groups of preferred answers") {
  Pool pool(2);
  const auto here = ops_on_processor(pool), there = cuda::ops_on_device(0);
  const Parameters parameters = tiny_parameters(false, true);
  const PackedBatch batch = grouped_batch(kGroupReference);
  check_near(run(parameters, *there, batch, {}), run(parameters, *here, batch, {}), kExact);
}

TEST_CASE("decoder on a device: bf16 products, near fp32 and, where the processor has them, near its own") {
  Pool pool(2);
  const auto here = ops_on_processor(pool), there = cuda::ops_on_device(0);
  // Of width 16, heads of four columns stay in fp32 before the attention; of 32, those of eight are bf16 throughout.
  for (const int64_t dim : {16, 32}) {
    for (const bool lora : {false, true}) {
      for (const float dropout : {0.0f, 0.2f}) {
        CAPTURE(dim);
        CAPTURE(lora);
        CAPTURE(dropout);
        const Parameters parameters = tiny_parameters(!lora, lora, dim);
        const Variant bf16{.precision = Precision::bf16, .dropout = dropout};
        const Result got = run(parameters, *there, tiny_batch(), bf16);
        const Result exact = run(parameters, *there, tiny_batch(), {.dropout = dropout});
        check_near(got, exact, kRounded);
        CHECK(got.logits != exact.logits);
        check_same(run(parameters, *there, tiny_batch(),
                       {.precision = Precision::bf16, .recompute = true, .dropout = dropout}),
                   got);
        if (bf16_unit() != Bf16Unit::none) check_near(got, run(parameters, *here, tiny_batch(), bf16), kRounded);
      }
    }
  }
}

TEST_CASE("decoder on a device: what was trained is seen after refresh(), in both precisions") {
  const auto there = cuda::ops_on_device(0);
  for (const Precision precision : {Precision::fp32, Precision::bf16}) {
    for (const bool lora : {false, true}) {
      Parameters parameters = tiny_parameters(true, lora);
      DecoderWeights weights(parameters, *there, precision);
      for (int number = 0; number < static_cast<int>(parameters.all().size()); ++number) {
        const Parameter& parameter = parameters.at(number);
        float* trained = parameters.data(number) + parameter.train_first_row * parameter.row_elements();
        for (int64_t i = 0; i < parameter.trained_elements(); ++i) trained[i] *= 1.5f;
      }
      const std::vector<float> stale = Decoder(weights, 16).logits(tiny_batch());
      weights.refresh(Optimizer(parameters, *there, {}).trained());
      const DecoderWeights anew(parameters, *there, precision);
      const std::vector<float> expected = Decoder(anew, 16).logits(tiny_batch());
      CHECK(Decoder(weights, 16).logits(tiny_batch()) == expected);
      CHECK(stale != expected);
    }
  }
}

TEST_CASE("decoder on a device: tokens beyond the vocabulary and sequences too long are refused before they arrive") {
  const auto there = cuda::ops_on_device(0);
  const Parameters parameters = tiny_parameters(true, false);
  const DecoderWeights weights(parameters, *there);
  Decoder decoder(weights, 4);
  for (const std::vector<int32_t>& sequence :
       {std::vector<int32_t>{1, 23}, std::vector<int32_t>{-1, 2}, std::vector<int32_t>{1, 2, 3, 4, 5}}) {
    PackedBatch batch;
    batch.add(sequence, std::vector<uint8_t>(sequence.size(), 1));
    try {
      decoder.logits(batch);
      FAIL("expected a failure");
    } catch (const JobFailure& failure) {
      CHECK(failure.cause() == FailureCause::bad_input);
    }
  }
}

}  // namespace collimate
