// The decoder against PyTorch, transformers and PEFT: logits, loss, every gradient, and one clipped AdamW step.
//
// The fixture (test/parity/make_llama_fixture.py, versions in its files) was computed in float64 from fp32 weights, so
// what differs is our fp32 rounding: sums of at most 48 terms through two layers, about 1e-6 of the largest value. The
// bound of 1e-5 leaves room for another order of additions and nothing else.
#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>

#include "core/model/decoder.h"
#include "core/model/optimizer.h"
#include "core/model/parameters.h"
#include "core/ops.h"
#include "core/safetensors.h"
#include "fixtures.h"

namespace collimate {
namespace {

constexpr double kTolerance = 1e-5;

std::filesystem::path fixture() { return parity_fixture("llama"); }

BaseFiles base_files() {
  return {.config = fixture() / "base" / "config.json", .shards = {fixture() / "base" / "model.safetensors"}};
}

double relative_difference(std::span<const float> ours, std::span<const float> theirs) {
  REQUIRE(ours.size() == theirs.size());
  double worst = 0.0, largest = 1e-12;
  for (size_t i = 0; i < ours.size(); ++i) {
    worst = std::max(worst, std::fabs(static_cast<double>(ours[i]) - static_cast<double>(theirs[i])));
    largest = std::max(largest, std::fabs(static_cast<double>(theirs[i])));
  }
  return worst / largest;
}

std::vector<int64_t> trained_shape(const Parameter& parameter) {
  std::vector<int64_t> shape = parameter.shape;
  shape[0] = parameter.train_rows;
  return shape;
}

PackedBatch read_batch(const SafetensorsFile& file) {
  const auto tokens = file.i32("tokens", {-1});
  const auto offsets = file.i64("offsets", {-1});
  const auto mask = file.u8("label_mask", {-1});
  PackedBatch batch;
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    const auto begin = static_cast<size_t>(offsets[s]), size = static_cast<size_t>(offsets[s + 1] - offsets[s]);
    batch.add(tokens.subspan(begin, size), mask.subspan(begin, size));
  }
  return batch;
}

// `expected_tensors`: how many trained tensors the file must speak about.
void check_step(Parameters& parameters, const SafetensorsFile& file, int expected_tensors) {
  Pool pool(2);
  const Json step = Json::parse(file.metadata().at("step"));
  const PackedBatch batch = read_batch(file);
  Decoder decoder(parameters, pool, 32);
  CHECK(relative_difference(decoder.logits(batch),
                            file.f32("logits", {batch.labels(), parameters.config().vocabulary})) < kTolerance);

  std::vector<float> gradient(static_cast<size_t>(parameters.trained_elements()), 0.0f);
  const float scale = 1.0f / static_cast<float>(batch.labels());
  const double loss = decoder.forward_backward(batch, {.loss_scale = scale, .gradient = gradient}) /
                      static_cast<double>(batch.labels());
  CHECK(std::fabs(loss / static_cast<double>(file.f32("loss", {1})[0]) - 1.0) < kTolerance);
  int compared = 0;
  for (int number = 0; number < static_cast<int>(parameters.all().size()); ++number) {
    const Parameter& parameter = parameters.at(number);
    if (parameter.train_rows == 0) continue;
    const std::string name = exported_name(parameters, number);
    CAPTURE(name);
    const auto ours = std::span(gradient).subspan(static_cast<size_t>(parameter.gradient_offset),
                                                  static_cast<size_t>(parameter.trained_elements()));
    CHECK(relative_difference(ours, file.f32("gradient/" + name, trained_shape(parameter))) < kTolerance);
    ++compared;
  }
  CHECK(compared == expected_tensors);

  const double norm = std::sqrt(ops::sum_squares(pool, gradient));
  CHECK(std::fabs(norm / static_cast<double>(file.f32("grad_norm", {1})[0]) - 1.0) < kTolerance);
  REQUIRE(norm > step.at("clip_norm").get<double>());  // else clipping is not compared
  Optimizer optimizer(parameters, {.beta1 = step.at("betas").at(0).get<double>(),
                                   .beta2 = step.at("betas").at(1).get<double>(),
                                   .epsilon = step.at("eps").get<double>(),
                                   .weight_decay = step.at("weight_decay").get<double>(),
                                   .clip_norm = step.at("clip_norm").get<double>()});
  optimizer.apply(
      pool, {.step = 0, .learning_rate = step.at("lr").get<double>(), .gradient = gradient, .gradient_norm = norm});
  int updated = 0;
  for (int number = 0; number < static_cast<int>(parameters.all().size()); ++number) {
    const Parameter& parameter = parameters.at(number);
    const std::string name = "after/" + exported_name(parameters, number);
    if (parameter.train_rows == 0 || !file.has(name)) continue;
    CAPTURE(name);
    const float* values = parameters.data(number) + parameter.train_first_row * parameter.row_elements();
    CHECK(relative_difference(std::span(values, static_cast<size_t>(parameter.trained_elements())),
                              file.f32(name, trained_shape(parameter))) < kTolerance);
    ++updated;
  }
  CHECK(updated >= 5);
}

}  // namespace

TEST_CASE("parity: a fully trained Llama agrees with PyTorch") {
  const SafetensorsFile file = SafetensorsFile::open(fixture() / "full.safetensors");
  Parameters parameters({.config = base_files().read_config()});
  load_base(parameters, base_files(), 1);
  check_step(parameters, file, 2 * 9 + 3);
}

TEST_CASE("parity: LoRA with new token rows agrees with PEFT") {
  const SafetensorsFile file = SafetensorsFile::open(fixture() / "lora.safetensors");
  const Json lora = Json::parse(file.metadata().at("lora"));
  DecoderConfig config = base_files().read_config();
  const int64_t base_rows = config.vocabulary;
  config.vocabulary = 46;
  Parameters parameters({.config = config,
                         .trainable = {.lora = true,
                                       .rank = lora.at("rank").get<int64_t>(),
                                       .alpha = lora.at("alpha").get<double>(),
                                       .targets = lora.at("targets").get<std::vector<std::string>>()},
                         .first_trained_row = base_rows});
  load_base(parameters, base_files(), 1);
  for (int number = 0; number < static_cast<int>(parameters.all().size()); ++number) {
    const Parameter& parameter = parameters.at(number);
    if (parameter.train_rows == 0) continue;
    const auto start = file.f32("before/" + exported_name(parameters, number), trained_shape(parameter));
    std::copy(start.begin(), start.end(),
              parameters.data(number) + parameter.train_first_row * parameter.row_elements());
  }
  check_step(parameters, file, 2 * 5 * 2 + 2);
}

}  // namespace collimate
