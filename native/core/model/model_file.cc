// Parameters to a `model` file, and from one for inference.
//
// 1. A `model` of a fully trained decoder is complete.
// 2. A `model` of adapters holds what PEFT's adapter_model.safetensors holds: lora_A, lora_B and the trained token rows
//    (trainable_tokens_delta), with adapter_config in the metadata.
#include <algorithm>

#include "core/failure.h"
#include "core/gemm.h"
#include "core/model/parameters.h"
#include "core/safetensors.h"

namespace collimate {

namespace {

const char* const kEmbeddingRows = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta";
const char* const kHeadRows = "base_model.model.lm_head.token_adapter.trainable_tokens_delta";

Json adapter_config(const Parameters& parameters) {
  Json json;
  json["peft_type"] = "LORA";
  json["task_type"] = "CAUSAL_LM";
  json["inference_mode"] = true;
  json["bias"] = "none";
  json["fan_in_fan_out"] = false;
  json["lora_dropout"] = 0.0;
  json["r"] = parameters.trainable().rank;
  json["lora_alpha"] = parameters.trainable().alpha;
  json["target_modules"] = parameters.trainable().targets;
  const auto indices_of = [&](int number) {
    const Parameter& table = parameters.at(number);
    std::vector<int64_t> indices;
    for (int64_t i = 0; i < table.train_rows; ++i) indices.push_back(table.train_first_row + i);
    return indices;
  };
  if (parameters.head() == parameters.embedding()) {
    json["trainable_token_indices"] = indices_of(parameters.embedding());
  } else {
    json["trainable_token_indices"] = {{"embed_tokens", indices_of(parameters.embedding())},
                                       {"lm_head", indices_of(parameters.head())}};
  }
  return json;
}

struct AdapterConfig {
  Trainable trainable{.lora = true};
  Parameters::FirstTrainedRows first_rows;
};

AdapterConfig read_adapter_config(const std::string& text, int64_t vocabulary) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  AdapterConfig config;
  Trainable& trainable = config.trainable;
  try {
    trainable.rank = json.at("r").get<int64_t>();
    trainable.alpha = json.at("lora_alpha").get<double>();
    trainable.targets = json.at("target_modules").get<std::vector<std::string>>();
    const Json& tokens = json.at("trainable_token_indices");
    const auto first_of = [&](const char* module) {
      return (tokens.is_object() ? tokens.at(module) : tokens).at(0).get<int64_t>();
    };
    config.first_rows = {.embedding = first_of("embed_tokens"), .head = first_of("lm_head")};
  } catch (const Json::exception&) {
    fail_bad_input(
        "model: expected adapter_config metadata as written by tune (r, lora_alpha, target_modules, "
        "trainable_token_indices), got " +
        text.substr(0, 200));
  }
  for (const int64_t first : {config.first_rows.embedding, config.first_rows.head}) {
    if (trainable.rank >= 1 && first >= 0 && first < vocabulary) continue;
    fail_bad_input("model: expected an adapter_config with r of at least 1 and token indices below " +
                   std::to_string(vocabulary) + ", got r " + std::to_string(trainable.rank) + " and the first index " +
                   std::to_string(first));
  }
  return config;
}

// W += scale B A, for a matrix whose adapter the file holds.
void merge_adapter(Parameters& parameters, int number, const SafetensorsFile& file, const Trainable& trainable) {
  const Parameter& weight = parameters.at(number);
  const std::string module = "base_model.model." + weight.name.substr(0, weight.name.rfind('.'));
  if (!file.has(module + ".lora_A.weight")) return;
  const int64_t out = weight.shape[0], in = weight.shape[1], rank = trainable.rank;
  const auto a = file.f32(module + ".lora_A.weight", {rank, in});
  const auto b = file.f32(module + ".lora_B.weight", {out, rank});
  gemm_single({.m = out,
               .n = in,
               .k = rank,
               .alpha = trainable.scale(),
               .a = b.data(),
               .lda = rank,
               .b = a.data(),
               .ldb = in,
               .beta = 1.0f,
               .c = parameters.data(number),
               .ldc = in});
}

// Overwrites the rows of a table that the file holds.
struct TableRows {
  int number = -1;
  int64_t first = 0;
  const char* name = nullptr;
};
void read_table_rows(Parameters& parameters, const TableRows& rows, const SafetensorsFile& file) {
  const Parameter& table = parameters.at(rows.number);
  const auto values = file.f32(rows.name, {table.shape[0] - rows.first, table.shape[1]});
  std::copy(values.begin(), values.end(), parameters.data(rows.number) + rows.first * table.shape[1]);
}

// Copies the trained parameters of `file` over the values.
void read_trained(Parameters& parameters, const SafetensorsFile& file) {
  for (int number = 0; number < static_cast<int>(parameters.all().size()); ++number) {
    const Parameter& parameter = parameters.at(number);
    if (parameter.train_rows == 0) continue;
    std::vector<int64_t> shape = parameter.shape;
    shape[0] = parameter.train_rows;
    const auto values = file.f32(exported_name(parameters, number), shape);
    std::copy(values.begin(), values.end(),
              parameters.data(number) + parameter.train_first_row * parameter.row_elements());
  }
}

}  // namespace

