// The whole decoder: gradients by finite differences, packing, determinism, and what is trained.
//
// Tolerance of finite differences: the loss is a sum over 10 labels of fp32 passes (noise about 1e-6 of it), the step
// is 2e-3, so noise is below 1e-3 of gradients of order one and truncation below 1e-4: 5e-3 relative to the largest.
#include <doctest/doctest.h>

#include <cstring>

#include "core/failure.h"
#include "core/model/decoder.h"
#include "core/model/optimizer.h"
#include "pool_decoder.h"
#include "tiny_decoder.h"

namespace collimate {
namespace {

constexpr double kGradient = 5e-3;

// Checks the gradient of every trained parameter.
void check_gradients(bool tie, bool lora, const DropoutSpec& dropout) {
  Pool pool(2);
  Parameters parameters = tiny_parameters(tie, lora);
  const PackedBatch batch = tiny_batch();
  PoolDecoder decoder(parameters, pool, 16);
  std::vector<float> gradient(static_cast<size_t>(parameters.trained_elements()), 0.0f);
  std::vector<float> unused(gradient.size());
  const float scale = 0.125f;
  decoder.forward_backward(batch, {.loss_scale = scale, .dropout = dropout, .gradient = gradient});
  const auto loss = [&] {
    return static_cast<double>(scale) *
           decoder.forward_backward(batch, {.loss_scale = scale, .dropout = dropout, .gradient = unused});
  };
  int checked = 0;
  for (int number = 0; number < static_cast<int>(parameters.all().size()); ++number) {
    const Parameter& parameter = parameters.at(number);
    if (parameter.train_rows == 0) continue;
    const auto elements = static_cast<size_t>(parameter.trained_elements());
    CAPTURE(parameter.name);
    const double error = gradient_error(
        {.values = std::span(parameters.data(number) + parameter.train_first_row * parameter.row_elements(), elements),
         .analytic = std::span(gradient).subspan(static_cast<size_t>(parameter.gradient_offset), elements),
         .loss = loss,
         .step = 5e-3f});
    CHECK(error < kGradient);
    ++checked;
  }
  const int tables = tie ? 1 : 2;
  CHECK(checked == (lora ? 2 * 5 * 2 + tables : 2 * 9 + 1 + tables));
}

struct RunResult {
  double loss;
  std::vector<float> gradient;
};
RunResult run(int threads, bool lora) {
  Pool pool(threads);
  Parameters parameters = tiny_parameters(false, lora);
  PackedBatch batch;
  for (uint64_t s = 0; s < 9; ++s) {
    std::vector<int32_t> tokens;
    for (uint64_t i = 0; i < 5 + 20 * s; ++i) {
      tokens.push_back(static_cast<int32_t>(random_below({.seed = 3, .stream = s}, i, 23)));
    }
    batch.add(tokens, std::vector<uint8_t>(tokens.size(), 1));
  }
  PoolDecoder decoder(parameters, pool, 200);
  RunResult result{0.0, std::vector<float>(static_cast<size_t>(parameters.trained_elements()), 0.0f)};
  result.loss = decoder.forward_backward(batch, {.loss_scale = 0.01f,
                                                 .dropout = {.probability = 0.1f, .seed = 1, .step = 5, .lane = 2},
                                                 .gradient = result.gradient});
  return result;
}

}  // namespace

TEST_CASE("decoder: gradients of a fully trained decoder, untied and tied") {
  check_gradients(false, false, {});
  check_gradients(true, false, {});
}

TEST_CASE("decoder: gradients of adapters and item-token rows, untied and tied") {
  check_gradients(false, true, {});
  check_gradients(true, true, {});
}

TEST_CASE("decoder: gradients under dropout, whose mask is that of the forward") {
  check_gradients(true, false, {.probability = 0.3f, .seed = 9, .step = 4, .lane = 1});
}

TEST_CASE("decoder: dropout depends on step and lane, and only then") {
  Pool pool(1);
  Parameters parameters = tiny_parameters(true, false);
  PoolDecoder decoder(parameters, pool, 16);
  std::vector<float> gradient(static_cast<size_t>(parameters.trained_elements()));
  const auto loss = [&](const DropoutSpec& dropout) {
    return decoder.forward_backward(tiny_batch(), {.dropout = dropout, .gradient = gradient});
  };
  const double base = loss({.probability = 0.3f, .seed = 9, .step = 4, .lane = 1});
  CHECK(base == loss({.probability = 0.3f, .seed = 9, .step = 4, .lane = 1}));
  CHECK(base != loss({.probability = 0.3f, .seed = 9, .step = 5, .lane = 1}));
  CHECK(base != loss({.probability = 0.3f, .seed = 9, .step = 4, .lane = 2}));
  CHECK(base != loss({.probability = 0.3f, .seed = 8, .step = 4, .lane = 1}));
  CHECK(loss({}) == loss({.probability = 0.0f, .seed = 8, .step = 4, .lane = 1}));
}

TEST_CASE("decoder: a packed batch gives the sum of its sequences") {
  Pool pool(2);
  Parameters parameters = tiny_parameters(true, false);
  PoolDecoder decoder(parameters, pool, 16);
  const PackedBatch batch = tiny_batch();
  std::vector<float> together(static_cast<size_t>(parameters.trained_elements()), 0.0f), apart(together.size(), 0.0f);
  const double loss = decoder.forward_backward(batch, {.gradient = together});
  double sum = 0.0;
  for (size_t s = 0; s + 1 < batch.offsets.size(); ++s) {
    const auto begin = static_cast<size_t>(batch.offsets[s]), end = static_cast<size_t>(batch.offsets[s + 1]);
    std::vector<uint8_t> labels(end - begin, 0);
    for (const int32_t row : batch.label_rows) {
      if (static_cast<size_t>(row) >= begin && static_cast<size_t>(row) < end)
        labels[static_cast<size_t>(row) + 1 - begin] = 1;
    }
    PackedBatch one;
    one.add(std::span(batch.tokens).subspan(begin, end - begin), labels);
    sum += decoder.forward_backward(one, {.gradient = apart});
  }
  CHECK(loss == doctest::Approx(sum).epsilon(1e-6));
  // Same terms in another order: fp32 rounding of sums of ten.
  for (size_t i = 0; i < together.size(); ++i) CHECK(std::fabs(together[i] - apart[i]) < 2e-5f);
}

TEST_CASE("decoder: 1, 2 and 3 threads give the same bytes") {
  for (const bool lora : {false, true}) {
    const RunResult one = run(1, lora);
    for (const int threads : {2, 3}) {
      const RunResult other = run(threads, lora);
      CHECK(one.loss == other.loss);
      CHECK(std::memcmp(one.gradient.data(), other.gradient.data(), one.gradient.size() * sizeof(float)) == 0);
    }
  }
}

TEST_CASE("decoder: an update moves trained elements only, and decays matrices only") {
  Pool pool(1);
  Parameters parameters = tiny_parameters(true, true);
  const std::vector<float> before(parameters.values().begin(), parameters.values().end());
  const auto backend = ops_on_processor(pool);
  Optimizer optimizer(parameters, *backend, {.weight_decay = 0.5});
  const std::vector<float> zero(static_cast<size_t>(parameters.trained_elements()), 0.0f);
  // With a zero gradient only decay can move a value.
  optimizer.apply({.step = 0, .learning_rate = 0.1, .gradient = zero, .gradient_norm = 0.0});
  for (const Parameter& parameter : parameters.all()) {
    const bool decays = parameter.name.find("lora_") != std::string::npos;
    CAPTURE(parameter.name);
    const auto first = static_cast<size_t>(parameter.offset), count = static_cast<size_t>(parameter.elements());
    const bool same =
        std::memcmp(before.data() + first, parameters.values().data() + first, count * sizeof(float)) == 0;
    CHECK(same == !decays);
  }
  const std::vector<float> ones(zero.size(), 1.0f);
  optimizer.apply({.step = 1, .learning_rate = 0.1, .gradient = ones, .gradient_norm = 1.0});
  const Parameter& table = parameters.at(parameters.embedding());
  const auto split = static_cast<size_t>(table.offset + table.train_first_row * table.row_elements());
  CHECK(std::memcmp(before.data() + table.offset, parameters.values().data() + table.offset,
                    (split - static_cast<size_t>(table.offset)) * sizeof(float)) == 0);
  CHECK(before[split] != parameters.values()[split]);
}

TEST_CASE(
    "decoder: clipping scales the update's gradient to the given norm; the schedule warms up and ends at its minimum") {
  Pool pool(1);
  Parameters a = tiny_parameters(true, false), b = tiny_parameters(true, false);
  const auto backend = ops_on_processor(pool);
  Optimizer clipped(a, *backend, {.epsilon = 1.0, .clip_norm = 1.0}), scaled(b, *backend, {.epsilon = 1.0});
  const std::vector<float> large(static_cast<size_t>(a.trained_elements()), 4.0f), small(large.size(), 1.0f);
  clipped.apply({.step = 0, .learning_rate = 0.1, .gradient = large, .gradient_norm = 4.0});
  scaled.apply({.step = 0, .learning_rate = 0.1, .gradient = small, .gradient_norm = 1.0});
  for (size_t i = 0; i < a.values().size(); ++i) CHECK(a.values()[i] == doctest::Approx(b.values()[i]).epsilon(1e-5));
  const LearningRateSchedule schedule{.maximum = 1.0, .minimum = 0.1, .warmup_steps = 4, .steps = 104};
  CHECK(schedule.at(0) == doctest::Approx(0.25));
  CHECK(schedule.at(3) == doctest::Approx(1.0));
  CHECK(schedule.at(4) == doctest::Approx(1.0));
  CHECK(schedule.at(54) == doctest::Approx(0.55));
  CHECK(schedule.at(104) == doctest::Approx(0.1));
}

TEST_CASE("decoder: config.json that this decoder does not compute is refused by field") {
  const DecoderConfig good = tiny_config(true);
  const auto error = [&](const char* field, const Json& value) {
    Json json = Json::parse(good.to_text());
    json[field] = value;
    try {
      DecoderConfig::parse(json.dump(), "base/config.json");
    } catch (const JobFailure& failure) {
      CHECK(failure.cause() == FailureCause::bad_input);
      return std::string(failure.what());
    }
    return std::string("accepted");
  };
  for (const auto& [field, value] :
       std::vector<std::pair<const char*, Json>>{{"architectures", {"GPT2LMHeadModel"}},
                                                 {"hidden_act", "gelu"},
                                                 {"mlp_bias", true},
                                                 {"layer_types", {"sliding_attention"}},
                                                 {"num_key_value_heads", 3},
                                                 {"hidden_size", "16"},
                                                 {"vocab_size", 0},
                                                 {"head_dim", 3},
                                                 {"rope_scaling", {{"rope_type", "yarn"}}}}) {
    CAPTURE(field);
    CHECK(error(field, value).find(std::string("\"") + field + "\"") != std::string::npos);
  }
  CHECK(error("sliding_window", nullptr) == "accepted");
  CHECK(error("attention_bias", true) == "accepted");
  CHECK(error("layer_types", {"full_attention"}) == "accepted");
  const auto qwen = [&](Json json) {
    json.update({{"architectures", {"Qwen2ForCausalLM"}}, {"sliding_window", 4}});
    return DecoderConfig::parse(json.dump(), "base/config.json");
  };
  Json json = Json::parse(good.to_text());
  CHECK(qwen(json).sliding_window == 0);  // named, not used
  CHECK(qwen(json).qkv_bias);
  json["use_sliding_window"] = true;
  CHECK_THROWS_WITH_AS(qwen(json), doctest::Contains("use_sliding_window"), JobFailure);
  CHECK_THROWS_AS(DecoderConfig::parse("[1]", "base/config.json"), JobFailure);
  CHECK(DecoderConfig::parse(good.to_text(), "again").to_text() == good.to_text());
}

}  // namespace collimate
