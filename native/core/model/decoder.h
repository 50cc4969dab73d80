// Forward and backward of a Llama-shaped decoder over packed sequences, written by hand over the ops.
//
// 1. Logits exist only at labelled rows, a chunk of rows at a time.
// 2. The bytes of loss and gradient are functions of parameters, batch and dropout stream alone.
// 3. One path for frozen, low-rank and full parameters: a matrix gets a gradient if and only if it is trained.
// 4. With recompute a layer's activations are made again in the backward, by the same calls on the same inputs: the
//    same bytes, for a fraction of the memory and the time of most of another forward.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/model/arena.h"
#include "core/model/decoder_weights.h"
#include "core/model/parameters.h"
#include "core/ops.h"
#include "core/ops_backend.h"

namespace collimate {

// Sequences of which the first one's answer is preferred to each of the others'.
struct PreferenceGroup {
  std::vector<int64_t> label_bounds;  // [n + 1]: sequence i has the labels label_bounds[i] .. label_bounds[i + 1] - 1
  std::vector<double> reference;      // [n]: log-probabilities of the answers under the model that training began with
};

// Sequences end to end, without padding. Row = packed token.
struct PackedBatch {
  std::vector<int32_t> tokens;          // [T]
  std::vector<int32_t> positions;       // [T], from 0 in each sequence
  std::vector<int64_t> offsets{0};      // [n + 1]
  std::vector<int32_t> label_rows;      // [N]: the row whose output predicts targets[i]; ascending
  std::vector<int32_t> targets;         // [N]
  std::vector<PreferenceGroup> groups;  // of labels; ascending. All other labels are each a loss of their own
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

// Not for two threads at once: a decoder owns the workspace of a pass. Several may share weights.
class Decoder {
 public:
  struct Options {
    bool recompute = false;
    // [V, C], read in place of the embedding by the input and by the head; its gradient goes where the embedding's
    // would. The head is then that of tied embeddings. Null: the parameters' own tables. Not with bf16. Where the
    // weights' backend reads it.
    const float* table = nullptr;
    // Above 0 the rows that meet the head are scaled to this length: with a table of rows of one length, logits are
    // cosines times both lengths.
    float hidden_length = 0.0f;
  };
  // Runs where the weights are. In bf16 the products of linear layers and of the head are of bf16 values; on a device
  // those of weight gradients and of attention too, and what only products, SwiGLU or attention read is left in bf16.
  // All else stays fp32. `positions`: longest sequence that will come.
  // Weights are read at each call, so an update is seen at once.
  Decoder(const DecoderWeights& weights, int64_t positions, const Options& options);
  Decoder(const DecoderWeights& weights, int64_t positions) : Decoder(weights, positions, Options()) {}

  // Wall time of passes. The head counts as backward: its two directions alternate over chunks of rows.
  struct PassSeconds {
    double forward = 0.0, backward = 0.0;
  };
  struct GradientArgs {
    float loss_scale = 1.0f;
    DropoutSpec dropout{};
    std::span<float> gradient;  // in the backend's memory
    double preference_beta = 0.1;
    std::span<double> label_losses{};  // [N], or empty: filled with the sum's terms; a group's is at its first label
    PassSeconds* seconds = nullptr;    // added to, unless null
  };
  // Sum of the losses (cross-entropy of labels, preference_loss of groups); adds loss_scale * gradient to the flat
  // gradient (trained elements).
  double forward_backward(const PackedBatch& batch, const GradientArgs& args);

  // What the largest pass so far has needed; it is kept for the next.
  int64_t workspace_bytes() const { return arena_.bytes(); }
  // The same for a forward and backward to come.
  struct PassShape {
    int64_t rows = 0, labels = 0;
    bool recompute = false, on_device = false;
    bool bf16_rows = false;  // as weights.reads_bf16_rows()
  };
  static int64_t workspace_bytes(const Parameters& parameters, const PassShape& shape);

