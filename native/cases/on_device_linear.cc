// Linear layers, biases and adapters on a device, in fp32 and on the tensor cores.
#include "cases/on_device_case.h"
#include "cuda/linear_bf16.h"
#include "cuda/ops.h"

namespace collimate::cases {
namespace {

Run linear_forward(OnDevice& t) {
  return [&t, args = ops::LinearForward{.rows = t.dim("x", 0),
                                        .in = t.dim("weight", 1),
                                        .out = t.dim("weight", 0),
                                        .x = t.f32("x"),
                                        .x_stride = t.dim("x", 1),
                                        .weight = t.f32("weight"),
                                        .y = t.f32("y"),
                                        .y_stride = t.dim("y", 1)}] { cuda::linear_forward(t.device, args); };
}

Run linear_backward(OnDevice& t) {
  return [&t, args = ops::LinearBackward{.rows = t.dim("x", 0),
                                         .in = t.dim("weight", 1),
                                         .out = t.dim("weight", 0),
                                         .x = t.f32("x"),
                                         .x_stride = t.dim("x", 1),
                                         .weight = t.f32("weight"),
                                         .dy = t.f32("dy"),
                                         .dy_stride = t.dim("dy", 1),
                                         .dx = t.f32("dx"),
                                         .dx_stride = t.dim("dx", 1),
                                         .accumulate_dx = t.number("accumulate_dx") != 0,
                                         .dweight = t.f32("dweight")}] { cuda::linear_backward(t.device, args); };
}

Run add_bias(OnDevice& t) {
  return [&t, args = ops::Bias{.rows = t.dim("y", 0), .width = t.dim("y", 1), .bias = t.f32("bias"), .y = t.f32("y")}] {
    cuda::add_bias(t.device, args);
  };
}

Run bias_backward(OnDevice& t) {
  return [&t, args = ops::BiasBackward{
                  .rows = t.dim("dy", 0), .width = t.dim("dy", 1), .dy = t.f32("dy"), .dbias = t.f32("dbias")}] {
    cuda::bias_backward(t.device, args);
  };
}

Run lora_forward(OnDevice& t) {
  return [&t, args = ops::LoraForward{.rows = t.dim("x", 0),
                                      .in = t.dim("a", 1),
                                      .out = t.dim("b", 0),
                                      .rank = t.dim("a", 0),
                                      .scale = t.real("scale"),
                                      .x = t.f32("x"),
                                      .x_stride = t.dim("x", 1),
                                      .a = t.f32("a"),
                                      .b = t.f32("b"),
                                      .xa = t.f32("xa"),
                                      .y = t.f32("y"),
                                      .y_stride = t.dim("y", 1)}] { cuda::lora_forward(t.device, args); };
}

Run lora_backward(OnDevice& t) {
  return [&t, args = ops::LoraBackward{.rows = t.dim("x", 0),
                                       .in = t.dim("a", 1),
                                       .out = t.dim("b", 0),
                                       .rank = t.dim("a", 0),
                                       .scale = t.real("scale"),
                                       .x = t.f32("x"),
                                       .x_stride = t.dim("x", 1),
                                       .a = t.f32("a"),
                                       .b = t.f32("b"),
                                       .xa = t.f32("xa"),
                                       .dy = t.f32("dy"),
                                       .dy_stride = t.dim("dy", 1),
                                       .dxa = t.f32("dxa"),
                                       .dx = t.f32("dx"),
                                       .dx_stride = t.dim("dx", 1),
                                       .da = t.f32("da"),
                                       .db = t.f32("db")}] { cuda::lora_backward(t.device, args); };
}

Run lora_gradient(OnDevice& t) {
  return [&t, args = ops::LoraGradient{.rows = t.dim("x", 0),
                                       .in = t.dim("da", 1),
                                       .out = t.dim("db", 0),
                                       .rank = t.dim("da", 0),
                                       .scale = t.real("scale"),
                                       .x = t.f32("x"),
                                       .x_stride = t.dim("x", 1),
                                       .xa = t.f32("xa"),
                                       .dy = t.f32("dy"),
                                       .dy_stride = t.dim("dy", 1),
                                       .dxa = t.f32("dxa"),
                                       .da = t.f32("da"),
                                       .db = t.f32("db")}] { cuda::lora_gradient(t.device, args); };
}

cuda::Bf16Matrix& bf16_matrix(OnDevice& t, const std::string& name, float factor, int64_t room = 0) {
  return t.keep_object(cuda::Bf16Matrix(
      t.device, {.values = t.f32(name), .out = t.dim(name, 0), .in = t.dim(name, 1), .factor = factor, .room = room}));
}

const cuda::Bf16Matrix& bf16_weight(OnDevice& t) {
  int64_t room = 0;
  for (int64_t i = 0; i < t.whole("adapters"); ++i) room += t.dim("a" + std::to_string(i), 0);
  return bf16_matrix(t, "weight", 1.0f, room);
}

std::vector<ops::Bf16Adapter> bf16_adapters(OnDevice& t) {
  std::vector<ops::Bf16Adapter> adapters;
  for (int64_t i = 0; i < t.whole("adapters"); ++i) {
    const std::string number = std::to_string(i);
    adapters.push_back({.a = &bf16_matrix(t, "a" + number, 1.0f),
                        .b = &bf16_matrix(t, "b" + number, t.real("scale")),
                        .column = t.whole("column" + number),
                        .width = t.dim("b" + number, 0),
                        .xa = t.f32("xa" + number),
                        .scale = t.real("scale"),
                        .da = t.f32("da" + number),
                        .db = t.f32("db" + number)});
  }
  return adapters;
}

Run bf16_linear_forward(OnDevice& t) {
  const auto* weight = &bf16_weight(t);
  return [&t, weight, adapters = bf16_adapters(t)] {
    cuda::bf16_linear_forward(t.device, {.rows = t.dim("x", 0),
                                         .weight = weight,
                                         .adapters = adapters,
                                         .x = t.f32("x"),
                                         .x_stride = t.dim("x", 1),
                                         .y = t.f32("y"),
                                         .y_stride = t.dim("y", 1)});
  };
}

Run bf16_linear_backward(OnDevice& t) {
  const auto* weight = &bf16_weight(t);
  float* dweight = t.f32("dweight");
  return [&t, weight, dweight, adapters = bf16_adapters(t)] {
    cuda::bf16_linear_backward(t.device, {.rows = t.dim("dy", 0),
                                          .weight = weight,
                                          .adapters = adapters,
                                          .dy = t.f32("dy"),
                                          .dy_stride = t.dim("dy", 1),
                                          .dx = t.f32("dx"),
                                          .dx_stride = t.dim("dx", 1),
                                          .dxa = t.f32("dxa"),
                                          .x = t.f32("x"),
                                          .x_stride = t.dim("x", 1),
                                          .dweight = dweight,
                                          .dweight_first = t.whole("trained_first"),
                                          .dweight_rows = dweight != nullptr ? t.dim("dweight", 0) : 0});
  };
}

}  // namespace

void add_linear_loads(Loads& table) {
  table.insert({{"add_bias", add_bias},
                {"bf16_linear_backward", bf16_linear_backward},
                {"bf16_linear_forward", bf16_linear_forward},
                {"bias_backward", bias_backward},
                {"linear_backward", linear_backward},
                {"linear_forward", linear_forward},
                {"lora_backward", lora_backward},
                {"lora_forward", lora_forward},
                {"lora_gradient", lora_gradient}});
}

}  // namespace collimate::cases
