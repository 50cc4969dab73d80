// The layers of a Llama-like decoder, once over a prompt and once over the new rows of a step.
#include "core/rank/group_decoder.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "core/failure.h"
#include "core/rank/decode_ops.h"

namespace collimate {

GroupDecoder::GroupDecoder(const Options& options)
    : options_(options),
      config_(options.parameters->config()),
      scale_(1.0f / std::sqrt(static_cast<float>(config_.head_dim))),
      prompt_lengths_(static_cast<size_t>(options.users)) {
  const auto floats = [](auto& buffer, int64_t rows, int64_t width) {
    buffer.resize(static_cast<size_t>(rows * width));
  };
  const int64_t users = options.users;
  const int64_t rows = std::max(options.prompt_max, users * std::max<int64_t>(options.rows_max, 1));
  floats(prompt_kv_, config_.layers * users * 2 * options.prompt_max, config_.kv_dim());
  floats(step_kv_, config_.layers * options.steps_max * 2 * users * options.rows_max, config_.kv_dim());
  ancestors_.resize(static_cast<size_t>(users * options.rows_max * options.steps_max));
  ancestors_before_.resize(ancestors_.size());
  floats(last_x_, users, config_.dim);
  floats(last_h_, users, config_.dim);
  tokens_.resize(static_cast<size_t>(rows));
  positions_.resize(static_cast<size_t>(rows));
  floats(x_, rows, config_.dim);
  floats(delta_, rows, config_.dim);
  floats(h_, rows, config_.dim);
  floats(qkv_, rows, config_.qkv_dim());
  floats(attention_, rows, config_.q_dim());
  floats(gate_up_, rows, 2 * config_.ffn_dim);
  floats(act_, rows, config_.ffn_dim);
  floats(scores_, std::max<int64_t>(options.rows_max, 1), options.prompt_max + options.steps_max);
}

void GroupDecoder::reset() {
  steps_ = 0;
  step_rows_.clear();
  std::ranges::fill(prompt_lengths_, 0);
  std::ranges::fill(last_x_, 0.0f);
  std::ranges::fill(last_h_, 0.0f);
}

// ---- prompts -----------------------------------------------------------------------------------------------------

void GroupDecoder::prefill(int64_t slot, std::span<const int32_t> prompt) {
  const auto rows = static_cast<int64_t>(prompt.size());
  const int64_t last = config_.layers - 1;
  prompt_lengths_[static_cast<size_t>(slot)] = rows;
  std::iota(positions_.begin(), positions_.begin() + rows, 0);
  embed(prompt);
  const std::vector<int64_t> offsets = {0, rows};
  for (int64_t layer = 0; layer < last; ++layer) {
    norm(rows, numbers(layer).attention_norm, layer > 0);
    project_qkv({layer, rows});
    const float* k = qkv_.data() + config_.q_dim();
    const float* v = k + config_.kv_dim();
    keep_prompt_kv(layer, slot, k, v, config_.qkv_dim());
    ops::attention_forward(*options_.pool, {.heads = config_.heads,
                                            .kv_heads = config_.kv_heads,
                                            .head_dim = config_.head_dim,
                                            .offsets = offsets,
                                            .scale = scale_,
                                            .window = config_.sliding_window,
                                            .q = qkv_.data(),
                                            .k = k,
                                            .v = v,
                                            .q_stride = config_.qkv_dim(),
                                            .k_stride = config_.qkv_dim(),
                                            .v_stride = config_.qkv_dim(),
                                            .out = attention_.data()});
    finish_layer({layer, rows});
  }
  // The last layer's output is needed at the last position only: keys and values now, the rest for all users at once.
  norm(rows, numbers(last).attention_norm, last > 0);
  project(rows, numbers(last).k, 2 * config_.kv_dim(), qkv_.data());
  norm_heads(rows, numbers(last).k_norm, {qkv_.data(), config_.kv_heads, 2 * config_.kv_dim()});
  rotate(qkv_.data(), rows, config_.kv_heads, 2 * config_.kv_dim());
  keep_prompt_kv(last, slot, qkv_.data(), qkv_.data() + config_.kv_dim(), 2 * config_.kv_dim());
  std::copy_n(x_.data() + (rows - 1) * config_.dim, config_.dim, last_x_.data() + slot * config_.dim);
  std::copy_n(h_.data() + (rows - 1) * config_.dim, config_.dim, last_h_.data() + slot * config_.dim);
}

std::span<const float> GroupDecoder::finish_prompts() {
  const int64_t last = config_.layers - 1;
  for (int64_t slot = 0; slot < options_.users; ++slot) {
    positions_[static_cast<size_t>(slot)] =
        static_cast<int32_t>(std::max<int64_t>(prompt_lengths_[static_cast<size_t>(slot)] - 1, 0));
  }
  std::ranges::copy(last_x_, x_.begin());
  std::ranges::copy(last_h_, h_.begin());
  project(options_.users, numbers(last).q, config_.q_dim(), qkv_.data());
  norm_heads(options_.users, numbers(last).q_norm, {qkv_.data(), config_.heads, config_.q_dim()});
  rotate(qkv_.data(), options_.users, config_.heads, config_.q_dim());
  for (int64_t slot = 0; slot < options_.users; ++slot) attend(last, slot, 1, 1, qkv_.data(), config_.q_dim());
  finish_layer({last, options_.users});
  return final_hidden(options_.users);
}

void GroupDecoder::keep_prompt_kv(int64_t layer, int64_t slot, const float* k, const float* v, int64_t stride) {
  float* to_k = prompt_kv(layer, slot, false);
  float* to_v = prompt_kv(layer, slot, true);
  for (int64_t row = 0; row < prompt_lengths_[static_cast<size_t>(slot)]; ++row) {
    std::copy_n(k + row * stride, config_.kv_dim(), to_k + row * config_.kv_dim());
    std::copy_n(v + row * stride, config_.kv_dim(), to_v + row * config_.kv_dim());
  }
}

// ---- steps -------------------------------------------------------------------------------------------------------

std::span<const float> GroupDecoder::step(int64_t rows, std::span<const std::span<const Hypothesis>> live) {
  const int64_t all = options_.users * rows;
  if (steps_ == options_.steps_max || rows > options_.rows_max || static_cast<int64_t>(live.size()) != options_.users) {
    throw JobFailure(FailureCause::internal, "a decoding step beyond the decoder's " +
                                                 std::to_string(options_.steps_max) + " steps of " +
                                                 std::to_string(options_.rows_max) + " rows");
  }
  trace_ancestors(rows, live);
  for (int64_t slot = 0; slot < options_.users; ++slot) {
    const auto hypotheses = live[static_cast<size_t>(slot)];
    for (int64_t i = 0; i < rows; ++i) {
      const auto row = static_cast<size_t>(slot * rows + i), at = static_cast<size_t>(i);
      tokens_[row] = at < hypotheses.size() ? hypotheses[at].token : 0;
      positions_[row] = static_cast<int32_t>(prompt_lengths_[static_cast<size_t>(slot)] + steps_);
    }
  }
  ++steps_;
  step_rows_.push_back(rows);
  embed({tokens_.data(), static_cast<size_t>(all)});
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    norm(all, numbers(layer).attention_norm, layer > 0);
    project_qkv({layer, all});
    keep_step_kv({layer, all});
    for (int64_t slot = 0; slot < options_.users; ++slot) {
      const auto rows_live = static_cast<int64_t>(live[static_cast<size_t>(slot)].size());
      attend(layer, slot, rows, rows_live, qkv_.data(), config_.qkv_dim());
    }
    finish_layer({layer, all});
  }
  return final_hidden(all);
}

