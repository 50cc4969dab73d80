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
                        .xa = part.xa});
  }
  return adapters;
}

void Decoder::linear_bf16(const Pass& pass, const Site& site) {
  const std::vector<ops::Bf16Adapter> adapters = bf16_adapters(site);
  backend_.bf16_linear_forward({.rows = pass.batch.rows(),
                                .weight = &weights_.matrix(site.parts[0].numbers.weight),
                                .adapters = adapters,
                                .x = site.x,
                                .x_stride = site.in,
                                .y = site.y,
                                .y_stride = site.out});
}

void Decoder::linear_backward_bf16(const Pass& pass, const Site& site) {
  const int64_t rows = pass.batch.rows(), rank = parameters_.trainable().rank;
  const std::vector<ops::Bf16Adapter> adapters = bf16_adapters(site);
  backend_.bf16_linear_backward({.rows = rows,
                                 .weight = &weights_.matrix(site.parts[0].numbers.weight),
                                 .adapters = adapters,
                                 .dy = site.dy,
                                 .dy_stride = site.out,
                                 .dx = site.dx,
                                 .dx_stride = site.in,
                                 .dxa = pass.dxa});
  backend_.linear_backward({.rows = rows,
                            .in = site.in,
                            .out = site.out,
                            .x = site.x,
                            .x_stride = site.in,
                            .dy = site.dy,
                            .dy_stride = site.out,
                            .dweight = gradient_of(pass, site.parts[0].numbers.weight)});
  const float* dxa = pass.dxa;
  for (const Site::Part& part : site.parts) {
    if (part.numbers.lora_a < 0) continue;
    backend_.lora_gradient({.rows = rows,
                            .in = site.in,
                            .out = part.width,
                            .rank = rank,
                            .scale = parameters_.trainable().scale(),
                            .x = site.x,
                            .x_stride = site.in,
                            .xa = part.xa,
                            .dy = site.dy + part.column,
                            .dy_stride = site.out,
                            .dxa = dxa,
                            .da = gradient_of(pass, part.numbers.lora_a),
                            .db = gradient_of(pass, part.numbers.lora_b)});
    dxa += rows * rank;
  }
}

}  // namespace collimate
