// Forward of the decoder, and the head: logits, loss and the gradient that enters the backward.
#include <algorithm>

#include "core/failure.h"
#include "core/model/decoder_pass.h"
#include "core/tree_sum.h"

namespace collimate {

void Decoder::linear(const Pass& pass, const Site& site) {
  if (options_.bf16) {
    linear_bf16(pass, site);
  } else {
    linear_fp32(pass, site);
  }
  // The biases of a fused matrix lie side by side as its parts do.
  const int bias = site.parts[0].numbers.bias;
  if (bias < 0) return;
  ops::add_bias(pool_, {.rows = pass.batch.rows(), .width = site.out, .bias = data(bias), .y = site.y});
}

void Decoder::linear_fp32(const Pass& pass, const Site& site) {
  const int64_t rows = pass.batch.rows();
  ops::linear_forward(pool_, {.rows = rows,
                              .in = site.in,
                              .out = site.out,
                              .x = site.x,
                              .x_stride = site.in,
                              .weight = data(site.parts[0].numbers.weight),
                              .y = site.y,
                              .y_stride = site.out});
  for (const Site::Part& part : site.parts) {
    if (part.numbers.lora_a < 0) continue;
    ops::lora_forward(pool_, {.rows = rows,
                              .in = site.in,
                              .out = part.width,
                              .rank = parameters_.trainable().rank,
                              .scale = parameters_.trainable().scale(),
                              .x = site.x,
                              .x_stride = site.in,
                              .a = data(part.numbers.lora_a),
                              .b = data(part.numbers.lora_b),
                              .xa = part.xa,
                              .y = site.y + part.column,
                              .y_stride = site.out});
  }
}

// sum = stream + pending branch (no copy before the first branch); normed = RMSNorm(sum).
void Decoder::norm(Pass& pass, int weight, float* sum, float* normed, float* inverse_rms) {
  ops::rmsnorm_forward(pool_, {.rows = pass.batch.rows(),
                               .dim = parameters_.config().dim,
                               .eps = parameters_.config().norm_eps,
                               .x = pass.stream,
                               .delta = pass.branch_pending ? pass.branch : nullptr,
                               .sum = sum,
                               .weight = data(weight),
                               .y = normed,
                               .inverse_rms = inverse_rms});
  pass.stream = sum;
}

void Decoder::forward(Pass& pass) {
  const DecoderConfig& c = parameters_.config();
  const int64_t rows = pass.batch.rows();
  for (const int32_t position : pass.batch.positions) {
    if (position >= rope_.positions) {
      fail_bad_input("sequences may have at most " + std::to_string(rope_.positions) +
                     " tokens here, got a longer one");
    }
  }
  ops::embedding_forward(pool_, {.rows = rows,
                                 .dim = c.dim,
                                 .vocabulary = c.vocabulary,
                                 .table = data(parameters_.embedding()),
                                 .tokens = pass.batch.tokens.data(),
                                 .y = pass.embedded});
  drop(pass, pass.embedded, 0);
  pass.stream = pass.embedded;
  for (int64_t i = 0; i < c.layers; ++i) {
    forward_attention(pass, i);
    forward_mlp(pass, i);
  }
  norm(pass, parameters_.final_norm(), pass.final_in, pass.final_normed, pass.final_rms);
}

void Decoder::forward_attention(Pass& pass, int64_t number) {
  const Layer& layer = pass.layers[static_cast<size_t>(number)];
  norm(pass, parameters_.layers()[static_cast<size_t>(number)].attention_norm, layer.attention_in,
       layer.attention_normed, layer.attention_rms);
  attend(pass, number);
  Site output = output_site(layer, number);
  output.y = pass.branch;
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
  ops::rope(pool_, rope_args(pass, layer.qkv, /*inverse=*/false));
  ops::attention_forward(pool_, attention_args(pass, layer));
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
                            .x = layer.qkv,
                            .x_stride = c.qkv_dim(),
                            .raw = layer.q_norm.raw,
                            .inverse_rms = layer.q_norm.inverse_rms};
  ops::head_norm_forward(pool_, args);
  args.heads = c.kv_heads;
  args.weight = data(numbers.k_norm);
  args.x = layer.qkv + c.q_dim();
  args.raw = layer.k_norm.raw;
  args.inverse_rms = layer.k_norm.inverse_rms;
  ops::head_norm_forward(pool_, args);
}

void Decoder::forward_mlp(Pass& pass, int64_t number) {
  const Layer& layer = pass.layers[static_cast<size_t>(number)];
  norm(pass, parameters_.layers()[static_cast<size_t>(number)].mlp_norm, layer.mlp_in, layer.mlp_normed, layer.mlp_rms);
  expand(pass, number);
  Site down = down_site(layer, number);
  down.y = pass.branch;
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
  ops::swiglu_forward(pool_,
                      {.rows = pass.batch.rows(), .ffn_dim = c.ffn_dim, .gate_up = layer.gate_up, .act = layer.act});
}

