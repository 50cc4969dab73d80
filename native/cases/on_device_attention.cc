// Attention of training and of decoding on a device.
#include <algorithm>
#include <cmath>

#include "cases/on_device_case.h"
#include "core/sequence_bounds.h"
#include "cuda/ops.h"

namespace collimate::cases {
namespace {

// As a group of one. Keys of steps alone: a prompt of one row, which the window hides.
Run decode_attention(OnDevice& t) {
  const int64_t rows = t.dim("q", 0), steps = t.dim("step_k", 0), kv_dim = t.whole("kv_heads") * t.whole("head_dim");
  const int64_t prompt_rows = std::max<int64_t>(t.dim("prompt_k", 0), 1);
  return [&t, args = ops::GroupAttention{.users = 1,
                                         .rows = rows,
                                         .heads = t.whole("heads"),
                                         .kv_heads = t.whole("kv_heads"),
                                         .head_dim = t.whole("head_dim"),
                                         .scale = 1.0f / std::sqrt(t.real("head_dim")),
                                         .window = t.dim("prompt_k", 0) == 0 ? steps : 0,
                                         .q = t.f32("q"),
                                         .q_stride = t.dim("q", 1),
                                         .live = t.keep(std::vector<int32_t>{static_cast<int32_t>(rows)}),
                                         .prompt_rows = t.keep(std::vector<int32_t>{static_cast<int32_t>(prompt_rows)}),
                                         .prompt_k = t.f32("prompt_k"),
                                         .prompt_v = t.f32("prompt_v"),
                                         .prompt_max = prompt_rows,
                                         .steps = steps,
                                         .step_k = t.f32("step_k"),
                                         .step_v = t.f32("step_v"),
                                         .step_stride = rows * kv_dim,
                                         .step_rows = t.keep(std::vector<int32_t>(static_cast<size_t>(steps))),
                                         .ancestors = t.i32("ancestors"),
                                         .out = t.f32("out")}] { cuda::decode_attention(t.device, args); };
}

Run log_sum_exp(OnDevice& t) {
  return [&t, args = cuda::LogSumExp{.rows = 1, .width = t.elements("x"), .x = t.f32("x"), .y = t.f32("y")}] {
    cuda::log_sum_exp(t.device, args);
  };
}

Run choose_columns(OnDevice& t) {
  return [&t, args = ops::ColumnChoice{.rows = t.dim("x", 0),
                                       .width = t.dim("x", 1),
                                       .count = t.dim("y", 1),
                                       .x = t.f32("x"),
                                       .chosen = t.i32("chosen"),
                                       .y = t.f32("y"),
                                       .log_sum_exp = t.f32("log_sum_exp")}] { cuda::choose_columns(t.device, args); };
}

ops::AttentionForward attention_args(OnDevice& t) {
  const int64_t heads = t.whole("heads"), kv_heads = t.whole("kv_heads"), dim = t.whole("head_dim");
  const std::vector<int32_t>& ends = t.host("offsets").i32;
  const auto& offsets = t.keep_object(std::vector<int64_t>(ends.begin(), ends.end()));
  const SequenceBounds bounds(offsets);
  const float* qkv = t.f32("qkv");
  return {.heads = heads,
          .kv_heads = kv_heads,
          .head_dim = dim,
          .offsets = offsets,
          .first_row = t.keep(bounds.first_row),
          .end_row = t.keep(bounds.end_row),
          .scale = 1.0f / std::sqrt(static_cast<float>(dim)),
          .window = t.whole("window"),
          .q = qkv,
          .k = qkv + heads * dim,
          .v = qkv + (heads + kv_heads) * dim,
          .q_stride = t.dim("qkv", 1),
          .k_stride = t.dim("qkv", 1),
          .v_stride = t.dim("qkv", 1),
          .out = t.f32("out"),
          .log_sum_exp = t.f32("log_sum_exp"),
          .bf16_products = t.number("bf16_products") != 0};
}

Run attention_forward(OnDevice& t) {
  return [&t, args = attention_args(t)] { cuda::attention_forward(t.device, args); };
}

Run attention_backward(OnDevice& t) {
  const int64_t heads = t.whole("heads"), kv_heads = t.whole("kv_heads"), dim = t.whole("head_dim");
  float* dqkv = t.f32("dqkv");
  return [&t, args = ops::AttentionBackward{.forward = attention_args(t),
                                            .dout = t.f32("dout"),
                                            .dq = dqkv,
                                            .dk = dqkv + heads * dim,
                                            .dv = dqkv + (heads + kv_heads) * dim}] {
    cuda::attention_backward(t.device, args);
  };
}

}  // namespace

void add_attention_loads(Loads& table) {
  table.insert({{"attention_backward", attention_backward},
                {"attention_forward", attention_forward},
                {"choose_columns", choose_columns},
                {"decode_attention", decode_attention},
                {"log_sum_exp", log_sum_exp}});
}

}  // namespace collimate::cases
