// Parameters of a base model: a Hugging Face config.json and its safetensors shards.
//
// 1. Every tensor that the decoder needs must be there in the shape that the config says, and no tensor may be there
//    that it would leave out; nothing is guessed.
// 2. Token rows beyond the base's vocabulary are drawn from the seed with the spread of the base's own rows.
#include <algorithm>
#include <cmath>

#include "core/atomic_file.h"
#include "core/failure.h"
#include "core/model/parameters.h"
#include "core/philox.h"
#include "core/safetensors.h"

namespace collimate {

namespace {

std::string shape_text(const std::vector<int64_t>& shape) { return Json(shape).dump(); }

// The tensors of all shards under one roof.
class Shards {
 public:
  explicit Shards(const std::vector<std::filesystem::path>& paths) {
    for (const auto& path : paths) files_.push_back(SafetensorsFile::open(path));
  }
  const SafetensorsFile* holding(const std::string& name) const {
    for (const SafetensorsFile& file : files_) {
      if (file.has(name)) return &file;
    }
    return nullptr;
  }
  const std::vector<SafetensorsFile>& files() const { return files_; }
  std::vector<float> values(const std::string& name, const std::vector<int64_t>& shape) const {
    const SafetensorsFile* file = holding(name);
    if (!file) {
      fail_bad_input("base model: expected a tensor \"" + name + "\" of shape " + shape_text(shape) +
                     ", found none in the safetensors files; give all shards of the model");
    }
    if (file->get(name).shape != shape) {
      fail_bad_input("base model: tensor \"" + name + "\": expected shape " + shape_text(shape) +
                     " (from config.json), got " + shape_text(file->get(name).shape) +
                     "; config.json and the shards must belong together");
    }
    return file->as_f32(name, shape);
  }

 private:
  std::vector<SafetensorsFile> files_;
};

// Tensors that say nothing the decoder does not know: old rotary tables, and the copy of a tied head.
bool is_redundant(const std::string& name, const Parameters& parameters) {
  if (name.ends_with("rotary_emb.inv_freq")) return true;
  return name == "lm_head.weight" && parameters.head() == parameters.embedding();
}

void check_nothing_is_left_out(const Shards& shards, const Parameters& parameters) {
  for (const SafetensorsFile& file : shards.files()) {
    for (const auto& [name, tensor] : file.tensors()) {
      if (parameters.number_of(name) >= 0 || is_redundant(name, parameters)) continue;
      fail_bad_input("base model: tensor \"" + name + "\" has no place in the decoder that config.json describes; it " +
                     "would be left out of every result. Use a model whose architecture is the one config.json names");
    }
  }
}

double standard_deviation(std::span<const float> values) {
  double sum = 0.0, squares = 0.0;
  for (const float v : values) {
    sum += static_cast<double>(v);
    squares += static_cast<double>(v) * static_cast<double>(v);
  }
  const auto n = static_cast<double>(values.size());
  return std::sqrt(std::max(0.0, squares / n - sum / n * (sum / n)));
}

// Embedding or head: the base's rows, then new rows drawn with the spread of the old.
void load_table(Parameters& parameters, int number, const Shards& shards, int64_t base_rows, uint64_t seed) {
  const Parameter& parameter = parameters.at(number);
  const std::vector<float> base = shards.values(parameter.name, {base_rows, parameter.shape[1]});
  const int64_t rows = parameter.shape[0];
  float* to = parameters.data(number);
  std::copy_n(base.begin(), std::min(rows, base_rows) * parameter.shape[1], to);
  const auto spread = static_cast<float>(standard_deviation(base));
  const RandomStream stream{.seed = seed, .site = RandomSite::parameter_init, .stream = static_cast<uint64_t>(number)};
  for (int64_t i = base_rows * parameter.shape[1]; i < rows * parameter.shape[1]; ++i) {
    to[i] = spread * random_normal(stream, static_cast<uint64_t>(i));
  }
}

}  // namespace

BaseFiles BaseFiles::from_inputs(const std::map<std::string, std::filesystem::path>& inputs) {
  BaseFiles base;
  for (const auto& [name, path] : inputs) {
    if (name == "base/config.json") base.config = path;
    if (name.rfind("base/", 0) == 0 && name.size() > 12 && name.ends_with(".safetensors")) base.shards.push_back(path);
  }
  if (base.config.empty()) fail_bad_input("a Hugging Face base needs the input \"base/config.json\", got none");
  if (base.shards.empty()) fail_bad_input("a Hugging Face base needs inputs \"base/<shard>.safetensors\", got none");
  return base;
}

DecoderConfig BaseFiles::read_config() const {
  return DecoderConfig::parse(read_text_file(config), "base/config.json");
}

void load_base(Parameters& parameters, const BaseFiles& base, uint64_t seed) {
  const Shards shards(base.shards);
  check_nothing_is_left_out(shards, parameters);
  const int64_t base_rows = base.read_config().vocabulary;
  if (base_rows > parameters.config().vocabulary) {
    fail_bad_input("vocabulary: expected at least the base model's " + std::to_string(base_rows) + " tokens, got " +
                   std::to_string(parameters.config().vocabulary) + "; append the item tokens to the base's tokenizer");
  }
  for (int number = 0; number < static_cast<int>(parameters.all().size()); ++number) {
    const Parameter& parameter = parameters.at(number);
    if (parameter.name.rfind("base_model.", 0) == 0) continue;  // adapters
    if (number == parameters.embedding() || number == parameters.head()) {
      load_table(parameters, number, shards, base_rows, seed);
      continue;
    }
    const std::vector<float> values = shards.values(parameter.name, parameter.shape);
    std::copy(values.begin(), values.end(), parameters.data(number));
  }
}

}  // namespace collimate
