// The layers of a Llama-like decoder, once over prompts and once over the new rows of a step.
#include "core/rank/group_decoder.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "core/failure.h"
#include "core/sequence_bounds.h"

namespace collimate {
namespace {

constexpr int64_t kFloatBytes = sizeof(float);

int64_t aligned(int64_t rows) { return (rows + kPromptAlignment - 1) / kPromptAlignment * kPromptAlignment; }

}  // namespace

void GroupDecoder::Indices::bind(OpsBackend& backend, int64_t most) {
  backend_ = &backend;
  host.reserve(static_cast<size_t>(most));
  if (!backend.is_host()) there_ = BackendArray<int32_t>(backend, most);
}

const int32_t* GroupDecoder::Indices::place() {
  if (!backend_->is_host()) there_.upload(host);
  return placed();
}

GroupDecoder::ActivationArray::ActivationArray(const DecoderWeights& weights, int64_t rows, int64_t width) {
  if (!weights.reads_bf16_rows()) {
    fp32_ = BackendArray<float>(weights.backend(), rows * width);
    return;
  }
  stride_ = ops::row_with_room(width, 0);  // adapters are merged
  bf16_ = BackendArray<uint16_t>(weights.backend(), rows * stride_);
}

GroupDecoder::GroupDecoder(const Options& options)
    : options_(options),
      weights_(*options.weights),
      parameters_(weights_.parameters()),
      config_(parameters_.config()),
      backend_(weights_.backend()),
      scale_(1.0f / std::sqrt(static_cast<float>(config_.head_dim))),
      prompt_lengths_(static_cast<size_t>(options.users)) {
  const auto floats = [&](int64_t rows, int64_t width) { return BackendArray<float>(backend_, rows * width); };
  const int64_t users = options.users, beams = std::max<int64_t>(options.rows_max, 1);
  const int64_t rows = std::max(options.prefill_rows, users * beams);
  prompt_kv_ = floats(config_.layers * users * 2 * options.prompt_max, config_.kv_dim());
  step_kv_ = floats(config_.layers * options.steps_max * 2 * users * options.rows_max, config_.kv_dim());
  last_x_ = floats(users, config_.dim);
  for (Indices* indices : {&tokens_, &positions_, &first_row_, &end_row_, &kept_at_}) indices->bind(backend_, rows);
  for (Indices* indices : {&live_, &prompt_rows_}) indices->bind(backend_, users);
  step_rows_.bind(backend_, std::max<int64_t>(options.steps_max, 1));
  ancestors_.bind(backend_, std::max<int64_t>(users * options.rows_max * options.steps_max, 1));
  ancestors_.host.resize(static_cast<size_t>(users * options.rows_max * options.steps_max));
  ancestors_before_.resize(ancestors_.host.size());
  x_ = floats(rows, config_.dim);
  delta_ = floats(rows, config_.dim);
  h_ = {weights_, rows, config_.dim};
  final_ = floats(users * beams, config_.dim);
  qkv_ = floats(rows, config_.qkv_dim());
  attention_ = floats(users * beams, config_.q_dim());
  prompt_attention_ = {weights_, options.prefill_rows, config_.q_dim()};
  gate_up_ = {weights_, rows, 2 * config_.ffn_dim};
  act_ = {weights_, rows, config_.ffn_dim};
  if (backend_.is_host()) scores_ = floats(beams, options.prompt_max + options.steps_max);
}

void GroupDecoder::reset() {
  steps_ = 0;
  step_rows_.host.clear();
  std::ranges::fill(prompt_lengths_, 0);
  backend_.zero(last_x_.data(), last_x_.size() * kFloatBytes);
}

// ---- prompts -----------------------------------------------------------------------------------------------------

// Tokens, positions and bounds of prompts one behind the other, gaps as sequences of their own that are kept nowhere.
// Returns the rows.
int64_t GroupDecoder::lay_out_prompts(std::span<const Prompt> prompts) {
  for (Indices* indices : {&tokens_, &positions_, &kept_at_}) indices->host.clear();
  offsets_.assign(1, 0);
  const auto add = [&](int32_t token, int64_t position, int64_t kept_at) {
    tokens_.host.push_back(token);
    positions_.host.push_back(static_cast<int32_t>(position));
    kept_at_.host.push_back(static_cast<int32_t>(kept_at));
  };
  for (const Prompt& prompt : prompts) {
    const auto length = static_cast<int64_t>(prompt.tokens.size());
    const int64_t gap = aligned(offsets_.back()) - offsets_.back();
    for (int64_t i = 0; i < gap; ++i) add(0, i, -1);
    if (gap > 0) offsets_.push_back(offsets_.back() + gap);
    // In units of a row: a user's keys and values are 2 * prompt_max rows.
    const int64_t first_kept = prompt.slot * 2 * options_.prompt_max;
    for (int64_t i = 0; i < length; ++i) add(prompt.tokens[static_cast<size_t>(i)], i, first_kept + i);
    offsets_.push_back(offsets_.back() + length);
    prompt_lengths_[static_cast<size_t>(prompt.slot)] = length;
  }
  if (!backend_.is_host()) {
    SequenceBounds bounds(offsets_);
    first_row_.host = std::move(bounds.first_row);
    end_row_.host = std::move(bounds.end_row);
  }
  return offsets_.back();
}

void GroupDecoder::prefill(std::span<const Prompt> prompts) {
  const int64_t rows = lay_out_prompts(prompts), last = config_.layers - 1;
  positions_there_ = positions_.place();
  const int32_t *first_row = nullptr, *end_row = nullptr;
  if (!backend_.is_host()) {
    first_row = first_row_.place();
    end_row = end_row_.place();
  }
  kept_at_.place();
  embed(rows, tokens_.place());
  const float* k = qkv_.data() + config_.q_dim();
  const KeysAndValues kv{k, k + config_.kv_dim(), config_.qkv_dim()};
  const Activations prompt_attention = prompt_attention_;
  for (int64_t layer = 0; layer < last; ++layer) {
    norm(rows, numbers(layer).attention_norm, layer > 0, h_);
    project_qkv({layer, rows});
    keep_prompt_kv(layer, rows, kv);
    backend_.attention_forward({.heads = config_.heads,
                                .kv_heads = config_.kv_heads,
                                .head_dim = config_.head_dim,
                                .offsets = offsets_,
                                .first_row = first_row,
                                .end_row = end_row,
                                .scale = scale_,
                                .window = config_.sliding_window,
                                .q = qkv_.data(),
                                .k = kv.k,
                                .v = kv.v,
                                .q_stride = config_.qkv_dim(),
                                .k_stride = config_.qkv_dim(),
                                .v_stride = config_.qkv_dim(),
                                .out = prompt_attention.fp32,
                                .out_bf16 = prompt_attention.bf16,
                                .bf16_products = weights_.is_bf16()});
    finish_layer({layer, rows}, prompt_attention);
  }
  // The last layer's output is needed at the last position only: keys and values now, the rest for all users at once.
  norm(rows, numbers(last).attention_norm, last > 0, h_);
  if (weights_.is_bf16()) {
    project_qkv({last, rows});  // a packed matrix is used whole
    keep_prompt_kv(last, rows, kv);
  } else {
    const int64_t width = 2 * config_.kv_dim();
    project(rows, {numbers(last).k, config_.dim, width, h_, {.fp32 = qkv_.data()}});
    norm_heads(rows, numbers(last).k_norm, {qkv_.data(), config_.kv_heads, width});
    rotate(qkv_.data(), rows, config_.kv_heads, width);
    keep_prompt_kv(last, rows, {qkv_.data(), qkv_.data() + config_.kv_dim(), width});
  }
  int64_t end = 0;
  for (const Prompt& prompt : prompts) {
    end = (end == 0 ? 0 : aligned(end)) + static_cast<int64_t>(prompt.tokens.size());
    backend_.copy(last_x_.data() + prompt.slot * config_.dim, x_.data() + (end - 1) * config_.dim,
                  config_.dim * kFloatBytes);
  }
}

const float* GroupDecoder::finish_prompts() {
  const int64_t last = config_.layers - 1, users = options_.users;
  positions_.host.clear();
  prompt_rows_.host.clear();
  for (const int64_t length : prompt_lengths_) {
    positions_.host.push_back(static_cast<int32_t>(std::max<int64_t>(length - 1, 0)));
    prompt_rows_.host.push_back(static_cast<int32_t>(length));
  }
  live_.host.assign(static_cast<size_t>(users), 1);
  positions_there_ = positions_.place();
  prompt_rows_there_ = prompt_rows_.place();
  live_there_ = live_.place();
  backend_.copy(x_.data(), last_x_.data(), last_x_.size() * kFloatBytes);
  norm(users, numbers(last).attention_norm, /*add_delta=*/false, h_);
  int64_t stride = config_.q_dim();
  if (weights_.is_bf16()) {
    stride = config_.qkv_dim();
    project_qkv({last, users});
  } else {
    project(users, {numbers(last).q, config_.dim, config_.q_dim(), h_, {.fp32 = qkv_.data()}});
    norm_heads(users, numbers(last).q_norm, {qkv_.data(), config_.heads, stride});
    rotate(qkv_.data(), users, config_.heads, stride);
  }
  attend(last, 1, qkv_.data(), stride);
  finish_layer({last, users}, {.fp32 = attention_.data()});
  return final_hidden(users);
}

void GroupDecoder::keep_prompt_kv(int64_t layer, int64_t rows, const KeysAndValues& from) {
  ops::RowCopy copy{.rows = rows,
                    .dim = config_.kv_dim(),
                    .from = from.k,
                    .from_stride = from.stride,
                    .to_row = kept_at_.placed(),
                    .to = prompt_kv(layer, false),
                    .to_stride = config_.kv_dim()};
  backend_.copy_rows(copy);
  copy.from = from.v;
  copy.to = prompt_kv(layer, true);
  backend_.copy_rows(copy);
}

// ---- steps -------------------------------------------------------------------------------------------------------

const float* GroupDecoder::step(int64_t rows, std::span<const std::span<const Hypothesis>> live) {
  const int64_t all = options_.users * rows;
  if (steps_ == options_.steps_max || rows > options_.rows_max || static_cast<int64_t>(live.size()) != options_.users) {
    throw JobFailure(FailureCause::internal, "a decoding step beyond the decoder's " +
                                                 std::to_string(options_.steps_max) + " steps of " +
                                                 std::to_string(options_.rows_max) + " rows");
  }
  trace_ancestors(rows, live);
  for (Indices* indices : {&tokens_, &positions_, &live_}) indices->host.clear();
  for (int64_t slot = 0; slot < options_.users; ++slot) {
    const auto hypotheses = live[static_cast<size_t>(slot)];
    live_.host.push_back(static_cast<int32_t>(hypotheses.size()));
    for (int64_t i = 0; i < rows; ++i) {
      const auto at = static_cast<size_t>(i);
      tokens_.host.push_back(at < hypotheses.size() ? hypotheses[at].token : 0);
      positions_.host.push_back(static_cast<int32_t>(prompt_lengths_[static_cast<size_t>(slot)] + steps_));
    }
  }
  ++steps_;
  step_rows_.host.push_back(static_cast<int32_t>(rows));
  positions_there_ = positions_.place();
  live_there_ = live_.place();
  step_rows_there_ = step_rows_.place();
  ancestors_there_ = ancestors_.place();
  tokens_.place();
  // The same for every group.
  backend_.run_recorded(step_recordings_[{steps_, rows}], [&] {
    embed(all, tokens_.placed());
    for (int64_t layer = 0; layer < config_.layers; ++layer) {
      norm(all, numbers(layer).attention_norm, layer > 0, h_);
      project_qkv({layer, all});
      keep_step_kv({layer, all});
      attend(layer, rows, qkv_.data(), config_.qkv_dim());
      finish_layer({layer, all}, {.fp32 = attention_.data()});
    }
    final_hidden(all);
  });
  return final_.data();
}

// Row i of this step sees what its parent saw, and itself.
void GroupDecoder::trace_ancestors(int64_t rows, std::span<const std::span<const Hypothesis>> live) {
  std::swap(ancestors_.host, ancestors_before_);
  for (int64_t slot = 0; slot < options_.users; ++slot) {
    const int64_t base = slot * options_.rows_max * options_.steps_max;
    const auto hypotheses = live[static_cast<size_t>(slot)];
    for (int64_t i = 0; i < std::min(rows, static_cast<int64_t>(hypotheses.size())); ++i) {
      int32_t* to = ancestors_.host.data() + base + i * (steps_ + 1);
      if (steps_ > 0) {
        const int64_t parent = hypotheses[static_cast<size_t>(i)].parent;
        std::copy_n(ancestors_before_.data() + base + parent * steps_, steps_, to);
      }
      to[steps_] = static_cast<int32_t>(i);
    }
  }
}

void GroupDecoder::keep_step_kv(const LayerRows& at) {
  ops::RowCopy copy{.rows = at.rows,
                    .dim = config_.kv_dim(),
                    .from = qkv_.data() + config_.q_dim(),
                    .from_stride = config_.qkv_dim(),
                    .to = step_kv(at.layer, steps_ - 1, false),
                    .to_stride = config_.kv_dim()};
  backend_.copy_rows(copy);
  copy.from += config_.kv_dim();
  copy.to = step_kv(at.layer, steps_ - 1, true);
  backend_.copy_rows(copy);
}

// ---- parts of a layer ----------------------------------------------------------------------------------------------

void GroupDecoder::embed(int64_t rows, const int32_t* tokens) {
  backend_.embedding_forward({.rows = rows,
                              .dim = config_.dim,
                              .vocabulary = config_.vocabulary,
                              .table = weight(parameters_.embedding()),
                              .tokens = tokens,
                              .y = x_.data()});
}

// to = norm(x), after x += delta when asked.
void GroupDecoder::norm(int64_t rows, int weight_number, bool add_delta, const Activations& to) {
  backend_.rmsnorm_forward({.rows = rows,
                            .dim = config_.dim,
                            .eps = config_.norm_eps,
                            .x = x_.data(),
                            .delta = add_delta ? delta_.data() : nullptr,
                            .sum = add_delta ? x_.data() : nullptr,
                            .weight = weight(weight_number),
                            .y = to.fp32,
                            .y_bf16 = to.bf16});
}

// y = x Wᵀ + bias
void GroupDecoder::project(int64_t rows, const Projection& p) {
  if (weights_.is_bf16()) {
    backend_.bf16_linear_forward({.rows = rows,
                                  .weight = &weights_.matrix(p.linear.weight),
                                  .x = p.x.fp32,
                                  .x_stride = p.in,
                                  .x_bf16 = p.x.bf16,
                                  .y = p.y.fp32,
                                  .y_stride = p.out,
                                  .y_bf16 = p.y.bf16});
  } else {
    backend_.linear_forward({.rows = rows,
                             .in = p.in,
                             .out = p.out,
                             .x = p.x.fp32,
                             .x_stride = p.in,
                             .weight = weight(p.linear.weight),
                             .y = p.y.fp32,
                             .y_stride = p.out});
  }
  if (p.linear.bias < 0) return;
  backend_.add_bias({.rows = rows, .width = p.out, .bias = weight(p.linear.bias), .y = p.y.fp32});
}

// Queries, keys and values of a layer, ready for the attention.
void GroupDecoder::project_qkv(const LayerRows& at) {
  const LayerNumbers& layer = numbers(at.layer);
  const int64_t width = config_.qkv_dim();
  project(at.rows, {layer.q, config_.dim, width, h_, {.fp32 = qkv_.data()}});
  norm_heads(at.rows, layer.q_norm, {qkv_.data(), config_.heads, width});
  norm_heads(at.rows, layer.k_norm, {qkv_.data() + config_.q_dim(), config_.kv_heads, width});
  rotate(qkv_.data(), at.rows, config_.heads + config_.kv_heads, width);
}

void GroupDecoder::norm_heads(int64_t rows, int weight_number, const Heads& heads) {
  if (weight_number < 0) return;
  backend_.head_norm_forward({.rows = rows,
                              .heads = heads.count,
                              .head_dim = config_.head_dim,
                              .eps = config_.norm_eps,
                              .weight = weight(weight_number),
                              .x = heads.x,
                              .x_stride = heads.stride});
}

void GroupDecoder::rotate(float* x, int64_t rows, int64_t heads, int64_t stride) {
  backend_.rope({.rows = rows,
                 .heads = heads,
                 .head_dim = config_.head_dim,
                 .positions = positions_there_,
                 .cos = options_.rope_cos,
                 .sin = options_.rope_sin,
                 .x = x,
                 .x_stride = stride});
}

// Every user's rows over its prompt and its steps.
void GroupDecoder::attend(int64_t layer, int64_t rows, const float* q, int64_t q_stride) {
  const int64_t kv_dim = config_.kv_dim();
  backend_.decode_attention({.users = options_.users,
                             .rows = rows,
                             .heads = config_.heads,
                             .kv_heads = config_.kv_heads,
                             .head_dim = config_.head_dim,
                             .scale = scale_,
                             .window = config_.sliding_window,
                             .q = q,
                             .q_stride = q_stride,
                             .live = live_there_,
                             .prompt_rows = prompt_rows_there_,
                             .prompt_k = prompt_kv(layer, false),
                             .prompt_v = prompt_kv(layer, true),
                             .prompt_stride = 2 * options_.prompt_max * kv_dim,
                             .prompt_max = options_.prompt_max,
                             .steps = steps_,
                             .step_k = steps_ > 0 ? step_kv(layer, 0, false) : nullptr,
                             .step_v = steps_ > 0 ? step_kv(layer, 0, true) : nullptr,
                             .step_stride = 2 * options_.users * options_.rows_max * kv_dim,
                             .step_rows = step_rows_there_,
                             .ancestors = ancestors_there_,
                             .ancestors_user_stride = options_.rows_max * options_.steps_max,
                             .scratch = scores_.data(),
                             .out = attention_.data()});
}

// From the attention's output to the residual branch of the MLP, which stays in delta until the next norm.
void GroupDecoder::finish_layer(const LayerRows& at, const Activations& attention) {
  const LayerNumbers& layer = numbers(at.layer);
  const Activations gate_up = gate_up_, act = act_;
  project(at.rows, {layer.o, config_.q_dim(), config_.dim, attention, {.fp32 = delta_.data()}});
  norm(at.rows, layer.mlp_norm, true, h_);
  project(at.rows, {layer.gate, config_.dim, 2 * config_.ffn_dim, h_, gate_up});
  backend_.swiglu_forward({.rows = at.rows,
                           .ffn_dim = config_.ffn_dim,
                           .gate_up = gate_up.fp32,
                           .gate_up_bf16 = gate_up.bf16,
                           .act = act.fp32,
                           .act_bf16 = act.bf16});
  project(at.rows, {layer.down, config_.ffn_dim, config_.dim, act, {.fp32 = delta_.data()}});
}

const float* GroupDecoder::final_hidden(int64_t rows) {
  norm(rows, parameters_.final_norm(), true, {.fp32 = final_.data()});
  return final_.data();
}

// Of the first user.
float* GroupDecoder::prompt_kv(int64_t layer, bool value) {
  const int64_t block = layer * options_.users * 2 + (value ? 1 : 0);
  return prompt_kv_.data() + block * options_.prompt_max * config_.kv_dim();
}

float* GroupDecoder::step_kv(int64_t layer, int64_t step, bool value) {
  const int64_t block = (layer * options_.steps_max + step) * 2 + (value ? 1 : 0);
  return step_kv_.data() + block * options_.users * options_.rows_max * config_.kv_dim();
}

}  // namespace collimate
