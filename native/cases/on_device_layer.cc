// Embedding, norms, rotary positions, SwiGLU on a device.
#include <algorithm>
#include <cmath>

#include "cases/on_device_case.h"
#include "cuda/ops.h"

namespace collimate::cases {
namespace {

Run embedding_forward(OnDevice& t) {
  return [&t, args = ops::EmbeddingForward{.rows = t.elements("tokens"),
                                           .dim = t.dim("table", 1),
                                           .vocabulary = t.dim("table", 0),
                                           .table = t.f32("table"),
                                           .tokens = t.i32("tokens"),
                                           .y = t.f32("y")}] { cuda::embedding_forward(t.device, args); };
}

Run embedding_backward(OnDevice& t) {
  return [&t, args = ops::EmbeddingBackward{.rows = t.elements("tokens"),
                                            .dim = t.dim("dtable", 1),
                                            .first_row = t.whole("first_row"),
                                            .table_rows = t.dim("dtable", 0),
                                            .tokens = t.i32("tokens"),
                                            .dy = t.f32("dy"),
                                            .dtable = t.f32("dtable")}] { cuda::embedding_backward(t.device, args); };
}

Run rmsnorm_forward(OnDevice& t) {
  return
      [&t, args = ops::RmsNormForward{.rows = t.dim("x", 0),
                                      .dim = t.dim("x", 1),
                                      .eps = t.real("eps"),
                                      .x = t.f32("x"),
                                      .delta = t.f32("delta"),
                                      .sum = t.f32("sum"),
                                      .weight = t.f32("weight"),
                                      .y = t.f32("y"),
                                      .inverse_rms = t.f32("inverse_rms")}] { cuda::rmsnorm_forward(t.device, args); };
}

Run rmsnorm_backward(OnDevice& t) {
  return [&t, args = ops::RmsNormBackward{.rows = t.dim("x", 0),
                                          .dim = t.dim("x", 1),
                                          .x = t.f32("x"),
                                          .weight = t.f32("weight"),
                                          .inverse_rms = t.f32("inverse_rms"),
                                          .dy = t.f32("dy"),
                                          .dx = t.f32("dx"),
                                          .dweight = t.f32("dweight")}] { cuda::rmsnorm_backward(t.device, args); };
}

Run head_norm_forward(OnDevice& t) {
  return [&t, args = ops::HeadNormForward{.rows = t.dim("x", 0),
                                          .heads = t.whole("heads"),
                                          .head_dim = t.whole("head_dim"),
                                          .eps = t.real("eps"),
                                          .weight = t.f32("weight"),
                                          .x = t.f32("x"),
                                          .x_stride = t.dim("x", 1),
                                          .raw = t.f32("raw"),
                                          .inverse_rms = t.f32("inverse_rms")}] {
    cuda::head_norm_forward(t.device, args);
  };
}

Run head_norm_backward(OnDevice& t) {
  return [&t, args = ops::HeadNormBackward{.rows = t.dim("dx", 0),
                                           .heads = t.whole("heads"),
                                           .head_dim = t.whole("head_dim"),
                                           .weight = t.f32("weight"),
                                           .raw = t.f32("raw"),
                                           .inverse_rms = t.f32("inverse_rms"),
                                           .dx = t.f32("dx"),
                                           .dx_stride = t.dim("dx", 1),
                                           .dweight = t.f32("dweight")}] { cuda::head_norm_backward(t.device, args); };
}

Run unit_rows_forward(OnDevice& t) {
  return [&t, args = ops::UnitRowsForward{.rows = t.dim("x", 0),
                                          .dim = t.dim("x", 1),
                                          .length = t.real("length"),
                                          .x = t.f32("x"),
                                          .y = t.f32("y"),
                                          .inverse_length = t.f32("inverse_length")}] {
    cuda::unit_rows_forward(t.device, args);
  };
}

Run unit_rows_backward(OnDevice& t) {
  return [&t, args = ops::UnitRowsBackward{.rows = t.dim("y", 0),
                                           .dim = t.dim("y", 1),
                                           .length = t.real("length"),
                                           .y = t.f32("y"),
                                           .inverse_length = t.f32("inverse_length"),
                                           .dy = t.f32("dy"),
                                           .dx = t.f32("dx")}] { cuda::unit_rows_backward(t.device, args); };
}

Run swiglu_forward(OnDevice& t) {
  return
      [&t, args = ops::SwiGluForward{
               .rows = t.dim("act", 0), .ffn_dim = t.dim("act", 1), .gate_up = t.f32("gate_up"), .act = t.f32("act")}] {
        cuda::swiglu_forward(t.device, args);
      };
}

Run rope(OnDevice& t) {
  const int64_t dim = t.whole("head_dim"),
                positions = 1 + *std::max_element(t.host("positions").i32.begin(), t.host("positions").i32.end());
  std::vector<double> frequencies;
  for (int64_t i = 0; i < dim / 2; ++i)
    frequencies.push_back(std::pow(t.number("theta"), -2.0 * static_cast<double>(i) / static_cast<double>(dim)));
  const ops::RopeTable table = ops::make_rope_table(frequencies, positions);
  return [&t, args = ops::Rope{.rows = t.dim("x", 0),
                               .heads = t.whole("heads"),
                               .head_dim = dim,
                               .positions = t.i32("positions"),
                               .cos = t.keep(table.cos),
                               .sin = t.keep(table.sin),
                               .x = t.f32("x"),
                               .x_stride = t.dim("x", 1),
                               .inverse = t.number("inverse") != 0}] { cuda::rope(t.device, args); };
}

Run swiglu_backward(OnDevice& t) {
  return [&t, args = ops::SwiGluBackward{.rows = t.dim("dact", 0),
                                         .ffn_dim = t.dim("dact", 1),
                                         .gate_up = t.f32("gate_up"),
                                         .dact = t.f32("dact"),
                                         .dgate_up = t.f32("dgate_up")}] { cuda::swiglu_backward(t.device, args); };
}

}  // namespace

void add_layer_loads(Loads& table) {
  table.insert({{"embedding_backward", embedding_backward},
                {"embedding_forward", embedding_forward},
                {"head_norm_backward", head_norm_backward},
                {"head_norm_forward", head_norm_forward},
                {"rmsnorm_backward", rmsnorm_backward},
                {"rmsnorm_forward", rmsnorm_forward},
                {"rope", rope},
                {"swiglu_backward", swiglu_backward},
                {"swiglu_forward", swiglu_forward},
                {"unit_rows_backward", unit_rows_backward},
                {"unit_rows_forward", unit_rows_forward}});
}

}  // namespace collimate::cases
