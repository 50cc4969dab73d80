// Shape of a decoder of the Llama family, read from and written as a Hugging Face config.json.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/json.h"

namespace collimate {

struct DecoderConfig {
  int64_t layers = 0;
  int64_t dim = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t ffn_dim = 0;
  int64_t vocabulary = 0;
  double rope_theta = 10000.0;
  float norm_eps = 1e-5f;
  bool tie_embeddings = false;
  bool qkv_bias = false;       // on the projections to q, k and v
  bool output_bias = false;    // on the projection behind the attention
  bool qk_norm = false;        // RMSNorm on each head of q and k, before the rotation
  int64_t positions_max = 0;   // 0: not limited
  int64_t sliding_window = 0;  // a position sees itself and so many less one before it; 0: all before it
  Json rope_scaling;           // null, {"rope_type": "linear", "factor"}, or Llama 3's {"rope_type": "llama3", …}
  Json source;                 // the config.json this came from, so that writing it back loses nothing

  int64_t q_dim() const { return heads * head_dim; }
  int64_t kv_dim() const { return kv_heads * head_dim; }
  int64_t qkv_dim() const { return q_dim() + 2 * kv_dim(); }

  struct Shape {
    int64_t layers = 0, dim = 0, heads = 0, kv_heads = 0, ffn_dim = 0;
    double rope_theta = 10000.0, norm_eps = 1e-5;
    bool tie_embeddings = false;
  };
  // A scratch decoder; its config.json is made from the shape.
  static DecoderConfig from_shape(const Shape& shape, int64_t vocabulary);
  // LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM and Qwen3ForCausalLM. JobFailure(bad_input) names `where`
  // and the field that does not fit.
  static DecoderConfig parse(const std::string& config_text, const std::string& where);
  // config.json text with this vocabulary; the same bytes for the same config.
  std::string to_text() const;
  // [head_dim / 2]
  std::vector<double> rope_inverse_frequency() const;
  // JobFailure(bad_input) when a sequence of so many tokens does not fit.
  void check_length(int64_t tokens) const;
};

}  // namespace collimate