void Decoder::head_logits(const HeadRows& head) {
  const DecoderConfig& c = parameters_.config();
  if (options_.bf16) {
    ops::bf16_linear_forward(pool_, {.rows = head.rows,
                                     .weight = &options_.bf16->matrix(parameters_.head()),
                                     .x = head.hidden,
                                     .x_stride = c.dim,
                                     .y = head.logits,
                                     .y_stride = c.vocabulary});
    return;
  }
  ops::linear_forward(pool_, {.rows = head.rows,
                              .in = c.dim,
                              .out = c.vocabulary,
                              .x = head.hidden,
                              .x_stride = c.dim,
                              .weight = data(parameters_.head()),
                              .y = head.logits,
                              .y_stride = c.vocabulary});
}

void Decoder::head_backward(const HeadRows& head) {
  const DecoderConfig& c = parameters_.config();
  if (options_.bf16) {
    ops::bf16_linear_backward(pool_, {.rows = head.rows,
                                      .weight = &options_.bf16->matrix(parameters_.head()),
                                      .dy = head.logits,
                                      .dy_stride = c.vocabulary,
                                      .dx = head.dhidden,
                                      .dx_stride = c.dim});
    return;
  }
  ops::linear_backward(pool_, {.rows = head.rows,
                               .in = c.dim,
                               .out = c.vocabulary,
                               .weight = data(parameters_.head()),
                               .dy = head.logits,
                               .dy_stride = c.vocabulary,
                               .dx = head.dhidden,
                               .dx_stride = c.dim});
}

// Loss over the labelled rows; leaves the gradient of the final norm's output in dnormed and adds the head's.
double Decoder::head_forward_backward(Pass& pass) {
  const DecoderConfig& c = parameters_.config();
  const int64_t labels = pass.batch.labels(), dim = c.dim, vocabulary = c.vocabulary;
  const Parameter& head = parameters_.at(parameters_.head());
  float* dweight = gradient_of(pass, parameters_.head());
  const int64_t chunk_rows = logits_rows(vocabulary);
  float *hidden = pass.hidden, *dhidden = pass.dhidden, *logits = pass.logits;
  std::vector<double> losses(static_cast<size_t>(labels));
  ops::gather_rows(
      pool_,
      {.rows = labels, .dim = dim, .index = pass.batch.label_rows.data(), .from = pass.final_normed, .to = hidden});
  for (int64_t begin = 0; begin < labels; begin += chunk_rows) {
    const int64_t rows = std::min(chunk_rows, labels - begin);
    const float* x = hidden + begin * dim;
    const HeadRows chunk{rows, x, logits, dhidden + begin * dim};
    head_logits(chunk);
    ops::cross_entropy(pool_, {.rows = rows,
                               .vocabulary = vocabulary,
                               .logits = logits,
                               .targets = pass.batch.targets.data() + begin,
                               .scale = pass.args->loss_scale,
                               .losses = losses.data() + begin});
    head_backward(chunk);
    // Only the trained rows of the head get a gradient.
    ops::linear_backward(pool_, {.rows = rows,
                                 .in = dim,
                                 .out = head.train_rows,
                                 .x = x,
                                 .x_stride = dim,
                                 .dy = logits + head.train_first_row,
                                 .dy_stride = vocabulary,
                                 .dweight = dweight});
  }
  std::fill_n(pass.dnormed, pass.batch.rows() * dim, 0.0f);
  ops::scatter_rows(
      pool_, {.rows = labels, .dim = dim, .index = pass.batch.label_rows.data(), .from = dhidden, .to = pass.dnormed});
  return tree_sum(losses);
}

std::vector<float> Decoder::logits(const PackedBatch& batch) {
  const DecoderConfig& c = parameters_.config();
  Pass pass{.batch = batch};
  lay_out(pass);
  forward(pass);
  ops::gather_rows(pool_, {.rows = batch.labels(),
                           .dim = c.dim,
                           .index = batch.label_rows.data(),
                           .from = pass.final_normed,
                           .to = pass.hidden});
  std::vector<float> logits(static_cast<size_t>(batch.labels() * c.vocabulary));
  head_logits({.rows = batch.labels(), .hidden = pass.hidden, .logits = logits.data()});
  return logits;
}

std::vector<float> Decoder::hidden_states(const PackedBatch& batch) {
  Pass pass{.batch = batch};
  lay_out(pass);
  forward(pass);
  return {pass.final_normed, pass.final_normed + batch.rows() * parameters_.config().dim};
}

double Decoder::forward_backward(const PackedBatch& batch, const GradientArgs& args) {
  if (batch.labels() == 0) return 0.0;
  Pass pass{.batch = batch, .args = &args};
  lay_out(pass);
  forward(pass);
  const double loss = head_forward_backward(pass);
  backward(pass);
  return loss;
}

}  // namespace collimate
