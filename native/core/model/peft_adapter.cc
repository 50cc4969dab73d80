// PEFT's names and forms, as peft 0.21 writes them. Beside lora_A and lora_B a file may hold, for embed_tokens and
// lm_head:
//   .weight                                     the table in modules_to_save, or saved because the vocabulary was
//   resized .token_adapter.base_layer.weight            the same of a module with trainable_token_indices
//   .token_adapter.trainable_tokens_delta       the rows of trainable_token_indices, in their order
//   .modules_to_save.weight, .original_module.weight   copies that PEFT leaves beside .weight and does not read back
#include "core/model/peft_adapter.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "core/atomic_file.h"
#include "core/failure.h"
#include "core/json.h"

namespace collimate {

namespace {

const std::string kWhere = "adapter_config.json: field ";
const std::string kPrefix = "base_model.model.";
const std::string kTable = ".weight", kBaseTable = ".token_adapter.base_layer.weight",
                  kDelta = ".token_adapter.trainable_tokens_delta";

constexpr std::array kLinears = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};
// Read below, or of no consequence for the logits. Any other field must be switched off.
constexpr std::array kFields = {"peft_type",
                                "r",
                                "lora_alpha",
                                "target_modules",
                                "bias",
                                "init_lora_weights",
                                "task_type",
                                "trainable_token_indices",
                                "modules_to_save",
                                "ensure_weight_tying",
                                "auto_mapping",
                                "base_model_name_or_path",
                                "revision",
                                "peft_version",
                                "inference_mode",
                                "lora_dropout",
                                "megatron_core",
                                "qalora_group_size",
                                "eva_config",
                                "runtime_config"};

[[noreturn]] void fail_field(const std::string& field, const std::string& expected, const Json& config) {
  const std::string got = config.contains(field) ? config.at(field).dump() : "nothing";
  fail_bad_input(kWhere + "\"" + field + "\": expected " + expected + ", got " + got.substr(0, 200) +
                 "; merge such an adapter into its base with PEFT (merge_and_unload) and give that as the base");
}

bool is_off(const Json& value) {
  return value.is_null() || value == false || ((value.is_object() || value.is_array()) && value.empty());
}

void check_fields(const Json& config) {
  if (config.value("peft_type", Json()) != "LORA") fail_field("peft_type", "\"LORA\"", config);
  if (config.value("bias", Json("none")) != "none") fail_field("bias", "\"none\"", config);
  const Json task = config.value("task_type", Json());
  if (!task.is_null() && task != "CAUSAL_LM") fail_field("task_type", "\"CAUSAL_LM\"", config);
  // Other initialisations (pissa, olora, loftq …) change the base when the adapter is loaded.
  const Json init = config.value("init_lora_weights", Json(true));
  if (!init.is_boolean() && init != "gaussian") fail_field("init_lora_weights", "true, false or \"gaussian\"", config);
  for (const auto& [field, value] : config.items()) {
    const bool known = std::find(kFields.begin(), kFields.end(), field) != kFields.end();
    if (!known && !is_off(value)) fail_field(field, "it to be off (null, false or empty)", config);
  }
}

std::vector<std::string> read_targets(const Json& config) {
  std::string wanted = "a list of distinct names out of ";
  for (const char* name : kLinears) wanted += std::string(name) + (name == kLinears.back() ? "" : ", ");
  const Json targets = config.value("target_modules", Json());
  if (!targets.is_array() || targets.empty()) fail_field("target_modules", wanted, config);
  std::set<std::string> names;
  for (const Json& target : targets) {
    const bool known = std::any_of(kLinears.begin(), kLinears.end(), [&](const char* name) { return target == name; });
    if (!known || !names.insert(target.get<std::string>()).second) fail_field("target_modules", wanted, config);
  }
  return {names.begin(), names.end()};
}

Trainable read_trainable(const Json& config) {
  Trainable trainable{.lora = true};
  const Json rank = config.value("r", Json()), alpha = config.value("lora_alpha", Json());
  if (!rank.is_number_integer() || rank.get<int64_t>() < 1) fail_field("r", "an integer of at least 1", config);
  if (!alpha.is_number() || !(alpha.get<double>() > 0)) fail_field("lora_alpha", "a positive number", config);
  trainable.rank = rank.get<int64_t>();
  trainable.alpha = alpha.get<double>();
  trainable.targets = read_targets(config);
  return trainable;
}

std::string last_part(const std::string& module) { return module.substr(module.rfind('.') + 1); }
std::string shape_text(const std::vector<int64_t>& shape) { return Json(shape).dump(); }

}  // namespace

