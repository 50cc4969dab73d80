// Hugging Face config.json in and out; anything this decoder does not compute is refused by name, never ignored.
#include "core/model/decoder_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>

#include "core/failure.h"
#include "core/math.h"

namespace collimate {

namespace {

// Above every known model, and low enough that no product of sizes overflows. The dropout stream leaves 14 bits for the
// two sites of a layer.
constexpr int64_t kLayersMax = 8191;
constexpr int64_t kWidthMax = int64_t{1} << 20;
constexpr int64_t kHeadsMax = 4096;     // and elements of one
constexpr int64_t kQwen3HeadDim = 128;  // where its config names none
constexpr int64_t kIdsMax = std::numeric_limits<int32_t>::max();

class Reader {
 public:
  Reader(const Json& json, const std::string& where) : json_(json), where_(where) {}

  [[noreturn]] void fail(const std::string& field, const std::string& expected, const std::string& got) const {
    fail_bad_input(where_ + ": field \"" + field + "\": expected " + expected + ", got " + got +
                   "; use a model that Collimate computes: Llama 2/3, Mistral, Qwen 2, 2.5 or 3");
  }
  bool has(const std::string& field) const { return json_.contains(field) && !json_.at(field).is_null(); }
  std::string text(const std::string& field) const { return has(field) ? json_.at(field).dump() : "nothing"; }

  int64_t positive(const std::string& field, int64_t most) const {
    const int64_t value = has(field) && json_.at(field).is_number_integer() ? json_.at(field).get<int64_t>() : 0;
    if (value < 1 || value > most) fail(field, "an integer from 1 to " + std::to_string(most), text(field));
    return value;
  }
  int64_t positive_or(const std::string& field, int64_t fallback, int64_t most) const {
    return has(field) ? positive(field, most) : fallback;
  }
  double number_or(const std::string& field, double fallback) const {
    if (!has(field)) return fallback;
    if (!json_.at(field).is_number() || !(json_.at(field).get<double>() > 0))
      fail(field, "a positive number", text(field));
    return json_.at(field).get<double>();
  }
  bool flag(const std::string& field) const {
    if (!has(field)) return false;
    if (!json_.at(field).is_boolean()) fail(field, "true or false", text(field));
    return json_.at(field).get<bool>();
  }
  const Json& at(const std::string& field) const { return json_.at(field); }

 private:
  const Json& json_;
  const std::string& where_;
};

constexpr std::array kArchitectures = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM",
                                       "Qwen3ForCausalLM"};

std::string read_architecture(const Reader& read) {
  std::string wanted;
  for (const char* name : kArchitectures) wanted += (wanted.empty() ? "[\"" : " or [\"") + std::string(name) + "\"]";
  if (!read.has("architectures") || !read.at("architectures").is_array() || read.at("architectures").size() != 1) {
    read.fail("architectures", wanted, read.text("architectures"));
  }
  const Json& name = read.at("architectures").at(0);
  if (std::none_of(kArchitectures.begin(), kArchitectures.end(), [&](const char* known) { return name == known; })) {
    read.fail("architectures", wanted, read.text("architectures"));
  }
  return name.get<std::string>();
}

// What the architectures differ in, beside their sizes.
void read_variant(const Reader& read, DecoderConfig& config) {
  const std::string architecture = read_architecture(read);
  const bool is_qwen = architecture[0] == 'Q';
  if (read.has("hidden_act") && read.at("hidden_act") != "silu") {
    read.fail("hidden_act", "\"silu\"", read.text("hidden_act"));
  }
  if (read.flag("mlp_bias")) read.fail("mlp_bias", "false", "true");
  config.qk_norm = architecture == "Qwen3ForCausalLM";
  if (architecture == "Qwen2ForCausalLM") {
    config.qkv_bias = true;
  } else if (architecture != "MistralForCausalLM") {
    config.qkv_bias = config.output_bias = read.flag("attention_bias");
  }
  // A Qwen names a window even where it uses none; a Llama has none to use.
  const bool windowed = is_qwen ? read.flag("use_sliding_window") : architecture == "MistralForCausalLM";
  if (is_qwen && windowed) read.fail("use_sliding_window", "false", "true");
  if (windowed) config.sliding_window = read.positive_or("sliding_window", 0, kIdsMax);
  if (!read.has("layer_types")) return;
  const std::string uniform = config.sliding_window > 0 ? "sliding_attention" : "full_attention";
  for (const Json& type : read.at("layer_types")) {
    if (type != uniform) read.fail("layer_types", "\"" + uniform + "\" for every layer", type.dump());
  }
}

// Both spellings: rope_theta + rope_scaling, and the newer rope_parameters that holds the two.
void read_rope(const Reader& read, DecoderConfig& config) {
  config.rope_theta = read.number_or("rope_theta", 10000.0);
  for (const char* field : {"rope_scaling", "rope_parameters"}) {
    if (!read.has(field)) continue;
    const Json& rope = read.at(field);
    if (!rope.is_object()) read.fail(field, "an object", read.text(field));
    if (rope.contains("rope_theta") && rope.at("rope_theta").is_number()) {
      config.rope_theta = rope.at("rope_theta").get<double>();
      if (!(config.rope_theta > 0)) read.fail(field, "a positive \"rope_theta\"", read.text(field));
    }
    const std::string type = rope.value("rope_type", rope.value("type", std::string("default")));
    if (type == "default") continue;
    if (type == "linear") {
      const bool usable =
          rope.contains("factor") && rope.at("factor").is_number() && rope.at("factor").get<double>() > 0;
      if (!usable) read.fail(field, "a positive number \"factor\"", read.text(field));
      config.rope_scaling = {{"rope_type", "linear"}, {"factor", rope.at("factor")}};
      continue;
    }
    if (type != "llama3") read.fail(field, "rope_type \"default\", \"linear\" or \"llama3\"", read.text(field));
    for (const char* part : {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}) {
      if (!rope.contains(part) || !rope.at(part).is_number()) {
        read.fail(field, "a number \"" + std::string(part) + "\"", read.text(field));
      }
    }
    config.rope_scaling = rope;
    config.rope_scaling["rope_type"] = "llama3";
  }
}

}  // namespace

