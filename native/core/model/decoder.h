// Forward and backward of a Llama-shaped decoder over packed sequences, written by hand over the ops.
//
// 1. Logits exist only at labelled rows, a chunk of rows at a time.
// 2. The bytes of loss and gradient are functions of parameters, batch and dropout stream alone.
// 3. One path for frozen, low-rank and full parameters: a matrix gets a gradient if and only if it is trained.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/model/arena.h"
#include "core/model/bf16_weights.h"
#include "core/model/parameters.h"
#include "core/ops.h"
#include "core/pool.h"

namespace collimate {

// Sequences end to end, without padding. Row = packed token.
struct PackedBatch {
  std::vector<int32_t> tokens;      // [T]
  std::vector<int32_t> positions;   // [T], from 0 in each sequence
  std::vector<int64_t> offsets{0};  // [n + 1]
  std::vector<int32_t> label_rows;  // [N]: the row whose output predicts targets[i]; ascending
  std::vector<int32_t> targets;     // [N]
  int64_t rows() const { return static_cast<int64_t>(tokens.size()); }
  int64_t labels() const { return static_cast<int64_t>(targets.size()); }
  // Appends a sequence; label_mask[i] = 1: token i is predicted from those before it (so i > 0).
  void add(std::span<const int32_t> sequence, std::span<const uint8_t> label_mask);
};

struct DropoutSpec {
  float probability = 0.0f;
  uint64_t seed = 0;
  int64_t step = 0;
  int lane = 0;
};

// Not for two threads at once: a decoder owns the workspace of a pass. Several may share parameters and pool.
class Decoder {
 public:
  // `positions`: longest sequence that will come. Parameters are read at each call, so an update is seen at once.
  // With `bf16`, packed from these parameters, the products of linear layers and of the head are of bf16 values (weight
  // gradients, attention and all else stay fp32).
  Decoder(const Parameters& parameters, Pool& pool, int64_t positions, const Bf16Weights* bf16 = nullptr);

  // Sum of the losses at labelled rows; adds loss_scale * gradient to the flat gradient (trained elements).
  struct GradientArgs {
    float loss_scale = 1.0f;
    DropoutSpec dropout{};
    std::span<float> gradient;
  };
  double forward_backward(const PackedBatch& batch, const GradientArgs& args);

  // What one pass has needed so far; it is kept for the next.
  int64_t workspace_bytes() const { return arena_.bytes(); }

  // Logits at the labelled rows, [N, V], without dropout.
  std::vector<float> logits(const PackedBatch& batch);

 private:
  struct Pass;   // decoder_pass.h
  struct Layer;  // what one layer keeps for the backward
  struct HeadNorm;
  struct Site;  // one linear layer in use

  void forward(Pass& pass);
  void forward_attention(Pass& pass, int64_t number);
  void forward_mlp(Pass& pass, int64_t number);
  void norm(Pass& pass, int weight, float* sum, float* normed, float* inverse_rms);
  double head_forward_backward(Pass& pass);
  void backward(Pass& pass);
  void backward_mlp(Pass& pass, int64_t number);
  void backward_attention(Pass& pass, int64_t number);
  void backward_norm(Pass& pass, int weight, const float* sum, const float* inverse_rms);
  const float* branch_gradient(Pass& pass, int64_t site);
  void norm_heads(Pass& pass, int64_t number);
  void backward_norm_heads(Pass& pass, int64_t number);
  void linear(const Pass& pass, const Site& site);
  void linear_fp32(const Pass& pass, const Site& site);
  void linear_backward_fp32(const Pass& pass, const Site& site);
  void linear_backward(const Pass& pass, const Site& site);
  std::vector<ops::Bf16Adapter> bf16_adapters(const Site& site) const;
  void linear_bf16(const Pass& pass, const Site& site);
  void linear_backward_bf16(const Pass& pass, const Site& site);
  struct HeadRows;  // logits and hidden rows of a chunk of labels
  void head_logits(const HeadRows& head);
  void head_backward(const HeadRows& head);
  Site qkv_site(const Layer& layer, int64_t number) const;
  Site output_site(const Layer& layer, int64_t number) const;
  Site gate_up_site(const Layer& layer, int64_t number) const;
  Site down_site(const Layer& layer, int64_t number) const;
  ops::AttentionForward attention_args(const Pass& pass, const Layer& layer) const;
  ops::Rope rope_args(const Pass& pass, float* qkv, bool inverse) const;
  void drop(const Pass& pass, float* x, int64_t site) const;
  const float* data(int number) const { return parameters_.data(number); }
  float* gradient_of(const Pass& pass, int number) const;

  const Parameters& parameters_;
  Pool& pool_;
  const Bf16Weights* bf16_;
  ops::RopeTable rope_;
  Arena arena_;
};

}  // namespace collimate
