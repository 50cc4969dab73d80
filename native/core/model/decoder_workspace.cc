// Where a pass keeps what. All buffers of a pass are laid out here, so that what one will need is known before it runs.
//
// 1. Without recompute every layer keeps what its backward reads. With it a layer keeps the two inputs of its norms
//    (the residual stream) and the small products of its adapters; the rest is one set of buffers that all layers
//    share.
#include <algorithm>
#include <string>

#include "core/failure.h"
#include "core/model/decoder_pass.h"
#include "core/sequence_bounds.h"

namespace collimate {

int64_t Decoder::logits_rows(int64_t vocabulary, bool on_device) {
  // Each chunk reads the whole head: a device, whose products are fast, needs many rows for each.
  if (on_device) return std::clamp<int64_t>((int64_t{1} << 27) / vocabulary, 64, 4096);
  return std::clamp<int64_t>((int64_t{1} << 22) / vocabulary, 64, 1024);
}

template <typename Take>
void Decoder::lay_out(const Parameters& parameters, const WorkspaceShape& shape, Pass& pass, const Take& take) {
  const DecoderConfig& c = parameters.config();
  const int64_t rows = shape.rows, width = rows * c.dim;
  const int64_t rank = parameters.trainable().lora ? parameters.trainable().rank : 0;
  const LayerNumbers& numbers = parameters.layers().front();  // adapters are alike in all layers
  const auto take_bf16 = [&](int64_t count, int64_t width, int64_t room) -> ops::RowsOfBf16 {
    const int64_t stride = ops::row_with_room(width, room);
    return {reinterpret_cast<uint16_t*>(take((count * stride + 1) / 2)), stride};
  };
  const auto take_rows = [&](int64_t width, const std::vector<LinearNumbers>& readers) -> ops::Activations {
    if (shape.bf16_rows) return {.bf16 = take_bf16(rows, width, parameters.ranks_of(readers))};
    return {.fp32 = take(rows * width)};
  };
  // What is done to heads between product and attention is done to fp32, but for the rotation.
  const bool heads_in_bf16 = shape.bf16_rows && !c.qk_norm && !c.qkv_bias && ops::attention_reads_bf16(c.head_dim);
  const auto take_qkv = [&](int64_t room) -> ops::Activations {
    if (heads_in_bf16) return {.bf16 = take_bf16(rows, c.qkv_dim(), room)};
    return {.fp32 = take(rows * c.qkv_dim())};
  };
  pass.embedded = take(width);
  pass.branch = take(width);
  pass.layers.resize(static_cast<size_t>(c.layers));
  for (size_t i = 0; i < pass.layers.size(); ++i) {
    Layer& layer = pass.layers[i];
    if (i > 0 && shape.recompute) layer = pass.layers[0];
    layer.attention_in = i == 0 ? pass.embedded : take(width);
    layer.mlp_in = take(width);
    for (float*& xa : layer.xa) xa = rank > 0 ? take(rows * rank) : nullptr;
    if (i > 0 && shape.recompute) continue;
    layer.attention_normed = take_rows(c.dim, {numbers.q, numbers.k, numbers.v});
    layer.attention_rms = take(rows);
    layer.qkv = take_qkv(0);
    if (c.qk_norm) {
      layer.q_norm = {take(rows * c.q_dim()), take(rows * c.heads)};
      layer.k_norm = {take(rows * c.kv_dim()), take(rows * c.kv_heads)};
    }
    layer.attended = take_rows(c.q_dim(), {numbers.o});
    layer.log_sum_exp = take(rows * c.heads);
    layer.mlp_normed = take_rows(c.dim, {numbers.gate, numbers.up});
    layer.mlp_rms = take(rows);
    layer.gate_up = take_rows(2 * c.ffn_dim, {});
    layer.act = take_rows(c.ffn_dim, {numbers.down});
  }
  pass.final_in = take(width);
  pass.final_normed = take(width);
  pass.final_rms = take(rows);
  pass.hidden = take(shape.labels * c.dim);
  pass.inverse_length = take(shape.labels);
  pass.logits = take(std::min(shape.logits, shape.labels) * c.vocabulary);
  pass.losses = reinterpret_cast<double*>(take(2 * shape.labels));
  if (shape.uploads) pass.uploaded = reinterpret_cast<int32_t*>(take(4 * rows + 2 * shape.labels));
  if (shape.forward_only) return;
  pass.row_scales = take(shape.labels);
  pass.dhidden = take(shape.labels * c.dim);
  pass.dstream = take(width);
  pass.dnormed = take(width);
  pass.dbranch = take(width);
  pass.dqkv = take_qkv(parameters.ranks_of({numbers.q, numbers.k, numbers.v}));
  // Neither is read when the other is written.
  float* inner = take(rows * std::max(shape.bf16_rows ? 0 : c.ffn_dim, heads_in_bf16 ? 0 : c.q_dim()));
  pass.dact = {.fp32 = inner};
  pass.dattended = {.fp32 = inner};
  if (heads_in_bf16) pass.dattended = {.bf16 = take_bf16(rows, c.q_dim(), 0)};
  if (shape.bf16_rows) {
    pass.dact = {.bf16 = take_bf16(rows, c.ffn_dim, 0)};
    pass.dlogits = take_bf16(std::min(shape.logits, shape.labels), c.vocabulary, 0);
    pass.dstream_bf16 =
        take_bf16(rows, c.dim, std::max(parameters.ranks_of({numbers.o}), parameters.ranks_of({numbers.down})));
    pass.dgate_up = take_bf16(rows, 2 * c.ffn_dim, parameters.ranks_of({numbers.gate, numbers.up}));
  }
  pass.dxa = take(3 * rows * std::max<int64_t>(rank, 1));
}

int64_t Decoder::workspace_bytes(const Parameters& parameters, const PassShape& shape) {
  return pass_bytes(parameters, {.rows = shape.rows,
                                 .labels = shape.labels,
                                 .logits = logits_rows(parameters.config().vocabulary, shape.on_device),
                                 .recompute = shape.recompute,
                                 .uploads = shape.on_device,
                                 .bf16_rows = shape.bf16_rows});
}

int64_t Decoder::pass_bytes(const Parameters& parameters, const WorkspaceShape& shape) {
  int64_t elements = 0;
  const PackedBatch none;
  Pass pass{.batch = none};
  lay_out(parameters, shape, pass, [&](int64_t wanted) -> float* {
    elements += Arena::rounded(wanted);
    return nullptr;
  });
  return elements * static_cast<int64_t>(sizeof(float));
}

void Decoder::lay_out(Pass& pass, const Head& head) {
  const WorkspaceShape shape{.rows = pass.batch.rows(),
                             .labels = pass.batch.labels(),
                             .logits = head.logits,
                             .recompute = options_.recompute || pass.args == nullptr,
                             .forward_only = pass.args == nullptr,
                             .uploads = !backend_.is_host(),
                             .bf16_rows = weights_.reads_bf16_rows()};
  arena_.reset(pass_bytes(parameters_, shape) / static_cast<int64_t>(sizeof(float)));
  lay_out(parameters_, shape, pass, [&](int64_t wanted) { return arena_.take(wanted); });
}

// The batch's arrays where the ops read them.
void Decoder::place(Pass& pass) {
  const PackedBatch& batch = pass.batch;
  check(batch);
  if (backend_.is_host()) {
    pass.tokens = batch.tokens.data();
    pass.positions = batch.positions.data();
    pass.label_rows = batch.label_rows.data();
    pass.targets = batch.targets.data();
    return;
  }
  const SequenceBounds bounds(batch.offsets);
  std::vector<int32_t> all;  // one upload for all
  all.reserve(4 * batch.tokens.size() + 2 * batch.targets.size());
  const auto add = [&](const std::vector<int32_t>& values) {
    const int32_t* there = pass.uploaded + all.size();
    all.insert(all.end(), values.begin(), values.end());
    return there;
  };
  pass.tokens = add(batch.tokens);
  pass.positions = add(batch.positions);
  pass.first_row = add(bounds.first_row);
  pass.end_row = add(bounds.end_row);
  pass.label_rows = add(batch.label_rows);
  pass.targets = add(batch.targets);
  backend_.upload(pass.uploaded, all.data(), static_cast<int64_t>(all.size() * sizeof(int32_t)));
}

// What no op could say.
void Decoder::check(const PackedBatch& batch) const {
  const auto positions = rope_.positions;
  for (const int32_t position : batch.positions) {
    if (position < positions) continue;
    fail_bad_input("sequences may have at most " + std::to_string(positions) + " tokens here, got a longer one");
  }
  const int64_t vocabulary = parameters_.config().vocabulary;
  for (const std::vector<int32_t>* tokens : {&batch.tokens, &batch.targets}) {
    for (const int32_t token : *tokens) {
      if (token >= 0 && token < vocabulary) continue;
      fail_bad_input("expected tokens below the vocabulary of " + std::to_string(vocabulary) + ", got " +
                     std::to_string(token));
    }
  }
}

}  // namespace collimate