DecoderConfig DecoderConfig::from_shape(const Shape& shape, int64_t vocabulary) {
  Json json;
  json["architectures"] = {"LlamaForCausalLM"};
  json["model_type"] = "llama";
  json["hidden_act"] = "silu";
  json["hidden_size"] = shape.dim;
  json["num_hidden_layers"] = shape.layers;
  json["num_attention_heads"] = shape.heads;
  json["num_key_value_heads"] = shape.kv_heads;
  json["intermediate_size"] = shape.ffn_dim;
  json["rms_norm_eps"] = shape.norm_eps;
  json["rope_theta"] = shape.rope_theta;
  json["tie_word_embeddings"] = shape.tie_embeddings;
  json["attention_bias"] = false;
  json["mlp_bias"] = false;
  json["torch_dtype"] = "float32";
  json["vocab_size"] = vocabulary;
  return parse(json.dump(), "recipe.base");
}

DecoderConfig DecoderConfig::parse(const std::string& config_text, const std::string& where) {
  Json json = Json::parse(config_text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object())
    fail_bad_input(where + ": expected a JSON object (a Hugging Face config.json), got something else");
  const Reader read(json, where);
  DecoderConfig config;
  read_variant(read, config);
  config.layers = read.positive("num_hidden_layers", kLayersMax);
  config.dim = read.positive("hidden_size", kWidthMax);
  config.heads = read.positive("num_attention_heads", kHeadsMax);
  config.kv_heads = read.positive_or("num_key_value_heads", config.heads, kHeadsMax);
  config.ffn_dim = read.positive("intermediate_size", kWidthMax);
  config.vocabulary = read.positive("vocab_size", kIdsMax);
  if (config.heads % config.kv_heads != 0) {
    read.fail("num_key_value_heads", "a divisor of num_attention_heads", read.text("num_key_value_heads"));
  }
  const int64_t head_dim = config.qk_norm ? kQwen3HeadDim : config.dim / config.heads;
  if (!config.qk_norm && !read.has("head_dim") && config.dim % config.heads != 0) {
    read.fail("num_attention_heads", "a divisor of hidden_size", read.text("num_attention_heads"));
  }
  config.head_dim = read.positive_or("head_dim", head_dim, kHeadsMax);
  if (config.head_dim % 2 != 0) read.fail("head_dim", "an even number", std::to_string(config.head_dim));
  config.norm_eps = static_cast<float>(read.number_or("rms_norm_eps", 1e-6));
  config.tie_embeddings = read.flag("tie_word_embeddings");
  config.positions_max = read.positive_or("max_position_embeddings", 0, kIdsMax);
  read_rope(read, config);
  config.source = std::move(json);
  return config;
}

std::string DecoderConfig::to_text() const {
  Json json = source;
  json["vocab_size"] = vocabulary;
  return json.dump(2) + "\n";
}

std::vector<double> DecoderConfig::rope_inverse_frequency() const {
  std::vector<double> frequency;
  // theta^(-2i/D) through our own exp and log, the same on every machine.
  const double log_theta = log_f64(rope_theta);
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    frequency.push_back(exp_f64(-log_theta * static_cast<double>(2 * i) / static_cast<double>(head_dim)));
  }
  if (rope_scaling.is_null()) return frequency;
  if (rope_scaling.at("rope_type") == "linear") {
    for (double& f : frequency) f /= rope_scaling.at("factor").get<double>();
    return frequency;
  }
  // Llama 3: long wavelengths are slowed by `factor`, short ones kept, those between blended.
  const double factor = rope_scaling.at("factor").get<double>();
  const double low = rope_scaling.at("low_freq_factor").get<double>();
  const double high = rope_scaling.at("high_freq_factor").get<double>();
  const double trained = rope_scaling.at("original_max_position_embeddings").get<double>();
  for (double& f : frequency) {
    const double wavelength = 2.0 * std::numbers::pi / f;
    if (wavelength > trained / low) {
      f /= factor;
    } else if (wavelength >= trained / high) {
      const double blend = (trained / wavelength - low) / (high - low);
      f = (1.0 - blend) * f / factor + blend * f;
    }
  }
  return frequency;
}

void DecoderConfig::check_length(int64_t tokens) const {
  if (positions_max > 0 && tokens > positions_max) {
    fail_bad_input("sequences may have at most " + std::to_string(positions_max) +
                   " tokens (max_position_embeddings), got one of " + std::to_string(tokens) +
                   "; shorten the histories");
  }
}

}  // namespace collimate
