// Forward of the decoder, and whole passes.
#include <chrono>

#include "core/model/decoder_pass.h"

namespace collimate {

namespace {

constexpr int64_t kFloatBytes = sizeof(float), kDoubleBytes = sizeof(double);

}  // namespace

void Decoder::linear(const Pass& pass, const Site& site) {
  if (weights_.is_bf16()) {
    linear_bf16(pass, site);
  } else {
    linear_fp32(pass, site);
  }
  // The biases of a fused matrix lie side by side as its parts do.
  const int bias = site.parts[0].numbers.bias;
  if (bias < 0) return;
  backend_.add_bias({.rows = pass.batch.rows(), .width = site.out, .bias = data(bias), .y = site.y.fp32});
}

void Decoder::linear_fp32(const Pass& pass, const Site& site) {
  const int64_t rows = pass.batch.rows();
  backend_.linear_forward({.rows = rows,
                           .in = site.in,
                           .out = site.out,
                           .x = site.x.fp32,
                           .x_stride = site.in,
                           .weight = data(site.parts[0].numbers.weight),
                           .y = site.y.fp32,
                           .y_stride = site.out});
  for (const Site::Part& part : site.parts) {
    if (part.numbers.lora_a < 0) continue;
    backend_.lora_forward({.rows = rows,
                           .in = site.in,
                           .out = part.width,
                           .rank = parameters_.trainable().rank,
                           .scale = parameters_.trainable().scale(),
                           .x = site.x.fp32,
                           .x_stride = site.in,
                           .a = data(part.numbers.lora_a),
                           .b = data(part.numbers.lora_b),
                           .xa = part.xa,
                           .y = site.y.fp32 + part.column,
                           .y_stride = site.out});
  }
}

// sum = stream + pending branch (no copy before the first branch); normed = RMSNorm(sum).
void Decoder::norm(Pass& pass, int weight, float* sum, const ops::Activations& normed, float* inverse_rms) {
  backend_.rmsnorm_forward({.rows = pass.batch.rows(),
                            .dim = parameters_.config().dim,
                            .eps = parameters_.config().norm_eps,
                            .x = pass.stream,
                            .delta = pass.branch_pending ? pass.branch : nullptr,
                            .sum = sum,
                            .weight = data(weight),
                            .y = normed.fp32,
                            .y_bf16 = normed.bf16,
                            .inverse_rms = inverse_rms});
  pass.stream = sum;
}

void Decoder::forward(Pass& pass) {
  const DecoderConfig& c = parameters_.config();
  const int64_t rows = pass.batch.rows();
  place(pass);
  backend_.embedding_forward({.rows = rows,
                              .dim = c.dim,
                              .vocabulary = c.vocabulary,
                              .table = table(parameters_.embedding()),
                              .tokens = pass.tokens,
                              .y = pass.embedded});
  drop(pass, pass.embedded, 0);
  pass.stream = pass.embedded;
  for (int64_t i = 0; i < c.layers; ++i) {
    forward_attention(pass, i);
    forward_mlp(pass, i);
  }
  norm(pass, parameters_.final_norm(), pass.final_in, {.fp32 = pass.final_normed}, pass.final_rms);
}

void Decoder::forward_attention(Pass& pass, int64_t number) {
  const Layer& layer = pass.layers[static_cast<size_t>(number)];
  norm(pass, parameters_.layers()[static_cast<size_t>(number)].attention_norm, layer.attention_in,
       layer.attention_normed, layer.attention_rms);
  attend(pass, number);
  Site output = output_site(layer, number);
  output.y = {.fp32 = pass.branch};
  linear(pass, output);
  drop(pass, pass.branch, 1 + 2 * number);
  pass.branch_pending = true;
}

// From the normed input to the attention's output.
void Decoder::attend(const Pass& pass, int64_t number) {
  const Layer& layer = pass.layers[static_cast<size_t>(number)];
  Site qkv = qkv_site(layer, number);
  qkv.y = layer.qkv;
  linear(pass, qkv);
  if (parameters_.config().qk_norm) norm_heads(pass, number);
  backend_.rope(rope_args(pass, layer.qkv, /*inverse=*/false));
  backend_.attention_forward(attention_args(pass, layer));
}

// RMSNorm of each head of q and of k.
void Decoder::norm_heads(const Pass& pass, int64_t number) {
  const DecoderConfig& c = parameters_.config();
  const int64_t rows = pass.batch.rows();
  const LayerNumbers& numbers = parameters_.layers()[static_cast<size_t>(number)];
  const Layer& layer = pass.layers[static_cast<size_t>(number)];
  ops::HeadNormForward args{.rows = rows,
                            .heads = c.heads,
                            .head_dim = c.head_dim,
                            .eps = c.norm_eps,
                            .weight = data(numbers.q_norm),
                            .x = layer.qkv.fp32,
                            .x_stride = c.qkv_dim(),
                            .raw = layer.q_norm.raw,
                            .inverse_rms = layer.q_norm.inverse_rms};
  backend_.head_norm_forward(args);
  args.heads = c.kv_heads;
  args.weight = data(numbers.k_norm);
  args.x = layer.qkv.fp32 + c.q_dim();
  args.raw = layer.k_norm.raw;
  args.inverse_rms = layer.k_norm.inverse_rms;
  backend_.head_norm_forward(args);
}

void Decoder::forward_mlp(Pass& pass, int64_t number) {
  const Layer& layer = pass.layers[static_cast<size_t>(number)];
  norm(pass, parameters_.layers()[static_cast<size_t>(number)].mlp_norm, layer.mlp_in, layer.mlp_normed, layer.mlp_rms);
  expand(pass, number);
  Site down = down_site(layer, number);
  down.y = {.fp32 = pass.branch};
  linear(pass, down);
  drop(pass, pass.branch, 2 + 2 * number);
}

// From the normed input to the activation.
void Decoder::expand(const Pass& pass, int64_t number) {
  const DecoderConfig& c = parameters_.config();
  const Layer& layer = pass.layers[static_cast<size_t>(number)];
  Site gate_up = gate_up_site(layer, number);
  gate_up.y = layer.gate_up;
  linear(pass, gate_up);
  backend_.swiglu_forward({.rows = pass.batch.rows(),
                           .ffn_dim = c.ffn_dim,
                           .gate_up = layer.gate_up.fp32,
                           .gate_up_bf16 = layer.gate_up.bf16,
                           .act = layer.act.fp32,
                           .act_bf16 = layer.act.bf16});
}

std::vector<double> Decoder::losses(const PackedBatch& batch) {
  Pass pass{.batch = batch};
  lay_out(pass, {.logits = logits_rows()});
  forward(pass);
  gather_hidden(pass);
  head_losses(pass, {.end = batch.labels()});
  std::vector<double> losses(static_cast<size_t>(batch.labels()));
  backend_.download(losses.data(), pass.losses, batch.labels() * kDoubleBytes);
  return losses;
}

std::vector<float> Decoder::logits(const PackedBatch& batch) {
  Pass pass{.batch = batch};
  lay_out(pass, {.logits = batch.labels()});
  forward(pass);
  gather_hidden(pass);
  head_logits({.rows = batch.labels(), .hidden = pass.hidden, .logits = pass.logits});
  std::vector<float> logits(static_cast<size_t>(batch.labels() * parameters_.config().vocabulary));
  backend_.download(logits.data(), pass.logits, static_cast<int64_t>(logits.size()) * kFloatBytes);
  return logits;
}

std::vector<float> Decoder::hidden_states(const PackedBatch& batch) {
  Pass pass{.batch = batch};
  lay_out(pass, {});
  forward(pass);
  std::vector<float> hidden(static_cast<size_t>(batch.rows() * parameters_.config().dim));
  backend_.download(hidden.data(), pass.final_normed, static_cast<int64_t>(hidden.size()) * kFloatBytes);
  return hidden;
}

double Decoder::forward_backward(const PackedBatch& batch, const GradientArgs& args) {
  if (batch.labels() == 0) return 0.0;
  Pass pass{.batch = batch, .args = &args};
  using Clock = std::chrono::steady_clock;
  const Clock::time_point started = Clock::now();
  lay_out(pass, {.logits = logits_rows()});
  forward(pass);
  if (args.seconds != nullptr) backend_.synchronize();
  const Clock::time_point turned = Clock::now();
  const double loss = head_forward_backward(pass);
  backward(pass);
  if (args.seconds != nullptr) backend_.synchronize();
  if (args.seconds != nullptr) {
    args.seconds->forward += std::chrono::duration<double>(turned - started).count();
    args.seconds->backward += std::chrono::duration<double>(Clock::now() - turned).count();
  }
  return loss;
}

}  // namespace collimate
