// The parts of the decoder that forward and backward share: batches, linear sites, arguments of the ops.
#include "core/model/decoder.h"

#include <cmath>

#include "core/failure.h"
#include "core/model/decoder_pass.h"

namespace collimate {

void PackedBatch::add(std::span<const int32_t> sequence, std::span<const uint8_t> label_mask) {
  const int64_t base = rows();
  for (size_t i = 0; i < sequence.size(); ++i) {
    tokens.push_back(sequence[i]);
    positions.push_back(static_cast<int32_t>(i));
    if (i > 0 && label_mask[i]) {
      label_rows.push_back(static_cast<int32_t>(base + static_cast<int64_t>(i) - 1));
      targets.push_back(sequence[i]);
    }
  }
  offsets.push_back(rows());
}

Decoder::Decoder(const DecoderWeights& weights, int64_t positions, const Options& options)
    : weights_(weights),
      parameters_(weights.parameters()),
      backend_(weights.backend()),
      options_(options),
      rope_(ops::make_rope_table(parameters_.config().rope_inverse_frequency(), positions)),
      cos_(backend_, rope_.cos),
      sin_(backend_, rope_.sin),
      arena_(backend_) {
  parameters_.config().check_length(positions);
}

float* Decoder::gradient_of(const Pass& pass, int number) const {
  const int64_t offset = parameters_.at(number).gradient_offset;
  return offset < 0 ? nullptr : pass.args->gradient.data() + offset;
}

void Decoder::drop(const Pass& pass, float* x, int64_t site) const {
  if (!pass.args || pass.args->dropout.probability <= 0.0f) return;
  const DropoutSpec& spec = pass.args->dropout;
  const uint64_t stream =
      static_cast<uint64_t>(spec.step) << 28 | static_cast<uint64_t>(spec.lane) << 14 | static_cast<uint64_t>(site);
  backend_.dropout({.elements = pass.batch.rows() * parameters_.config().dim,
                    .probability = spec.probability,
                    .stream = {.seed = spec.seed, .site = RandomSite::dropout, .stream = stream},
                    .x = x});
}

Decoder::Site Decoder::qkv_site(const Layer& layer, int64_t number) const {
  const DecoderConfig& c = parameters_.config();
  const LayerNumbers& n = parameters_.layers()[static_cast<size_t>(number)];
  return {.in = c.dim,
          .out = c.qkv_dim(),
          .x = layer.attention_normed,
          .parts = {{n.q, 0, c.q_dim(), layer.xa[0]},
                    {n.k, c.q_dim(), c.kv_dim(), layer.xa[1]},
                    {n.v, c.q_dim() + c.kv_dim(), c.kv_dim(), layer.xa[2]}}};
}

Decoder::Site Decoder::output_site(const Layer& layer, int64_t number) const {
  const DecoderConfig& c = parameters_.config();
  const LayerNumbers& n = parameters_.layers()[static_cast<size_t>(number)];
  return {.in = c.q_dim(), .out = c.dim, .x = layer.attended, .parts = {{n.o, 0, c.dim, layer.xa[3]}}};
}

Decoder::Site Decoder::gate_up_site(const Layer& layer, int64_t number) const {
  const DecoderConfig& c = parameters_.config();
  const LayerNumbers& n = parameters_.layers()[static_cast<size_t>(number)];
  return {.in = c.dim,
          .out = 2 * c.ffn_dim,
          .x = layer.mlp_normed,
          .parts = {{n.gate, 0, c.ffn_dim, layer.xa[4]}, {n.up, c.ffn_dim, c.ffn_dim, layer.xa[5]}}};
}

Decoder::Site Decoder::down_site(const Layer& layer, int64_t number) const {
  const DecoderConfig& c = parameters_.config();
  const LayerNumbers& n = parameters_.layers()[static_cast<size_t>(number)];
  return {.in = c.ffn_dim, .out = c.dim, .x = layer.act, .parts = {{n.down, 0, c.dim, layer.xa[6]}}};
}

ops::Rope Decoder::rope_args(const Pass& pass, const ops::Activations& qkv, bool inverse) const {
  const DecoderConfig& c = parameters_.config();
  // q and k lie side by side and turn alike.
  return {.rows = pass.batch.rows(),
          .heads = c.heads + c.kv_heads,
          .head_dim = c.head_dim,
          .positions = pass.positions,
          .cos = cos_.data(),
          .sin = sin_.data(),
          .x = qkv.fp32,
          .x_stride = c.qkv_dim(),
          .x_bf16 = qkv.bf16,
          .inverse = inverse};
}

// Where q, k and v begin.
Decoder::HeadColumns::HeadColumns(const DecoderConfig& config, const ops::Activations& qkv) {
  const int64_t k_column = config.q_dim(), v_column = k_column + config.kv_dim();
  if (qkv.bf16.values != nullptr) {
    q_bf16 = qkv.bf16;
    k_bf16 = {qkv.bf16.values + k_column, qkv.bf16.stride};
    v_bf16 = {qkv.bf16.values + v_column, qkv.bf16.stride};
  } else {
    q = qkv.fp32;
    k = qkv.fp32 + k_column;
    v = qkv.fp32 + v_column;
  }
}

ops::AttentionForward Decoder::attention_args(const Pass& pass, const Layer& layer) const {
  const DecoderConfig& c = parameters_.config();
  const HeadColumns columns(c, layer.qkv);
  return {.heads = c.heads,
          .kv_heads = c.kv_heads,
          .head_dim = c.head_dim,
          .offsets = pass.batch.offsets,
          .first_row = pass.first_row,
          .end_row = pass.end_row,
          .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.head_dim))),
          .window = c.sliding_window,
          .q = columns.q,
          .k = columns.k,
          .v = columns.v,
          .q_stride = c.qkv_dim(),
          .k_stride = c.qkv_dim(),
          .v_stride = c.qkv_dim(),
          .q_bf16 = columns.q_bf16,
          .k_bf16 = columns.k_bf16,
          .v_bf16 = columns.v_bf16,
          .out = layer.attended.fp32,
          .out_bf16 = layer.attended.bf16,
          .log_sum_exp = layer.log_sum_exp,
          .bf16_products = weights_.is_bf16()};
}

}  // namespace collimate
