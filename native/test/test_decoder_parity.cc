// The decoder of each architecture against PyTorch, transformers and PEFT: logits, loss, every gradient, one clipped
// AdamW step, twenty of them on adapters, and the lists of a constrained beam search.
//
// The fixtures (test/parity/make_decoder_fixtures.py, versions in its files) were computed in float64 from fp32
// weights, so what differs is our fp32 rounding: sums of at most 48 terms through two layers, about 1e-6 of the largest
// value. The bound of 1e-5 leaves room for another order of additions and nothing else. Twenty steps feed such
// differences back through AdamW, whose division by the root of a small second moment amplifies them where gradients
// are near zero: 2e-4 was seen.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "core/model/decoder.h"
#include "core/model/optimizer.h"
#include "core/model/parameters.h"
#include "core/ops.h"
#include "core/rank/ranker.h"
#include "core/safetensors.h"
#include "fixtures.h"
#include "pool_decoder.h"

namespace collimate {
namespace {

constexpr double kTolerance = 1e-5;
constexpr double kAfterTwentySteps = 5e-3;
constexpr const char* kArchitectures[] = {"llama", "llama_bias", "mistral", "qwen2", "qwen3"};

BaseFiles base_files(const std::string& architecture) {
  const auto folder = parity_fixture(architecture) / "base";
  BaseFiles files{.config = folder / "config.json", .shards = {}};
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".safetensors") files.shards.push_back(entry.path());
  }
  std::sort(files.shards.begin(), files.shards.end());
  return files;
}

SafetensorsFile open_fixture(const std::string& architecture, const char* name) {
  return SafetensorsFile::open(parity_fixture(architecture) / name);
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

Optimizer make_optimizer(Parameters& parameters, OpsBackend& backend, const SafetensorsFile& file) {
  const Json step = Json::parse(file.metadata().at("step"));
  return Optimizer(parameters, backend,
                   {.beta1 = step.at("betas").at(0).get<double>(),
                    .beta2 = step.at("betas").at(1).get<double>(),
                    .epsilon = step.at("eps").get<double>(),
                    .weight_decay = step.at("weight_decay").get<double>(),
                    .clip_norm = step.at("clip_norm").get<double>()});
}

double learning_rate(const SafetensorsFile& file) {
  return Json::parse(file.metadata().at("step")).at("lr").get<double>();
}

// Compares the trained parameters with tensors `prefix` + name; answers how many the file has.
int check_trained(const Parameters& parameters, const SafetensorsFile& file, const std::string& prefix,
                  double tolerance) {
  int compared = 0;
  for (int number = 0; number < static_cast<int>(parameters.all().size()); ++number) {
    const Parameter& parameter = parameters.at(number);
    const std::string name = prefix + exported_name(parameters, number);
    if (parameter.train_rows == 0 || !file.has(name)) continue;
    CAPTURE(name);
    const float* values = parameters.data(number) + parameter.train_first_row * parameter.row_elements();
    CHECK(relative_difference(std::span(values, static_cast<size_t>(parameter.trained_elements())),
                              file.f32(name, trained_shape(parameter))) < tolerance);
    ++compared;
  }
  return compared;
}

void check_step(Parameters& parameters, const SafetensorsFile& file) {
  Pool pool(2);
  const PackedBatch batch = read_batch(file);
  PoolDecoder decoder(parameters, pool, 32);
  CHECK(relative_difference(decoder.logits(batch),
                            file.f32("logits", {batch.labels(), parameters.config().vocabulary})) < kTolerance);

  std::vector<float> gradient(static_cast<size_t>(parameters.trained_elements()), 0.0f);
  const float scale = 1.0f / static_cast<float>(batch.labels());
  const double loss = decoder.forward_backward(batch, {.loss_scale = scale, .gradient = gradient}) /
                      static_cast<double>(batch.labels());
  CHECK(std::fabs(loss / static_cast<double>(file.f32("loss", {1})[0]) - 1.0) < kTolerance);
  size_t compared = 0;
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
  // No gradient of theirs is without one of ours.
  CHECK(compared ==
        static_cast<size_t>(std::count_if(file.tensors().begin(), file.tensors().end(),
                                          [](const auto& entry) { return entry.first.rfind("gradient/", 0) == 0; })));

  const double norm = std::sqrt(ops::sum_squares(pool, gradient));
  CHECK(std::fabs(norm / static_cast<double>(file.f32("grad_norm", {1})[0]) - 1.0) < kTolerance);
  REQUIRE(norm >
          Json::parse(file.metadata().at("step")).at("clip_norm").get<double>());  // else clipping is not compared
  const auto backend = ops_on_processor(pool);
  Optimizer optimizer = make_optimizer(parameters, *backend, file);
  optimizer.apply({.step = 0, .learning_rate = learning_rate(file), .gradient = gradient, .gradient_norm = norm});
  CHECK(check_trained(parameters, file, "after/", kTolerance) >= 5);
}

// The base with adapters and new rows as the fixture starts from them.
Parameters adapted(const std::string& architecture, const SafetensorsFile& file) {
  const Json lora = Json::parse(file.metadata().at("lora"));
  DecoderConfig config = base_files(architecture).read_config();
  const int64_t base_rows = config.vocabulary;
  config.vocabulary = 46;
  Parameters parameters({.config = config,
                         .trainable = {.lora = true,
                                       .rank = lora.at("rank").get<int64_t>(),
                                       .alpha = lora.at("alpha").get<double>(),
                                       .targets = lora.at("targets").get<std::vector<std::string>>()},
                         .first_trained_rows = {base_rows, base_rows}});
  load_base(parameters, base_files(architecture), 1);
  for (int number = 0; number < static_cast<int>(parameters.all().size()); ++number) {
    const Parameter& parameter = parameters.at(number);
    if (parameter.train_rows == 0) continue;
    const auto start = file.f32("before/" + exported_name(parameters, number), trained_shape(parameter));
    std::copy(start.begin(), start.end(),
              parameters.data(number) + parameter.train_first_row * parameter.row_elements());
  }
  return parameters;
}

}  // namespace

