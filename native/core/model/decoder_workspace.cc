// Where a pass keeps what. All buffers of a pass are laid out here, so that what one will need is known before it runs.
//
// 1. Without recompute every layer keeps what its backward reads. With it a layer keeps the two inputs of its norms
// (the
//    residual stream) and the small products of its adapters; the rest is one set of buffers that all layers share.
#include <algorithm>

#include "core/model/decoder_pass.h"

namespace collimate {

int64_t Decoder::logits_rows(int64_t vocabulary) {
  return std::clamp<int64_t>((int64_t{1} << 22) / vocabulary, 64, 1024);
}

template <typename Take>
void Decoder::lay_out(const Parameters& parameters, const WorkspaceShape& shape, Pass& pass, const Take& take) {
  const DecoderConfig& c = parameters.config();
  const int64_t rows = shape.rows, width = rows * c.dim;
  const int64_t rank = parameters.trainable().lora ? parameters.trainable().rank : 0;
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
    layer.attention_normed = take(width);
    layer.attention_rms = take(rows);
    layer.qkv = take(rows * c.qkv_dim());
    if (c.qk_norm) {
      layer.q_norm = {take(rows * c.q_dim()), take(rows * c.heads)};
      layer.k_norm = {take(rows * c.kv_dim()), take(rows * c.kv_heads)};
    }
    layer.attended = take(rows * c.q_dim());
    layer.log_sum_exp = take(rows * c.heads);
    layer.mlp_normed = take(width);
    layer.mlp_rms = take(rows);
    layer.gate_up = take(rows * 2 * c.ffn_dim);
    layer.act = take(rows * c.ffn_dim);
  }
  pass.final_in = take(width);
  pass.final_normed = take(width);
  pass.final_rms = take(rows);
  pass.hidden = take(shape.labels * c.dim);
  pass.inverse_length = take(shape.labels);
  if (shape.forward_only) return;
  pass.dhidden = take(shape.labels * c.dim);
  pass.logits = take(std::min(logits_rows(c.vocabulary), shape.labels) * c.vocabulary);
  pass.dstream = take(width);
  pass.dnormed = take(width);
  pass.dbranch = take(width);
  pass.dinner = take(rows * std::max(c.ffn_dim, c.q_dim()));
  pass.dqkv = take(rows * c.qkv_dim());
  pass.dxa = take(3 * rows * std::max<int64_t>(rank, 1));
}

int64_t Decoder::workspace_bytes(const Parameters& parameters, const WorkspaceShape& shape) {
  int64_t elements = 0;
  const PackedBatch none;
  Pass pass{.batch = none};
  lay_out(parameters, shape, pass, [&](int64_t wanted) -> float* {
    elements += Arena::rounded(wanted);
    return nullptr;
  });
  return elements * static_cast<int64_t>(sizeof(float));
}

void Decoder::lay_out(Pass& pass) {
  const WorkspaceShape shape{.rows = pass.batch.rows(),
                             .labels = pass.batch.labels(),
                             .recompute = options_.recompute || pass.args == nullptr,
                             .forward_only = pass.args == nullptr};
  arena_.reset(workspace_bytes(parameters_, shape) / static_cast<int64_t>(sizeof(float)));
  lay_out(parameters_, shape, pass, [&](int64_t wanted) { return arena_.take(wanted); });
}

}  // namespace collimate