// Row i of this step sees what its parent saw, and itself.
void GroupDecoder::trace_ancestors(int64_t rows, std::span<const std::span<const Hypothesis>> live) {
  std::swap(ancestors_, ancestors_before_);
  for (int64_t slot = 0; slot < options_.users; ++slot) {
    const int64_t base = slot * options_.rows_max * options_.steps_max;
    const auto hypotheses = live[static_cast<size_t>(slot)];
    for (int64_t i = 0; i < std::min(rows, static_cast<int64_t>(hypotheses.size())); ++i) {
      int32_t* to = ancestors_.data() + base + i * (steps_ + 1);
      if (steps_ > 0) {
        const int64_t parent = hypotheses[static_cast<size_t>(i)].parent;
        std::copy_n(ancestors_before_.data() + base + parent * steps_, steps_, to);
      }
      to[steps_] = static_cast<int32_t>(i);
    }
  }
}

void GroupDecoder::keep_step_kv(const LayerRows& at) {
  float* to_k = step_kv(at.layer, steps_ - 1, false);
  float* to_v = step_kv(at.layer, steps_ - 1, true);
  for (int64_t row = 0; row < at.rows; ++row) {
    const float* k = qkv_.data() + row * config_.qkv_dim() + config_.q_dim();
    std::copy_n(k, config_.kv_dim(), to_k + row * config_.kv_dim());
    std::copy_n(k + config_.kv_dim(), config_.kv_dim(), to_v + row * config_.kv_dim());
  }
}