std::string exported_name(const Parameters& parameters, int number) {
  const bool is_adapted = parameters.trainable().lora;
  if (is_adapted && number == parameters.embedding()) return kEmbeddingRows;
  if (is_adapted && number == parameters.head()) return kHeadRows;
  return parameters.at(number).name;
}

void write_model(const Parameters& parameters, const std::filesystem::path& path) {
  SafetensorsWriter writer;
  for (int number = 0; number < static_cast<int>(parameters.all().size()); ++number) {
    const Parameter& parameter = parameters.at(number);
    if (parameter.train_rows == 0) continue;
    std::vector<int64_t> shape = parameter.shape;
    shape[0] = parameter.train_rows;
    const float* values = parameters.data(number) + parameter.train_first_row * parameter.row_elements();
    writer.add_f32(exported_name(parameters, number), shape,
                   std::span(values, static_cast<size_t>(parameter.trained_elements())));
  }
  writer.set_metadata("config", parameters.config().to_text());
  writer.set_metadata("format", "pt");
  if (parameters.trainable().lora) writer.set_metadata("adapter_config", adapter_config(parameters).dump(2) + "\n");
  writer.write(path);
}

void write_merged(const Parameters& parameters, const std::filesystem::path& path) {
  SafetensorsWriter writer;
  for (int number = 0; number < static_cast<int>(parameters.all().size()); ++number) {
    const Parameter& parameter = parameters.at(number);
    writer.add_f32(parameter.name, parameter.shape,
                   std::span(parameters.data(number), static_cast<size_t>(parameter.elements())));
  }
  writer.set_metadata("format", "pt");
  writer.write(path);
}

Parameters load_model(const std::filesystem::path& model, const std::map<std::string, std::filesystem::path>& inputs) {
  const SafetensorsFile file = SafetensorsFile::open(model);
  const auto config = file.metadata().find("config");
  if (config == file.metadata().end()) {
    fail_bad_input(
        "model: expected the decoder's config.json in the metadata field \"config\", got none; use a model that "
        "tune wrote");
  }
  Parameters::Options options{.config = DecoderConfig::parse(config->second, "model.config")};
  const auto adapter = file.metadata().find("adapter_config");
  if (adapter == file.metadata().end()) {
    Parameters parameters(std::move(options));
    read_trained(parameters, file);
    return parameters;
  }
  const AdapterConfig adapted = read_adapter_config(adapter->second, options.config.vocabulary);
  Parameters parameters(std::move(options));
  load_base(parameters, BaseFiles::from_inputs(inputs), /*seed=*/0);  // every new row is among the trained ones
  read_table_rows(parameters,
                  {.number = parameters.embedding(), .first = adapted.first_rows.embedding, .name = kEmbeddingRows},
                  file);
  if (parameters.head() != parameters.embedding()) {
    read_table_rows(parameters, {.number = parameters.head(), .first = adapted.first_rows.head, .name = kHeadRows},
                    file);
  }
  for (const LayerNumbers& layer : parameters.layers()) {
    for (const LinearNumbers& linear : {layer.q, layer.k, layer.v, layer.o, layer.gate, layer.up, layer.down}) {
      merge_adapter(parameters, linear.weight, file, adapted.trainable);
    }
  }
  return parameters;
}

}  // namespace collimate
