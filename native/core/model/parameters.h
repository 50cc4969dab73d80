// Named parameters of a decoder: where each lies in one flat buffer, and which part of it is trained.
//
// 1. Values of all base parameters lie in one buffer, per layer in the order q, k, v, o, their biases in the same
//    order, gate, up, down, so that q/k/v (matrices and biases) and gate/up are one each.
// 2. A parameter is frozen, trained in full, or trained on a range of its rows; a linear layer may carry an adapter
//    whose A and B are parameters of their own. Trained elements are numbered contiguously: the flat gradient and the
//    Adam moments share that numbering.
// 3. Parameter number = index in `all()`; random initialisation is keyed by it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/model/decoder_config.h"

namespace collimate {

struct Parameter {
  std::string name;                             // Hugging Face's; of adapters: PEFT's, for example
                                                // base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight
  std::vector<int64_t> shape;                   // [out, in], [V, C] or [C]
  int64_t offset = 0;                           // into values()
  int64_t train_first_row = 0, train_rows = 0;  // of shape[0]; 0 rows: frozen
  int64_t gradient_offset = -1;                 // into the flat gradient; -1: frozen
  bool decay = false;                           // weight decay: linear layers and adapters only
  int64_t elements() const;
  int64_t row_elements() const;
  int64_t trained_elements() const { return train_rows * row_elements(); }
};

// How the linear layers are trained.
struct Trainable {
  bool lora = false;
  int64_t rank = 0;
  double alpha = 0.0;
  std::vector<std::string> targets{};  // q_proj … down_proj
  float scale() const { return static_cast<float>(alpha / static_cast<double>(rank)); }
};

// Indices into Parameters::all(); -1: absent.
struct LinearNumbers {
  int weight = -1, bias = -1, lora_a = -1, lora_b = -1;
};
struct LayerNumbers {
  int attention_norm = -1, mlp_norm = -1;
  int q_norm = -1, k_norm = -1;  // [D]
  LinearNumbers q, k, v, o, gate, up, down;
};

class Parameters {
 public:
  // Under LoRA: of each table the rows from here on are trained. Of a tied head the embedding's counts.
  struct FirstTrainedRows {
    int64_t embedding = 0, head = 0;
  };
  struct Options {
    DecoderConfig config;
    Trainable trainable{};
    FirstTrainedRows first_trained_rows{};
    // Matrices beside the decoder's, numbered behind all of its own and trained in full.
    struct Matrix {
      std::string name;
      int64_t out = 0, in = 0;
    };
    std::vector<Matrix> appended{};
  };
  // Laid out, values zero.
  explicit Parameters(Options options);

  const DecoderConfig& config() const { return options_.config; }
  const Trainable& trainable() const { return options_.trainable; }
  const std::vector<Parameter>& all() const { return all_; }
  const Parameter& at(int number) const { return all_[static_cast<size_t>(number)]; }
  int number_of(const std::string& name) const;  // -1 when absent
  int embedding() const { return embedding_; }
  int final_norm() const { return final_norm_; }
  int head() const { return head_; }  // = embedding() when tied
  const std::vector<LayerNumbers>& layers() const { return layers_; }

  float* data(int number) { return values_.data() + at(number).offset; }
  const float* data(int number) const { return values_.data() + at(number).offset; }
  // Of these layers' adapters together.
  int64_t ranks_of(const std::vector<LinearNumbers>& layers) const;
  // Gives the memory of a frozen parameter back, once something else holds what is needed of it: its values are lost.
  void release(int number);
  std::span<float> values() { return values_; }
  std::span<const float> values() const { return values_; }
  int64_t trained_elements() const { return trained_elements_; }

  // [(H + 2K) D, C] and [2F, C]: the fused matrices of a layer.
  const float* qkv(int layer) const { return data(layers_[static_cast<size_t>(layer)].q.weight); }
  const float* gate_up(int layer) const { return data(layers_[static_cast<size_t>(layer)].gate.weight); }

 private:
  int add(const std::string& name, std::vector<int64_t> shape, bool is_linear);
  LinearNumbers add_linear(const std::string& name, int64_t out, int64_t in);
  void add_adapter(LinearNumbers& linear, const std::string& name, int64_t out, int64_t in);
  void number_trained();

  Options options_;
  std::vector<Parameter> all_;
  std::map<std::string, int> by_name_;
  std::vector<LayerNumbers> layers_;
  std::vector<float> values_;
  int64_t trained_elements_ = 0;
  int embedding_ = -1, final_norm_ = -1, head_ = -1;
};

// Scratch base: normal(0, 0.02), residual projections (o, down) by a further 1/sqrt(2 layers), norms one; adapters A
// uniform in ±1/sqrt(in) (PEFT's Kaiming-uniform with a = sqrt 5), B zero.
void initialise_scratch(Parameters& parameters, uint64_t seed);
void initialise_adapters(Parameters& parameters, uint64_t seed);

// A Hugging Face base: config.json and the shards beside it.
struct BaseFiles {
  std::filesystem::path config;
  std::vector<std::filesystem::path> shards;
  // From job inputs named base/config.json and base/*.safetensors; JobFailure(bad_input) when one kind is absent.
  static BaseFiles from_inputs(const std::map<std::string, std::filesystem::path>& inputs);
  DecoderConfig read_config() const;
};
// Base tensors by name; vocabulary rows beyond the base's are drawn normal with the standard deviation of its rows.
void load_base(Parameters& parameters, const BaseFiles& base, uint64_t seed);

// Name of a trained parameter in a `model` file: PEFT's trainable_tokens_delta for the trained rows of a table.
std::string exported_name(const Parameters& parameters, int number);

// The trained parameters by name (only their trained rows), with config and, for LoRA, adapter_config in the metadata.
void write_model(const Parameters& parameters, const std::filesystem::path& path);

// Every parameter, whatever was trained, without metadata but `format`: a Hugging Face model.safetensors. Adapters must
// be merged.
void write_merged(const Parameters& parameters, const std::filesystem::path& path);

// A finished `model` file, ready for inference: every parameter present, adapters merged into their matrices. `inputs`
// are the job's (base files, only needed when the model is an adapter).
Parameters load_model(const std::filesystem::path& model, const std::map<std::string, std::filesystem::path>& inputs);

}  // namespace collimate