// ---- parts of a layer ----------------------------------------------------------------------------------------------

void GroupDecoder::embed(std::span<const int32_t> tokens) {
  ops::embedding_forward(*options_.pool, {.rows = static_cast<int64_t>(tokens.size()),
                                          .dim = config_.dim,
                                          .vocabulary = config_.vocabulary,
                                          .table = weight(options_.parameters->embedding()),
                                          .tokens = tokens.data(),
                                          .y = x_.data()});
}

// h = norm(x), after x += delta when asked.
void GroupDecoder::norm(int64_t rows, int weight_number, bool add_delta) {
  ops::rmsnorm_forward(*options_.pool, {.rows = rows,
                                        .dim = config_.dim,
                                        .eps = config_.norm_eps,
                                        .x = x_.data(),
                                        .delta = add_delta ? delta_.data() : nullptr,
                                        .sum = add_delta ? x_.data() : nullptr,
                                        .weight = weight(weight_number),
                                        .y = h_.data()});
}

// y = h Wᵀ + bias
void GroupDecoder::project(int64_t rows, const LinearNumbers& linear, int64_t out_dim, float* y) {
  ops::linear_forward(*options_.pool, {.rows = rows,
                                       .in = config_.dim,
                                       .out = out_dim,
                                       .x = h_.data(),
                                       .x_stride = config_.dim,
                                       .weight = weight(linear.weight),
                                       .y = y,
                                       .y_stride = out_dim});
  if (linear.bias < 0) return;
  ops::add_bias(*options_.pool, {.rows = rows, .width = out_dim, .bias = weight(linear.bias), .y = y});
}

// Queries, keys and values of a layer, ready for the attention.
void GroupDecoder::project_qkv(const LayerRows& at) {
  const LayerNumbers& layer = numbers(at.layer);
  project(at.rows, layer.q, config_.qkv_dim(), qkv_.data());
  norm_heads(at.rows, layer.q_norm, {qkv_.data(), config_.heads, config_.qkv_dim()});
  norm_heads(at.rows, layer.k_norm, {qkv_.data() + config_.q_dim(), config_.kv_heads, config_.qkv_dim()});
  rotate(qkv_.data(), at.rows, config_.heads + config_.kv_heads, config_.qkv_dim());
}

void GroupDecoder::norm_heads(int64_t rows, int weight_number, const Heads& heads) {
  if (weight_number < 0) return;
  ops::head_norm_forward(*options_.pool, {.rows = rows,
                                          .heads = heads.count,
                                          .head_dim = config_.head_dim,
                                          .eps = config_.norm_eps,
                                          .weight = weight(weight_number),
                                          .x = heads.x,
                                          .x_stride = heads.stride});
}

void GroupDecoder::rotate(float* x, int64_t rows, int64_t heads, int64_t stride) {
  ops::rope(*options_.pool, {.rows = rows,
                             .heads = heads,
                             .head_dim = config_.head_dim,
                             .positions = positions_.data(),
                             .table = options_.rope,
                             .x = x,
                             .x_stride = stride});
}

