// Attention of training and of decoding on a device.
#include <algorithm>
#include <cmath>

#include "cases/on_device_case.h"
#include "cuda/ops.h"

namespace collimate::cases {
namespace {

Run decode_attention(OnDevice& t) {
  const int64_t rows = t.dim("q", 0), steps = t.dim("step_k", 0), kv_dim = t.whole("kv_heads") * t.whole("head_dim");
  std::vector<const float*> step_k, step_v;
  for (int64_t step = 0; step < steps; ++step) {
    step_k.push_back(t.f32("step_k") + step * rows * kv_dim);
    step_v.push_back(t.f32("step_v") + step * rows * kv_dim);
  }
  return [&t, args = ops::DecodeAttention{.rows = rows,
                                          .heads = t.whole("heads"),
                                          .kv_heads = t.whole("kv_heads"),
                                          .head_dim = t.whole("head_dim"),
                                          .scale = 1.0f / std::sqrt(t.real("head_dim")),
                                          .q = t.f32("q"),
                                          .q_stride = t.dim("q", 1),
                                          .prompt_rows = t.dim("prompt_k", 0),
                                          .prompt_k = t.f32("prompt_k"),
                                          .prompt_v = t.f32("prompt_v"),
                                          .steps = steps,
                                          .step_k = t.keep(step_k),
                                          .step_v = t.keep(step_v),
                                          .ancestors = t.i32("ancestors"),
                                          .ancestors_stride = steps,
                                          .out = t.f32("out")}] { cuda::decode_attention(t.device, args); };
}

Run log_sum_exp(OnDevice& t) {
  return [&t, args = cuda::LogSumExp{.rows = 1, .width = t.elements("x"), .x = t.f32("x"), .y = t.f32("y")}] {
    cuda::log_sum_exp(t.device, args);
  };
}

cuda::AttentionForward attention_args(OnDevice& t) {
  const int64_t heads = t.whole("heads"), kv_heads = t.whole("kv_heads"), dim = t.whole("head_dim");
  const std::vector<int32_t>& offsets = t.host("offsets").i32;
  std::vector<int32_t> first, end;
  int64_t longest = 0;
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    first.resize(static_cast<size_t>(offsets[s + 1]), offsets[s]);
    end.resize(static_cast<size_t>(offsets[s + 1]), offsets[s + 1]);
    longest = std::max<int64_t>(longest, offsets[s + 1] - offsets[s]);
  }
  const float* qkv = t.f32("qkv");
  return {.args = {.heads = heads,
                   .kv_heads = kv_heads,
                   .head_dim = dim,
                   .scale = 1.0f / std::sqrt(static_cast<float>(dim)),
                   .window = t.whole("window"),
                   .q = qkv,
                   .k = qkv + heads * dim,
                   .v = qkv + (heads + kv_heads) * dim,
                   .q_stride = t.dim("qkv", 1),
                   .k_stride = t.dim("qkv", 1),
                   .v_stride = t.dim("qkv", 1),
                   .out = t.f32("out"),
                   .log_sum_exp = t.f32("log_sum_exp")},
          .packed = {.rows = t.dim("qkv", 0), .longest = longest, .first_row = t.keep(first), .end_row = t.keep(end)}};
}

Run attention_forward(OnDevice& t) {
  return [&t, args = attention_args(t)] { cuda::attention_forward(t.device, args); };
}

Run attention_backward(OnDevice& t) {
  const int64_t heads = t.whole("heads"), kv_heads = t.whole("kv_heads"), dim = t.whole("head_dim");
  float* dqkv = t.f32("dqkv");
  return [&t, args = cuda::AttentionBackward{.forward = attention_args(t),
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
                {"decode_attention", decode_attention},
                {"log_sum_exp", log_sum_exp}});
}

}  // namespace collimate::cases
