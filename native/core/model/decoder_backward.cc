// Backward of the decoder: from the gradient of the final norm's output down to the embedding rows.
#include "core/model/decoder_pass.h"

namespace collimate {

void Decoder::linear_backward(const Pass& pass, const Site& site) {
  const int bias = site.parts[0].numbers.bias;
  if (bias >= 0) {
    backend_.bias_backward(
        {.rows = pass.batch.rows(), .width = site.out, .dy = site.dy.fp32, .dbias = gradient_of(pass, bias)});
  }
  if (weights_.is_bf16()) return linear_backward_bf16(pass, site);
  linear_backward_fp32(pass, site);
}

void Decoder::linear_backward_fp32(const Pass& pass, const Site& site) {
  const int64_t rows = pass.batch.rows();
  // The parts of a fused matrix lie side by side in the gradient as they do in the values.
  backend_.linear_backward({.rows = rows,
                            .in = site.in,
                            .out = site.out,
                            .x = site.x.fp32,
                            .x_stride = site.in,
                            .weight = data(site.parts[0].numbers.weight),
                            .dy = site.dy.fp32,
                            .dy_stride = site.out,
                            .dx = site.dx.fp32,
                            .dx_stride = site.in,
                            .dweight = gradient_of(pass, site.parts[0].numbers.weight)});
  for (const Site::Part& part : site.parts) {
    if (part.numbers.lora_a < 0) continue;
    backend_.lora_backward({.rows = rows,
                            .in = site.in,
                            .out = part.width,
                            .rank = parameters_.trainable().rank,
                            .scale = parameters_.trainable().scale(),
                            .x = site.x.fp32,
                            .x_stride = site.in,
                            .a = data(part.numbers.lora_a),
                            .b = data(part.numbers.lora_b),
                            .xa = part.xa,
                            .dy = site.dy.fp32 + part.column,
                            .dy_stride = site.out,
                            .dxa = pass.dxa,
                            .dx = site.dx.fp32,
                            .dx_stride = site.in,
                            .da = gradient_of(pass, part.numbers.lora_a),
                            .db = gradient_of(pass, part.numbers.lora_b)});
  }
}

// dstream += gradient through a norm whose output's gradient is in dnormed.
void Decoder::backward_norm(Pass& pass, int weight, const float* sum, const float* inverse_rms) {
  backend_.rmsnorm_backward({.rows = pass.batch.rows(),
                             .dim = parameters_.config().dim,
                             .x = sum,
                             .weight = data(weight),
                             .inverse_rms = inverse_rms,
                             .dy = pass.dnormed,
                             .dx = pass.dstream,
                             .dx_bf16 = pass.dstream_bf16,
                             .dweight = gradient_of(pass, weight)});
}

// Gradient of a branch's output: that of the stream, behind the branch's dropout if there is any.
ops::Activations Decoder::branch_gradient(Pass& pass, int64_t site) {
  if (pass.args->dropout.probability <= 0.0f) return {pass.dstream, pass.dstream_bf16};
  backend_.copy(pass.dbranch, pass.dstream,
                pass.batch.rows() * parameters_.config().dim * static_cast<int64_t>(sizeof(float)));
  drop(pass, pass.dbranch, site);
  return {.fp32 = pass.dbranch};
}

void Decoder::backward(Pass& pass) {
  const DecoderConfig& c = parameters_.config();
  const int64_t rows = pass.batch.rows();
  if (pass.args->dropout.probability > 0.0f) pass.dstream_bf16 = {};  // products read what dropout leaves of it
  backend_.zero(pass.dstream, rows * c.dim * static_cast<int64_t>(sizeof(float)));
  backward_norm(pass, parameters_.final_norm(), pass.final_in, pass.final_rms);
  for (int64_t i = c.layers; i-- > 0;) {
    // What the last layer's forward left in the shared buffers is still there.
    const bool again = options_.recompute && i + 1 < c.layers;
    if (again) recompute_mlp(pass, i);
    backward_mlp(pass, i);
    if (again) recompute_attention(pass, i);
    backward_attention(pass, i);
  }
  drop(pass, pass.dstream, 0);
  const Parameter& embedding = parameters_.at(parameters_.embedding());
  backend_.embedding_backward({.rows = rows,
                               .dim = c.dim,
                               .first_row = embedding.train_first_row,
                               .table_rows = embedding.train_rows,
                               .tokens = pass.tokens,
                               .dy = pass.dstream,
                               .dtable = gradient_of(pass, parameters_.embedding())});
}

// The branch's output is not made again: the stream behind it was kept.
void Decoder::recompute_mlp(const Pass& pass, int64_t number) {
  const Layer& layer = pass.layers[static_cast<size_t>(number)];
  norm_again(pass, parameters_.layers()[static_cast<size_t>(number)].mlp_norm, layer.mlp_in, layer.mlp_normed,
             layer.mlp_rms);
  expand(pass, number);
}

void Decoder::recompute_attention(const Pass& pass, int64_t number) {
  const Layer& layer = pass.layers[static_cast<size_t>(number)];
  norm_again(pass, parameters_.layers()[static_cast<size_t>(number)].attention_norm, layer.attention_in,
             layer.attention_normed, layer.attention_rms);
  attend(pass, number);
}

// normed = RMSNorm(sum), where `sum` is what the forward left.
void Decoder::norm_again(const Pass& pass, int weight, const float* sum, const ops::Activations& normed,
                         float* inverse_rms) {
  backend_.rmsnorm_forward({.rows = pass.batch.rows(),
                            .dim = parameters_.config().dim,
                            .eps = parameters_.config().norm_eps,
                            .x = sum,
                            .weight = data(weight),
                            .y = normed.fp32,
                            .y_bf16 = normed.bf16,
                            .inverse_rms = inverse_rms});
}

void Decoder::backward_norm_heads(Pass& pass, int64_t number) {
  const DecoderConfig& c = parameters_.config();
  const LayerNumbers& numbers = parameters_.layers()[static_cast<size_t>(number)];
  const Layer& layer = pass.layers[static_cast<size_t>(number)];
  ops::HeadNormBackward args{.rows = pass.batch.rows(),
                             .heads = c.heads,
                             .head_dim = c.head_dim,
                             .weight = data(numbers.q_norm),
                             .raw = layer.q_norm.raw,
                             .inverse_rms = layer.q_norm.inverse_rms,
                             .dx = pass.dqkv.fp32,
                             .dx_stride = c.qkv_dim(),
                             .dweight = gradient_of(pass, numbers.q_norm)};
  backend_.head_norm_backward(args);
  args.heads = c.kv_heads;
  args.weight = data(numbers.k_norm);
  args.raw = layer.k_norm.raw;
  args.inverse_rms = layer.k_norm.inverse_rms;
  args.dx = pass.dqkv.fp32 + c.q_dim();
  args.dweight = gradient_of(pass, numbers.k_norm);
  backend_.head_norm_backward(args);
}

void Decoder::backward_mlp(Pass& pass, int64_t number) {
  const DecoderConfig& c = parameters_.config();
  const Layer& layer = pass.layers[static_cast<size_t>(number)];
  Site down = down_site(layer, number);
  down.dy = branch_gradient(pass, 2 + 2 * number);
  down.dx = pass.dact;
  linear_backward(pass, down);
  // In fp32 in place: nothing reads gate and up again.
  const ops::Activations dgate_up{layer.gate_up.fp32, pass.dgate_up};
  backend_.swiglu_backward({.rows = pass.batch.rows(),
                            .ffn_dim = c.ffn_dim,
                            .gate_up = layer.gate_up.fp32,
                            .gate_up_bf16 = layer.gate_up.bf16,
                            .dact = pass.dact.fp32,
                            .dact_bf16 = pass.dact.bf16,
                            .dgate_up = dgate_up.fp32,
                            .dgate_up_bf16 = dgate_up.bf16});
  Site gate_up = gate_up_site(layer, number);
  gate_up.dy = dgate_up;
  gate_up.dx = {.fp32 = pass.dnormed};
  linear_backward(pass, gate_up);
  backward_norm(pass, parameters_.layers()[static_cast<size_t>(number)].mlp_norm, layer.mlp_in, layer.mlp_rms);
}

void Decoder::backward_attention(Pass& pass, int64_t number) {
  const DecoderConfig& c = parameters_.config();
  const Layer& layer = pass.layers[static_cast<size_t>(number)];
  Site output = output_site(layer, number);
  output.dy = branch_gradient(pass, 1 + 2 * number);
  output.dx = pass.dattended;
  linear_backward(pass, output);
  const HeadColumns gradient(c, pass.dqkv);
  backend_.attention_backward({.forward = attention_args(pass, layer),
                               .dout = pass.dattended.fp32,
                               .dq = gradient.q,
                               .dk = gradient.k,
                               .dv = gradient.v,
                               .dout_bf16 = pass.dattended.bf16,
                               .dq_bf16 = gradient.q_bf16,
                               .dk_bf16 = gradient.k_bf16,
                               .dv_bf16 = gradient.v_bf16});
  backend_.rope(rope_args(pass, pass.dqkv, /*inverse=*/true));
  if (c.qk_norm) backward_norm_heads(pass, number);
  Site qkv = qkv_site(layer, number);
  qkv.dy = pass.dqkv;
  qkv.dx = {.fp32 = pass.dnormed};
  linear_backward(pass, qkv);
  backward_norm(pass, parameters_.layers()[static_cast<size_t>(number)].attention_norm, layer.attention_in,
                layer.attention_rms);
}

}  // namespace collimate
