// Forward of the decoder, and the head: logits, loss and the gradient that enters the backward.
#include <algorithm>
#include <chrono>

#include "core/failure.h"
#include "core/model/decoder_pass.h"
#include "core/model/preference_loss.h"
#include "core/tree_sum.h"

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
  backend_.add_bias({.rows = pass.batch.rows(), .width = site.out, .bias = data(bias), .y = site.y});
}

void Decoder::linear_fp32(const Pass& pass, const Site& site) {
  const int64_t rows = pass.batch.rows();
  backend_.linear_forward({.rows = rows,
                           .in = site.in,
                           .out = site.out,
                           .x = site.x,
                           .x_stride = site.in,
                           .weight = data(site.parts[0].numbers.weight),
                           .y = site.y,
                           .y_stride = site.out});
  for (const Site::Part& part : site.parts) {
    if (part.numbers.lora_a < 0) continue;
    backend_.lora_forward({.rows = rows,
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
  backend_.rmsnorm_forward({.rows = pass.batch.rows(),
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
                            .x = layer.qkv,
                            .x_stride = c.qkv_dim(),
                            .raw = layer.q_norm.raw,
                            .inverse_rms = layer.q_norm.inverse_rms};
  backend_.head_norm_forward(args);
  args.heads = c.kv_heads;
  args.weight = data(numbers.k_norm);
  args.x = layer.qkv + c.q_dim();
  args.raw = layer.k_norm.raw;
  args.inverse_rms = layer.k_norm.inverse_rms;
  backend_.head_norm_forward(args);
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
  backend_.swiglu_forward(
      {.rows = pass.batch.rows(), .ffn_dim = c.ffn_dim, .gate_up = layer.gate_up, .act = layer.act});
}

void Decoder::scale_hidden(const Pass& pass) {
  if (options_.hidden_length <= 0.0f) return;
  backend_.unit_rows_forward({.rows = pass.batch.labels(),
                              .dim = parameters_.config().dim,
                              .length = options_.hidden_length,
                              .x = pass.hidden,
                              .y = pass.hidden,
                              .inverse_length = pass.inverse_length});
}

void Decoder::head_logits(const HeadRows& head) {
  const DecoderConfig& c = parameters_.config();
  if (weights_.is_bf16()) {
    backend_.bf16_linear_forward({.rows = head.rows,
                                  .weight = &weights_.matrix(parameters_.head()),
                                  .x = head.hidden,
                                  .x_stride = c.dim,
                                  .y = head.logits,
                                  .y_stride = c.vocabulary});
    return;
  }
  backend_.linear_forward({.rows = head.rows,
                           .in = c.dim,
                           .out = c.vocabulary,
                           .x = head.hidden,
                           .x_stride = c.dim,
                           .weight = table(parameters_.head()),
                           .y = head.logits,
                           .y_stride = c.vocabulary});
}

// Of the head's rows only the trained ones get a gradient.
void Decoder::head_backward(const Pass& pass, const HeadRows& head) {
  const DecoderConfig& c = parameters_.config();
  const Parameter& table_of_head = parameters_.at(parameters_.head());
  float* dweight = gradient_of(pass, parameters_.head());
  if (weights_.is_bf16()) {
    backend_.bf16_linear_backward({.rows = head.rows,
                                   .weight = &weights_.matrix(parameters_.head()),
                                   .dy = head.logits,
                                   .dy_stride = c.vocabulary,
                                   .dx = head.dhidden,
                                   .dx_stride = c.dim,
                                   .x = head.hidden,
                                   .x_stride = c.dim,
                                   .dweight = dweight,
                                   .dweight_first = table_of_head.train_first_row,
                                   .dweight_rows = table_of_head.train_rows});
    return;
  }
  backend_.linear_backward({.rows = head.rows,
                            .in = c.dim,
                            .out = c.vocabulary,
                            .weight = table(parameters_.head()),
                            .dy = head.logits,
                            .dy_stride = c.vocabulary,
                            .dx = head.dhidden,
                            .dx_stride = c.dim});
  backend_.linear_backward({.rows = head.rows,
                            .in = c.dim,
                            .out = table_of_head.train_rows,
                            .x = head.hidden,
                            .x_stride = c.dim,
                            .dy = head.logits + table_of_head.train_first_row,
                            .dy_stride = c.vocabulary,
                            .dweight = dweight});
}

// Losses of a range of labels into pass.losses, a chunk of rows at a time.
void Decoder::head_losses(const Pass& pass, const LabelRange& range) {
  const DecoderConfig& c = parameters_.config();
  const int64_t chunk_rows = logits_rows(c.vocabulary);
  for (int64_t begin = range.begin; begin < range.end; begin += chunk_rows) {
    const int64_t rows = std::min(chunk_rows, range.end - begin);
    head_logits({.rows = rows, .hidden = pass.hidden + begin * c.dim, .logits = pass.logits});
    backend_.cross_entropy({.rows = rows,
                            .vocabulary = c.vocabulary,
                            .logits = pass.logits,
                            .targets = pass.targets + begin,
                            .losses = pass.losses + begin});
  }
}

// What the gradient of each label's cross-entropy is scaled by, into pass.row_scales. The labels of groups are gone
// over twice: their scales follow from the log-probabilities of the whole group. `group_losses` [N] gets each group's
// loss at its first label.
void Decoder::make_row_scales(const Pass& pass, std::span<double> group_losses) {
  const PackedBatch& batch = pass.batch;
  for (const PreferenceGroup& group : batch.groups) {
    head_losses(pass, {.begin = group.label_bounds.front(), .end = group.label_bounds.back()});
  }
  std::vector<float> scales(static_cast<size_t>(batch.labels()), pass.args->loss_scale);
  std::vector<double> losses(scales.size());
  backend_.download(losses.data(), pass.losses, batch.labels() * kDoubleBytes);
  for (const PreferenceGroup& group : batch.groups) {
    const std::vector<int64_t>& bounds = group.label_bounds;
    std::vector<double> ratios;  // log of how much likelier an answer is than it was under the reference
    for (size_t i = 0; i + 1 < bounds.size(); ++i) {
      double log_probability = 0.0;
      for (int64_t label = bounds[i]; label < bounds[i + 1]; ++label)
        log_probability -= losses[static_cast<size_t>(label)];
      ratios.push_back(log_probability - group.reference[i]);
    }
    const PreferenceLoss preference = preference_loss(ratios, pass.args->preference_beta);
    group_losses[static_cast<size_t>(bounds.front())] = preference.loss;
    for (size_t i = 0; i + 1 < bounds.size(); ++i) {
      // Cross-entropy falls as the log-probability rises.
      const auto scale = static_cast<float>(-preference.gradient[i] * static_cast<double>(pass.args->loss_scale));
      std::fill(scales.begin() + bounds[i], scales.begin() + bounds[i + 1], scale);
    }
  }
  backend_.upload(pass.row_scales, scales.data(), batch.labels() * kFloatBytes);
}

// The hidden rows that meet the head.
void Decoder::gather_hidden(const Pass& pass) {
  backend_.gather_rows({.rows = pass.batch.labels(),
                        .dim = parameters_.config().dim,
                        .index = pass.label_rows,
                        .from = pass.final_normed,
                        .to = pass.hidden});
  scale_hidden(pass);
}

// Loss over the labelled rows; leaves the gradient of the final norm's output in dnormed and adds the head's.
double Decoder::head_forward_backward(Pass& pass) {
  const DecoderConfig& c = parameters_.config();
  const int64_t labels = pass.batch.labels(), dim = c.dim, vocabulary = c.vocabulary;
  const int64_t chunk_rows = logits_rows(vocabulary);
  float *hidden = pass.hidden, *dhidden = pass.dhidden, *logits = pass.logits;
  gather_hidden(pass);
  const bool scaled_by_row = !pass.batch.groups.empty();
  std::vector<double> group_losses(scaled_by_row ? static_cast<size_t>(labels) : 0);
  if (scaled_by_row) make_row_scales(pass, group_losses);
  for (int64_t begin = 0; begin < labels; begin += chunk_rows) {
    const int64_t rows = std::min(chunk_rows, labels - begin);
    const HeadRows chunk{rows, hidden + begin * dim, logits, dhidden + begin * dim};
    head_logits(chunk);
    backend_.cross_entropy({.rows = rows,
                            .vocabulary = vocabulary,
                            .logits = logits,
                            .targets = pass.targets + begin,
                            .scale = pass.args->loss_scale,
                            .row_scales = scaled_by_row ? pass.row_scales + begin : nullptr,
                            .losses = pass.losses + begin});
    head_backward(pass, chunk);
  }
  if (options_.hidden_length > 0.0f) {
    backend_.unit_rows_backward({.rows = labels,
                                 .dim = dim,
                                 .length = options_.hidden_length,
                                 .y = hidden,
                                 .inverse_length = pass.inverse_length,
                                 .dy = dhidden,
                                 .dx = dhidden});
  }
  backend_.zero(pass.dnormed, pass.batch.rows() * dim * kFloatBytes);
  backend_.scatter_rows({.rows = labels, .dim = dim, .index = pass.label_rows, .from = dhidden, .to = pass.dnormed});
  std::vector<double> losses(static_cast<size_t>(labels));
  backend_.download(losses.data(), pass.losses, labels * kDoubleBytes);
  for (const PreferenceGroup& group : pass.batch.groups) {
    const int64_t first = group.label_bounds.front();
    std::copy(group_losses.begin() + first, group_losses.begin() + group.label_bounds.back(), losses.begin() + first);
  }
  if (!pass.args->label_losses.empty()) std::copy(losses.begin(), losses.end(), pass.args->label_losses.begin());
  return tree_sum(losses);
}

std::vector<double> Decoder::losses(const PackedBatch& batch) {
  Pass pass{.batch = batch};
  lay_out(pass, {.logits = logits_rows(parameters_.config().vocabulary)});
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

// On the host the caller's gradient is added to in place; a device makes one of its own, which is then added
// or, where nothing is there yet, copied.
void Decoder::begin_gradient(Pass& pass) {
  if (backend_.is_host()) {
    pass.gradient = pass.args->gradient.data();
    return;
  }
  const auto elements = static_cast<int64_t>(pass.args->gradient.size());
  if (gradient_.size() < elements) {
    gradient_ = {};
    gradient_ = BackendArray<float>(backend_, elements);
  }
  pass.gradient = gradient_.data();
  backend_.zero(pass.gradient, elements * kFloatBytes);
}

void Decoder::collect_gradient(const Pass& pass) {
  if (backend_.is_host()) return;
  const std::span<float> to = pass.args->gradient;
  if (pass.args->gradient_is_zero) {
    gradient_.download(to);
    return;
  }
  collected_.resize(to.size());
  gradient_.download(collected_);
  for (size_t i = 0; i < to.size(); ++i) to[i] += collected_[i];
}

double Decoder::forward_backward(const PackedBatch& batch, const GradientArgs& args) {
  if (batch.labels() == 0) return 0.0;
  Pass pass{.batch = batch, .args = &args};
  using Clock = std::chrono::steady_clock;
  const Clock::time_point started = Clock::now();
  lay_out(pass, {.logits = logits_rows(parameters_.config().vocabulary)});
  begin_gradient(pass);
  forward(pass);
  if (args.seconds != nullptr) backend_.synchronize();
  const Clock::time_point turned = Clock::now();
  const double loss = head_forward_backward(pass);
  backward(pass);
  collect_gradient(pass);
  if (args.seconds != nullptr) {
    args.seconds->forward += std::chrono::duration<double>(turned - started).count();
    args.seconds->backward += std::chrono::duration<double>(Clock::now() - turned).count();
  }
  return loss;
}

}  // namespace collimate