  // -log p of each label [N], without dropout.
  std::vector<double> losses(const PackedBatch& batch);

  // Logits at the labelled rows, [N, V], without dropout.
  std::vector<float> logits(const PackedBatch& batch);
  // What the head would see at every row, behind the final norm: [T, C], without dropout.
  std::vector<float> hidden_states(const PackedBatch& batch);

 private:
  struct Pass;   // decoder_pass.h
  struct Layer;  // what one layer keeps for the backward
  struct HeadColumns;
  struct HeadNorm;
  struct Site;  // one linear layer in use
  struct LabelRange;
  struct Head {
    int64_t logits = 0;  // rows held at once
  };
  struct WorkspaceShape {
    int64_t rows = 0, labels = 0, logits = 0;
    bool recompute = false, forward_only = false;
    bool uploads = false;  // the batch's arrays are copied to the backend
    bool bf16_rows = false;
  };

  static int64_t pass_bytes(const Parameters& parameters, const WorkspaceShape& shape);
  template <typename Take>  // take(elements): a buffer
  static void lay_out(const Parameters& parameters, const WorkspaceShape& shape, Pass& pass, const Take& take);
  void lay_out(Pass& pass, const Head& head);
  void place(Pass& pass);
  void check(const PackedBatch& batch) const;
  // Rows of logits held at once: about 16 MiB, between 64 and 1024 rows, on a device 512 MiB, between 64 and 4096; a
  // function of the vocabulary and the kind of machine alone.
  static int64_t logits_rows(int64_t vocabulary, bool on_device);
  int64_t logits_rows() const { return logits_rows(parameters_.config().vocabulary, !backend_.is_host()); }
  void forward(Pass& pass);
  void forward_attention(Pass& pass, int64_t number);
  void forward_mlp(Pass& pass, int64_t number);
  void attend(const Pass& pass, int64_t number);
  void expand(const Pass& pass, int64_t number);
  void recompute_attention(const Pass& pass, int64_t number);
  void recompute_mlp(const Pass& pass, int64_t number);
  void norm(Pass& pass, int weight, float* sum, const ops::Activations& normed, float* inverse_rms);
  void norm_again(const Pass& pass, int weight, const float* sum, const ops::Activations& normed, float* inverse_rms);
  double head_forward_backward(Pass& pass);
  void head_losses(const Pass& pass, const LabelRange& range);
  void gather_hidden(const Pass& pass);
  void make_row_scales(const Pass& pass, std::span<double> group_losses);
  void backward(Pass& pass);
  void backward_mlp(Pass& pass, int64_t number);
  void backward_attention(Pass& pass, int64_t number);
  void backward_norm(Pass& pass, int weight, const float* sum, const float* inverse_rms);
  ops::Activations branch_gradient(Pass& pass, int64_t site);
  void norm_heads(const Pass& pass, int64_t number);
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
  void head_backward(const Pass& pass, const HeadRows& head);
  Site qkv_site(const Layer& layer, int64_t number) const;
  Site output_site(const Layer& layer, int64_t number) const;
  Site gate_up_site(const Layer& layer, int64_t number) const;
  Site down_site(const Layer& layer, int64_t number) const;
  ops::AttentionForward attention_args(const Pass& pass, const Layer& layer) const;
  ops::Rope rope_args(const Pass& pass, const ops::Activations& qkv, bool inverse) const;
  void drop(const Pass& pass, float* x, int64_t site) const;
  const float* data(int number) const { return weights_.data(number); }
  const float* table(int number) const { return options_.table ? options_.table : data(number); }
  void scale_hidden(const Pass& pass);
  float* gradient_of(const Pass& pass, int number) const;

  const DecoderWeights& weights_;
  const Parameters& parameters_;
  OpsBackend& backend_;
  Options options_;
  ops::RopeTable rope_;
  PlacedArray<float> cos_, sin_;
  Arena arena_;
};

}  // namespace collimate
