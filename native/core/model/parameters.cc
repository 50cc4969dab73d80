// Layout, numbering and random initialisation of a decoder's parameters.
#include "core/model/parameters.h"

#include <algorithm>
#include <cmath>

#include "core/failure.h"
#include "core/memory.h"
#include "core/philox.h"

namespace collimate {

namespace {

constexpr double kInitStd = 0.02;
const char* const kPeftPrefix = "base_model.model.";

int64_t product(const std::vector<int64_t>& shape) {
  int64_t n = 1;
  for (const int64_t size : shape) n *= size;
  return n;
}

RandomStream init_stream(uint64_t seed, int number) {
  return {.seed = seed, .site = RandomSite::parameter_init, .stream = static_cast<uint64_t>(number)};
}

bool ends_with(const std::string& name, const std::string& suffix) {
  return name.size() >= suffix.size() && name.compare(name.size() - suffix.size(), suffix.size(), suffix) == 0;
}

}  // namespace

int64_t Parameter::elements() const { return product(shape); }
int64_t Parameter::row_elements() const { return elements() / shape[0]; }

Parameters::Parameters(Options options) : options_(std::move(options)) {
  const DecoderConfig& c = options_.config;
  if (options_.trainable.lora && options_.trainable.rank <= 0) {
    fail_bad_input("trainable.rank: expected a positive integer, got " + std::to_string(options_.trainable.rank));
  }
  embedding_ = add("model.embed_tokens.weight", {c.vocabulary, c.dim}, false);
  for (int64_t i = 0; i < c.layers; ++i) {
    const std::string at = "model.layers." + std::to_string(i) + ".";
    LayerNumbers layer;
    layer.attention_norm = add(at + "input_layernorm.weight", {c.dim}, false);
    layer.q = add_linear(at + "self_attn.q_proj", c.q_dim(), c.dim);
    layer.k = add_linear(at + "self_attn.k_proj", c.kv_dim(), c.dim);
    layer.v = add_linear(at + "self_attn.v_proj", c.kv_dim(), c.dim);
    layer.o = add_linear(at + "self_attn.o_proj", c.dim, c.q_dim());
    if (c.qkv_bias) {
      layer.q.bias = add(at + "self_attn.q_proj.bias", {c.q_dim()}, false);
      layer.k.bias = add(at + "self_attn.k_proj.bias", {c.kv_dim()}, false);
      layer.v.bias = add(at + "self_attn.v_proj.bias", {c.kv_dim()}, false);
    }
    if (c.output_bias) layer.o.bias = add(at + "self_attn.o_proj.bias", {c.dim}, false);
    if (c.qk_norm) {
      layer.q_norm = add(at + "self_attn.q_norm.weight", {c.head_dim}, false);
      layer.k_norm = add(at + "self_attn.k_norm.weight", {c.head_dim}, false);
    }
    layer.mlp_norm = add(at + "post_attention_layernorm.weight", {c.dim}, false);
    layer.gate = add_linear(at + "mlp.gate_proj", c.ffn_dim, c.dim);
    layer.up = add_linear(at + "mlp.up_proj", c.ffn_dim, c.dim);
    layer.down = add_linear(at + "mlp.down_proj", c.dim, c.ffn_dim);
    layers_.push_back(layer);
  }
  final_norm_ = add("model.norm.weight", {c.dim}, false);
  head_ = c.tie_embeddings ? embedding_ : add("lm_head.weight", {c.vocabulary, c.dim}, false);
  // Adapters behind all matrices: they must not come between q, k and v.
  for (int64_t i = 0; options_.trainable.lora && i < c.layers; ++i) {
    LayerNumbers& layer = layers_[static_cast<size_t>(i)];
    for (LinearNumbers* linear : {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) {
      const Parameter weight = at(linear->weight);
      add_adapter(*linear, weight.name.substr(0, weight.name.size() - 7), weight.shape[0], weight.shape[1]);
    }
  }
  for (const Options::Matrix& matrix : options_.appended) add(matrix.name, {matrix.out, matrix.in}, true);
  number_trained();
  const Parameter& last = all_.back();
  values_.assign(static_cast<size_t>(last.offset + last.elements()), 0.0f);
}

int Parameters::add(const std::string& name, std::vector<int64_t> shape, bool is_linear) {
  Parameter parameter;
  parameter.name = name;
  parameter.shape = std::move(shape);
  parameter.offset = all_.empty() ? 0 : all_.back().offset + all_.back().elements();
  parameter.decay = is_linear;
  const auto number = static_cast<int>(all_.size());
  by_name_[name] = number;
  all_.push_back(std::move(parameter));
  return number;
}

LinearNumbers Parameters::add_linear(const std::string& name, int64_t out, int64_t in) {
  return {.weight = add(name + ".weight", {out, in}, true)};
}

void Parameters::add_adapter(LinearNumbers& linear, const std::string& name, int64_t out, int64_t in) {
  const auto& targets = options_.trainable.targets;
  const std::string module = name.substr(name.rfind('.') + 1);
  if (std::find(targets.begin(), targets.end(), module) == targets.end()) return;
  linear.lora_a = add(kPeftPrefix + name + ".lora_A.weight", {options_.trainable.rank, in}, true);
  linear.lora_b = add(kPeftPrefix + name + ".lora_B.weight", {out, options_.trainable.rank}, true);
}

void Parameters::number_trained() {
  const FirstTrainedRows& first = options_.first_trained_rows;
  for (size_t i = 0; i < all_.size(); ++i) {
    Parameter& parameter = all_[i];
    const auto number = static_cast<int>(i);
    const bool is_table = number == embedding_ || number == head_;
    const bool is_adapter = parameter.name.rfind(kPeftPrefix, 0) == 0;
    if (!options_.trainable.lora || is_adapter) {
      parameter.train_rows = parameter.shape[0];
    } else if (is_table) {
      parameter.train_first_row = number == embedding_ ? first.embedding : first.head;
      parameter.train_rows = parameter.shape[0] - parameter.train_first_row;
    }
    if (parameter.train_rows == 0) continue;
    parameter.gradient_offset = trained_elements_;
    trained_elements_ += parameter.trained_elements();
  }
}

int Parameters::number_of(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? -1 : found->second;
}

int64_t Parameters::ranks_of(const std::vector<LinearNumbers>& layers) const {
  int64_t ranks = 0;
  for (const LinearNumbers& layer : layers)
    if (layer.lora_a >= 0) ranks += at(layer.lora_a).shape[0];
  return ranks;
}

void Parameters::release(int number) {
  const Parameter& parameter = at(number);
  if (parameter.train_rows > 0) {
    throw JobFailure(FailureCause::internal, "the memory of \"" + parameter.name + "\" cannot go: it is trained");
  }
  release_pages(std::span(data(number), static_cast<size_t>(parameter.elements())));
}

void initialise_scratch(Parameters& parameters, uint64_t seed) {
  const double residual = 1.0 / std::sqrt(2.0 * static_cast<double>(parameters.config().layers));
  for (int number = 0; number < static_cast<int>(parameters.all().size()); ++number) {
    const Parameter& parameter = parameters.at(number);
    if (parameter.name.rfind(kPeftPrefix, 0) == 0) continue;
    float* values = parameters.data(number);
    if (parameter.shape.size() == 1) {
      std::fill_n(values, parameter.elements(), 1.0f);
      continue;
    }
    const bool closes_branch =
        ends_with(parameter.name, "o_proj.weight") || ends_with(parameter.name, "down_proj.weight");
    const auto std = static_cast<float>(closes_branch ? kInitStd * residual : kInitStd);
    const RandomStream stream = init_stream(seed, number);
    for (int64_t i = 0; i < parameter.elements(); ++i)
      values[i] = std * random_normal(stream, static_cast<uint64_t>(i));
  }
  initialise_adapters(parameters, seed);
}

void initialise_adapters(Parameters& parameters, uint64_t seed) {
  for (int number = 0; number < static_cast<int>(parameters.all().size()); ++number) {
    const Parameter& parameter = parameters.at(number);
    if (!ends_with(parameter.name, ".lora_A.weight")) continue;  // B stays zero
    const float bound = 1.0f / std::sqrt(static_cast<float>(parameter.shape[1]));
    const RandomStream stream = init_stream(seed, number);
    float* values = parameters.data(number);
    for (int64_t i = 0; i < parameter.elements(); ++i) {
      values[i] = bound * (2.0f * random_uniform(stream, static_cast<uint64_t>(i)) - 1.0f);
    }
  }
}

}  // namespace collimate