std::optional<PeftAdapter> PeftAdapter::from_inputs(const std::map<std::string, std::filesystem::path>& inputs,
                                                    const DecoderConfig& base) {
  const auto config = inputs.find("adapter/adapter_config.json");
  const auto weights = inputs.find("adapter/adapter_model.safetensors");
  if (config == inputs.end() && weights == inputs.end()) return std::nullopt;
  if (config == inputs.end() || weights == inputs.end()) {
    fail_bad_input("an adapter needs the inputs \"adapter/adapter_config.json\" and " +
                   std::string("\"adapter/adapter_model.safetensors\", got only one of them"));
  }
  return PeftAdapter({.config = config->second, .weights = weights->second, .tied_base = base.tie_embeddings});
}

PeftAdapter::PeftAdapter(const Source& source)
    : embedding_{.module = "embed_tokens", .prefix = kPrefix + "model.embed_tokens"},
      head_{.module = "lm_head", .prefix = kPrefix + "lm_head"},
      file_(SafetensorsFile::open(source.weights)) {
  const Json config = Json::parse(read_text_file(source.config), nullptr, /*allow_exceptions=*/false);
  if (!config.is_object()) fail_bad_input("adapter_config.json: expected a JSON object, got something else");
  check_fields(config);
  trainable_ = read_trainable(config);
  read_tables(config);
  // PEFT then trains one table under both names, and lists it under one of them.
  if (source.tied_base && config.value("ensure_weight_tying", Json()) == true) {
    embedding_.saved = head_.saved = embedding_.saved || head_.saved;
  }
}

void PeftAdapter::read_tables(const Json& config) {
  const std::string wanted = "null or a list of \"embed_tokens\" and \"lm_head\"";
  const Json saved = config.value("modules_to_save", Json());
  if (!saved.is_null() && !saved.is_array()) fail_field("modules_to_save", wanted, config);
  for (const Json& module : saved) {
    const std::string name = module.is_string() ? last_part(module.get<std::string>()) : "";
    if (name != embedding_.module && name != head_.module) fail_field("modules_to_save", wanted, config);
    (name == head_.module ? head_ : embedding_).saved = true;
  }
  read_token_indices(config);
}

void PeftAdapter::read_token_indices(const Json& config) {
  const Json tokens = config.value("trainable_token_indices", Json());
  const auto read = [&](Table& table, const Json& indices) {
    std::set<int64_t> seen;
    for (const Json& index : indices) {
      if (!index.is_number_integer() || !seen.insert(index.get<int64_t>()).second) {
        fail_field("trainable_token_indices", "distinct integers", config);
      }
      table.indices.push_back(index.get<int64_t>());
    }
  };
  if (tokens.is_array()) read(embedding_, tokens);
  if (tokens.is_array() || tokens.is_null()) return;
  const std::string wanted = "null, a list, or lists by \"embed_tokens\" and \"lm_head\"";
  if (!tokens.is_object()) fail_field("trainable_token_indices", wanted, config);
  for (const auto& [module, indices] : tokens.items()) {
    const std::string name = last_part(module);
    const bool known = name == embedding_.module || name == head_.module;
    if (!known || !indices.is_array()) fail_field("trainable_token_indices", wanted, config);
    read(name == head_.module ? head_ : embedding_, indices);
  }
}

void PeftAdapter::check_agrees(const Trainable& recipe) const {
  const auto differ = [](const std::string& field, const Json& ours, const Json& theirs) {
    fail_bad_input("recipe.trainable." + field + ": expected the adapter's " + theirs.dump() + ", got " + ours.dump() +
                   "; leave it to the adapter, whose matrices have that form");
  };
  if (!recipe.lora) differ("kind", "full", "lora");
  if (recipe.rank != trainable_.rank) differ("rank", recipe.rank, trainable_.rank);
  if (recipe.alpha != trainable_.alpha) differ("alpha", recipe.alpha, trainable_.alpha);
  if (recipe.targets != trainable_.targets) differ("targets", recipe.targets, trainable_.targets);
}

Parameters::FirstTrainedRows PeftAdapter::first_trained_rows(int64_t first_new) const {
  return {.embedding = embedding_.saved ? 0 : first_new, .head = head_.saved ? 0 : first_new};
}

void PeftAdapter::load_into(Parameters& parameters) const {
  check_nothing_is_left_out(parameters);
  for (int number = 0; number < static_cast<int>(parameters.all().size()); ++number) {
    const Parameter& parameter = parameters.at(number);
    if (parameter.name.rfind(kPrefix, 0) != 0) continue;
    const std::vector<float> read = values(parameter.name, parameter.shape);
    std::copy(read.begin(), read.end(), parameters.data(number));
  }
  load_table(parameters, parameters.embedding(), embedding_);
  if (parameters.head() == parameters.embedding()) {
    check_tied_head(parameters);
  } else {
    load_table(parameters, parameters.head(), head_);
  }
}

bool PeftAdapter::is_of(const Table& table, const std::string& name) {
  for (const char* form : {".weight", ".token_adapter.trainable_tokens_delta", ".token_adapter.base_layer.weight",
                           ".modules_to_save.weight", ".original_module.weight"}) {
    if (name == table.prefix + form) return true;
  }
  return false;
}