void GroupDecoder::attend(int64_t layer, int64_t slot, int64_t rows, int64_t rows_live, const float* q,
                          int64_t q_stride) {
  const int64_t first = slot * rows;
  float* out = attention_.data() + first * config_.q_dim();
  const int64_t prompt_rows = prompt_lengths_[static_cast<size_t>(slot)];
  if (prompt_rows == 0) rows_live = 0;
  std::fill_n(out + rows_live * config_.q_dim(), (rows - rows_live) * config_.q_dim(), 0.0f);
  if (rows_live == 0) return;
  // All rows stand at the last position; with a window they see no key before `first_seen`.
  const int64_t first_seen =
      config_.sliding_window > 0 ? std::max<int64_t>(0, prompt_rows + steps_ - config_.sliding_window) : 0;
  const int64_t first_row_seen = std::min(first_seen, prompt_rows), first_step = first_seen - first_row_seen;
  std::vector<const float*> step_k, step_v;
  for (int64_t s = first_step; s < steps_; ++s) {
    const int64_t first_row = slot * step_rows_[static_cast<size_t>(s)];
    step_k.push_back(step_kv(layer, s, false) + first_row * config_.kv_dim());
    step_v.push_back(step_kv(layer, s, true) + first_row * config_.kv_dim());
  }
  ops::decode_attention({.rows = rows_live,
                         .heads = config_.heads,
                         .kv_heads = config_.kv_heads,
                         .head_dim = config_.head_dim,
                         .scale = scale_,
                         .q = q + first * q_stride,
                         .q_stride = q_stride,
                         .prompt_rows = prompt_rows - first_row_seen,
                         .prompt_k = prompt_kv(layer, slot, false) + first_row_seen * config_.kv_dim(),
                         .prompt_v = prompt_kv(layer, slot, true) + first_row_seen * config_.kv_dim(),
                         .steps = steps_ - first_step,
                         .step_k = step_k.data(),
                         .step_v = step_v.data(),
                         .ancestors = ancestors_.data() + slot * options_.rows_max * options_.steps_max + first_step,
                         .ancestors_stride = steps_,
                         .scratch = scores_.data(),
                         .out = out});
}

// From the attention's output to the residual branch of the MLP, which stays in delta until the next norm.
void GroupDecoder::finish_layer(const LayerRows& at) {
  const LayerNumbers& layer = numbers(at.layer);
  ops::linear_forward(*options_.pool, {.rows = at.rows,
                                       .in = config_.q_dim(),
                                       .out = config_.dim,
                                       .x = attention_.data(),
                                       .x_stride = config_.q_dim(),
                                       .weight = weight(layer.o.weight),
                                       .y = delta_.data(),
                                       .y_stride = config_.dim});
  if (layer.o.bias >= 0) {
    ops::add_bias(*options_.pool,
                  {.rows = at.rows, .width = config_.dim, .bias = weight(layer.o.bias), .y = delta_.data()});
  }
  norm(at.rows, layer.mlp_norm, true);
  project(at.rows, layer.gate, 2 * config_.ffn_dim, gate_up_.data());
  ops::swiglu_forward(*options_.pool,
                      {.rows = at.rows, .ffn_dim = config_.ffn_dim, .gate_up = gate_up_.data(), .act = act_.data()});
  ops::linear_forward(*options_.pool, {.rows = at.rows,
                                       .in = config_.ffn_dim,
                                       .out = config_.dim,
                                       .x = act_.data(),
                                       .x_stride = config_.ffn_dim,
                                       .weight = weight(layer.down.weight),
                                       .y = delta_.data(),
                                       .y_stride = config_.dim});
}

std::span<const float> GroupDecoder::final_hidden(int64_t rows) {
  norm(rows, options_.parameters->final_norm(), true);
  return {h_.data(), static_cast<size_t>(rows * config_.dim)};
}

float* GroupDecoder::prompt_kv(int64_t layer, int64_t slot, bool value) {
  const int64_t block = (layer * options_.users + slot) * 2 + (value ? 1 : 0);
  return prompt_kv_.data() + block * options_.prompt_max * config_.kv_dim();
}

float* GroupDecoder::step_kv(int64_t layer, int64_t step, bool value) {
  const int64_t block = (layer * options_.steps_max + step) * 2 + (value ? 1 : 0);
  return step_kv_.data() + block * options_.users * options_.rows_max * config_.kv_dim();
}

}  // namespace collimate