TEST_CASE("parity: a fully trained decoder of each architecture agrees with PyTorch") {
  for (const std::string architecture : kArchitectures) {
    CAPTURE(architecture);
    Parameters parameters({.config = base_files(architecture).read_config()});
    load_base(parameters, base_files(architecture), 1);
    check_step(parameters, open_fixture(architecture, "full.safetensors"));
  }
}

TEST_CASE("parity: LoRA with new token rows agrees with PEFT, for each architecture") {
  for (const std::string architecture : kArchitectures) {
    CAPTURE(architecture);
    const SafetensorsFile file = open_fixture(architecture, "lora.safetensors");
    Parameters parameters = adapted(architecture, file);
    check_step(parameters, file);
  }
}

TEST_CASE("parity: 1, 2 and 3 threads give the same bytes, for each architecture") {
  for (const std::string architecture : kArchitectures) {
    CAPTURE(architecture);
    Parameters parameters({.config = base_files(architecture).read_config()});
    load_base(parameters, base_files(architecture), 1);
    const PackedBatch batch = read_batch(open_fixture(architecture, "full.safetensors"));
    std::vector<std::vector<float>> gradients;
    for (const int threads : {1, 2, 3}) {
      Pool pool(threads);
      gradients.emplace_back(static_cast<size_t>(parameters.trained_elements()), 0.0f);
      PoolDecoder(parameters, pool, 32).forward_backward(batch, {.gradient = gradients.back()});
    }
    CHECK(gradients[1] == gradients[0]);
    CHECK(gradients[2] == gradients[0]);
  }
}

TEST_CASE("parity: twenty steps of LoRA take PEFT's losses to PEFT's adapters, for each architecture") {
  constexpr int kSteps = 20;
  Pool pool(2);
  for (const std::string architecture : kArchitectures) {
    CAPTURE(architecture);
    const SafetensorsFile file = open_fixture(architecture, "lora.safetensors");
    Parameters parameters = adapted(architecture, file);
    const PackedBatch batch = read_batch(file);
    const auto losses = file.f32("losses", {kSteps});
    PoolDecoder decoder(parameters, pool, 32);
    const auto backend = ops_on_processor(pool);
    Optimizer optimizer = make_optimizer(parameters, *backend, file);
    for (int step = 0; step < kSteps; ++step) {
      CAPTURE(step);
      std::vector<float> gradient(static_cast<size_t>(parameters.trained_elements()), 0.0f);
      const float scale = 1.0f / static_cast<float>(batch.labels());
      const double loss = decoder.forward_backward(batch, {.loss_scale = scale, .gradient = gradient}) * double(scale);
      CHECK(std::fabs(loss / double(losses[static_cast<size_t>(step)]) - 1.0) < kAfterTwentySteps);
      optimizer.apply({.step = step,
                       .learning_rate = learning_rate(file),
                       .gradient = gradient,
                       .gradient_norm = std::sqrt(ops::sum_squares(pool, gradient))});
    }
    CHECK(double(losses[kSteps - 1]) < 0.9 * double(losses[0]));
    CHECK(check_trained(parameters, file, "final/", kAfterTwentySteps) >= 21);
  }
}

// Scores decide: where two of theirs are closer than rounding, either order is right.
TEST_CASE("parity: constrained beam search gives transformers' items and scores, for each architecture") {
  constexpr int64_t kBeams = 8;
  constexpr double kScore = 2e-4;  // three log-probabilities of fp32 logits of order ten
  Pool pool(2);
  for (const std::string architecture : kArchitectures) {
    CAPTURE(architecture);
    const SafetensorsFile file = open_fixture(architecture, "beam.safetensors");
    Parameters parameters({.config = base_files(architecture).read_config()});
    load_base(parameters, base_files(architecture), 1);
    const auto items = file.i32("items", {-1, 3});
    const int64_t users = file.get("sequences").shape[0];
    const ItemTrie trie = ItemTrie::build({.item_tokens = items,
                                           .items = file.get("items").shape[0],
                                           .levels = 3,
                                           .vocabulary = parameters.config().vocabulary});
    const std::vector<int32_t> names{0, 1, 2};
    const PromptSet prompts{file.i32("prompts", {-1}), file.i64("offsets", {users + 1}), names};
    const PoolWeights of(parameters, pool);
    const RankedLists ours = rank_prompts(pool,
                                          {.weights = &of.weights,
                                           .trie = &trie,
                                           .prompts = &prompts,
                                           .beam = {.beams = kBeams, .top_k = kBeams},
                                           .count = users},
                                          {});
    const auto sequences = file.i32("sequences", {users, kBeams});
    const auto scores = file.f32("scores", {users, kBeams});
    for (size_t i = 0; i < ours.items.size(); ++i) {
      CAPTURE(i);
      CHECK(std::fabs(double(ours.scores[i]) - double(scores[i])) < kScore);
      // Their score of our item at this place.
      const size_t user = i / kBeams;
      double theirs = -1e30;
      for (size_t j = user * kBeams; j < (user + 1) * kBeams; ++j)
        if (sequences[j] == ours.items[i]) theirs = double(scores[j]);
      CHECK(std::fabs(theirs - double(scores[i])) < kScore);
    }
  }
}

}  // namespace collimate