void PeftAdapter::check_nothing_is_left_out(const Parameters& parameters) const {
  for (const auto& [name, tensor] : file_.tensors()) {
    if (parameters.number_of(name) >= 0) continue;
    const bool is_tied_copy = is_of(head_, name) && parameters.head() == parameters.embedding();
    const bool is_unnamed = (name == embedding_.prefix + kDelta && embedding_.indices.empty()) ||
                            (name == head_.prefix + kDelta && head_.indices.empty());
    if (is_tied_copy || ((is_of(embedding_, name) || is_of(head_, name)) && !is_unnamed)) continue;
    fail_bad_input("adapter: tensor \"" + name + "\" has no place in the base with the adapter_config.json given; " +
                   "use the adapter with the base that it was made for");
  }
}

std::vector<float> PeftAdapter::values(const std::string& name, const std::vector<int64_t>& shape) const {
  if (!file_.has(name)) {
    fail_bad_input("adapter: expected a tensor \"" + name + "\" of shape " + shape_text(shape) +
                   ", found none in adapter_model.safetensors; save the adapter again with PEFT's save_pretrained");
  }
  if (file_.get(name).shape != shape) {
    fail_bad_input("adapter: tensor \"" + name + "\": expected shape " + shape_text(shape) + ", got " +
                   shape_text(file_.get(name).shape) + "; use the adapter with the base that it was made for");
  }
  return file_.as_f32(name, shape);
}

void PeftAdapter::load_table(Parameters& parameters, int number, const Table& table) const {
  const Parameter& parameter = parameters.at(number);
  const int64_t rows = parameter.shape[0], width = parameter.shape[1];
  float* to = parameters.data(number);
  const std::string name = table.prefix + (!table.saved && file_.has(table.prefix + kBaseTable) ? kBaseTable : kTable);
  if (table.saved || file_.has(name)) {
    // PEFT writes the table at the size it had in training, which may lack the rows of this run's item tokens.
    const bool fits = file_.has(name) && file_.get(name).shape.size() == 2 && file_.get(name).shape[0] <= rows;
    const std::vector<float> read = values(name, {fits ? file_.get(name).shape[0] : rows, width});
    const int64_t frozen = parameter.train_first_row * width;
    if (!std::equal(to, to + std::min(frozen, static_cast<int64_t>(read.size())), read.begin())) {
      fail_bad_input("adapter: tensor \"" + name + "\": expected the base's own values in the rows below " +
                     std::to_string(parameter.train_first_row) + ", which stay frozen, got others; use the adapter " +
                     "with the base that it was made for, or list " + table.module + " in modules_to_save");
    }
    std::copy(read.begin(), read.end(), to);
  }
  if (table.indices.empty()) return;
  const std::vector<float> delta = values(table.prefix + kDelta, {static_cast<int64_t>(table.indices.size()), width});
  for (size_t i = 0; i < table.indices.size(); ++i) {
    if (table.indices[i] < parameter.train_first_row || table.indices[i] >= rows) {
      fail_bad_input(kWhere + "\"trainable_token_indices\": expected tokens from " +
                     std::to_string(parameter.train_first_row) + " (the first that the base lacks) to " +
                     std::to_string(rows - 1) + ", got " + std::to_string(table.indices[i]) +
                     "; merge the adapter into its base with PEFT (merge_and_unload) and give that as the base");
    }
    const auto from = delta.begin() + static_cast<std::ptrdiff_t>(i) * width;
    std::copy(from, from + width, to + table.indices[i] * width);
  }
}

// On a base whose head is its embedding, PEFT writes what it holds of the head as a copy; one that differs cannot be
// had.
void PeftAdapter::check_tied_head(const Parameters& parameters) const {
  const int64_t width = parameters.config().dim;
  const std::string advice = "; the base ties its head to its embedding, so train both or none with PEFT";
  if (embedding_.saved != head_.saved) {
    fail_bad_input(kWhere + "\"modules_to_save\": expected embed_tokens and lm_head or neither, got only " +
                   (head_.saved ? head_ : embedding_).module + advice);
  }
  if (!head_.indices.empty() && head_.indices != embedding_.indices) {
    fail_bad_input(kWhere + "\"trainable_token_indices\": expected equal lists of embed_tokens and lm_head, got " +
                   "different ones" + advice);
  }
  for (const std::string& form : {kTable, kBaseTable, kDelta}) {
    const std::string head = head_.prefix + form, embedding = embedding_.prefix + form;
    if (!file_.has(head)) continue;
    if (!file_.has(embedding) || file_.as_f32(head, {-1, width}) != file_.as_f32(embedding, {-1, width})) {
      fail_bad_input("adapter: tensor \"" + head + "\": expected a copy of \"" + embedding + "\", got others" + advice);
    }
  }
}

}  // namespace collimate
