// The decoder's linear layers on the bf16 unit.
#include "core/model/decoder_pass.h"

namespace collimate {

std::vector<ops::Bf16Adapter> Decoder::bf16_adapters(const Site& site) const {
  std::vector<ops::Bf16Adapter> adapters;
  for (const Site::Part& part : site.parts) {
    if (part.numbers.lora_a < 0) continue;
    adapters.push_back({.a = &weights_.matrix(part.numbers.lora_a),
                        .b = &weights_.matrix(part.numbers.lora_b),
                        .column = part.column,
                        .width = part.width,
                        .xa = part.xa,
                        .scale = parameters_.trainable().scale()});
  }
  return adapters;
}

void Decoder::linear_bf16(const Pass& pass, const Site& site) {
  const std::vector<ops::Bf16Adapter> adapters = bf16_adapters(site);
  backend_.bf16_linear_forward({.rows = pass.batch.rows(),
                                .weight = &weights_.matrix(site.parts[0].numbers.weight),
                                .adapters = adapters,
                                .x = site.x.fp32,
                                .x_stride = site.in,
                                .x_bf16 = site.x.bf16,
                                .y = site.y.fp32,
                                .y_stride = site.out,
                                .y_bf16 = site.y.bf16});
}

void Decoder::linear_backward_bf16(const Pass& pass, const Site& site) {
  std::vector<ops::Bf16Adapter> adapters = bf16_adapters(site);
  auto adapter = adapters.begin();
  for (const Site::Part& part : site.parts) {
    if (part.numbers.lora_a < 0) continue;
    adapter->da = gradient_of(pass, part.numbers.lora_a);
    adapter->db = gradient_of(pass, part.numbers.lora_b);
    ++adapter;
  }
  backend_.bf16_linear_backward({.rows = pass.batch.rows(),
                                 .weight = &weights_.matrix(site.parts[0].numbers.weight),
                                 .adapters = adapters,
                                 .dy = site.dy.fp32,
                                 .dy_stride = site.out,
                                 .dy_bf16 = site.dy.bf16,
                                 .dx = site.dx.fp32,
                                 .dx_stride = site.in,
                                 .dx_bf16 = site.dx.bf16,
                                 .dxa = pass.dxa,
                                 .x = site.x.fp32,
                                 .x_stride = site.in,
                                 .x_bf16 = site.x.bf16,
                                 .dweight = gradient_of(pass, site.parts[0].numbers.weight),
                                 .dweight_rows = site.out});
}

}  // namespace collimate
