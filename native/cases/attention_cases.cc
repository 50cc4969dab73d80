// Attention of training, attention and log-sum-exp of decoding.
#include <algorithm>
#include <cmath>

#include "bench/training_case.h"
#include "cases/case.h"
#include "core/ops.h"
#include "core/rank/decode_ops.h"

namespace collimate::cases {
namespace {

constexpr const char* kWhy = "fp32 rounding of two sums and an exponential";

struct Shape {
  const char* what;
  Scale scale;
  int64_t heads, kv_heads, head_dim;
  std::vector<int64_t> lengths;  // of the packed sequences
  int64_t window = 0;
  bool bf16 = false;  // products of a device

  int64_t q_dim() const { return heads * head_dim; }
  int64_t kv_dim() const { return kv_heads * head_dim; }
  int64_t width() const { return q_dim() + 2 * kv_dim(); }  // q, k and v are columns of one matrix, as in the decoder
  std::vector<int64_t> offsets() const {
    std::vector<int64_t> result{0};
    for (const int64_t length : lengths) result.push_back(result.back() + length);
    return result;
  }
  int64_t rows() const { return offsets().back(); }
  // (query, key) pairs that are not masked, of one head.
  double pairs() const {
    double total = 0;
    for (const int64_t length : lengths)
      for (int64_t i = 0; i < length; ++i) total += static_cast<double>(window > 0 ? std::min(window, i + 1) : i + 1);
    return total;
  }
  std::map<std::string, double> parameters() const {
    return {{"heads", static_cast<double>(heads)},
            {"kv_heads", static_cast<double>(kv_heads)},
            {"head_dim", static_cast<double>(head_dim)},
            {"window", static_cast<double>(window)},
            {"bf16_products", bf16 ? 1.0 : 0.0}};
  }
  // Of a result, in fp32.
  double tolerance(double fp32) const { return bf16 ? 2e-2 : fp32; }
  const char* why() const { return bf16 ? "operands and probabilities round to bf16: 2^-9 a term" : kWhy; }
  std::vector<int32_t> offset_values() const {
    const auto wide = offsets();
    return {wide.begin(), wide.end()};
  }
};

ops::AttentionForward forward_args(const Shape& s, std::span<const int64_t> offsets, const float* qkv, float* out,
                                   float* log_sum_exp) {
  return {.heads = s.heads,
          .kv_heads = s.kv_heads,
          .head_dim = s.head_dim,
          .offsets = offsets,
          .scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim)),
          .window = s.window,
          .q = qkv,
          .k = qkv + s.q_dim(),
          .v = qkv + s.q_dim() + s.kv_dim(),
          .q_stride = s.width(),
          .k_stride = s.width(),
          .v_stride = s.width(),
          .out = out,
          .log_sum_exp = log_sum_exp,
          .bf16_products = s.bf16};
}

Case attention_forward(const Shape& s) {
  return {.op = "attention_forward",
          .name = std::string("attention_forward/") + s.what,
          .scale = s.scale,
          .parameters = s.parameters(),
          .make =
              [s] {
                Maker make;
                return make.integers("offsets", s.offset_values())
                    .normal("qkv", {s.rows(), s.width()})
                    .output("out", {s.rows(), s.q_dim()})
                    .output("log_sum_exp", {s.rows(), s.heads})
                    .tensors;
              },
          .run =
              [s, offsets = s.offsets()](Pool& pool, Tensors& t) {
                ops::attention_forward(pool,
                                       forward_args(s, offsets, t.f32("qkv"), t.f32("out"), t.f32("log_sum_exp")));
              },
          .work = {.flop = static_cast<double>(s.heads) * s.pairs() * (4.0 * s.head_dim + kExpFlop),
                   .bytes = 4.0 * s.rows() * (s.width() + s.q_dim())},
          .tolerance = s.tolerance(5e-6),
          .why = s.why()};
}

Case attention_backward(const Shape& s) {
  return {
      .op = "attention_backward",
      .name = std::string("attention_backward/") + s.what,
      .scale = s.scale,
      .parameters = s.parameters(),
      .make =
          [s] {
            Maker make;
            make.integers("offsets", s.offset_values()).normal("qkv", {s.rows(), s.width()});
            make.normal("out", {s.rows(), s.q_dim()}).normal("log_sum_exp", {s.rows(), s.heads});
            make.normal("dout", {s.rows(), s.q_dim()}).output("dqkv", {s.rows(), s.width()});
            Pool pool(1);
            Tensors& t = make.tensors;
            const std::vector<int64_t> offsets = s.offsets();
            ops::attention_forward(pool, forward_args(s, offsets, t.f32("qkv"), t.f32("out"), t.f32("log_sum_exp")));
            return t;
          },
      .run =
          [s, offsets = s.offsets()](Pool& pool, Tensors& t) {
            float* dqkv = t.f32("dqkv");
            ops::attention_backward(
                pool, {.forward = forward_args(s, offsets, t.f32("qkv"), t.f32("out"), t.f32("log_sum_exp")),
                       .dout = t.f32("dout"),
                       .dq = dqkv,
                       .dk = dqkv + s.q_dim(),
                       .dv = dqkv + s.q_dim() + s.kv_dim()});
          },
      .work = {.flop = static_cast<double>(s.heads) * s.pairs() * (10.0 * s.head_dim + kExpFlop),
               .bytes = 4.0 * s.rows() * (2.0 * s.width() + 2.0 * s.q_dim())},
      .tolerance = s.tolerance(1e-5),
      .why = s.why(),
      .derivative = {.loss =
                         [s, offsets = s.offsets()](Pool& pool, Tensors& t) {
                           LargeBuffer<float> out(static_cast<size_t>(s.rows() * s.q_dim()));
                           ops::attention_forward(pool, forward_args(s, offsets, t.f32("qkv"), out.data(), nullptr));
                           return weighted_sum(out, t.at("dout"));
                         },
                     .of = {{.input = "qkv", .gradient = "dqkv"}},
                     .tolerance = s.tolerance(2e-3)}};
}

struct DecodeShape {
  const char* what;
  Scale scale;
  int64_t rows, heads, kv_heads, head_dim, prompt_rows, steps;
};

Case decode_attention(const DecodeShape& s) {
  const int64_t q_dim = s.heads * s.head_dim, kv_dim = s.kv_heads * s.head_dim;
  return {
      .op = "decode_attention",
      .name = std::string("decode_attention/") + s.what,
      .scale = s.scale,
      .parameters = {{"heads", static_cast<double>(s.heads)},
                     {"kv_heads", static_cast<double>(s.kv_heads)},
                     {"head_dim", static_cast<double>(s.head_dim)}},
      .make =
          [=] {
            Maker make;
            make.normal("q", {s.rows, q_dim});
            make.normal("prompt_k", {s.prompt_rows, kv_dim}).normal("prompt_v", {s.prompt_rows, kv_dim});
            make.normal("step_k", {s.steps, s.rows, kv_dim}).normal("step_v", {s.steps, s.rows, kv_dim});
            make.below("ancestors", {s.rows, s.steps}, static_cast<int32_t>(s.rows));
            make.output("scratch", {s.rows, s.prompt_rows + s.steps}, Role::scratch);
            return make.output("out", {s.rows, q_dim}).tensors;
          },
      .run =
          [=](Pool&, Tensors& t) {
            std::vector<const float*> step_k, step_v;
            for (int64_t step = 0; step < s.steps; ++step) {
              step_k.push_back(t.f32("step_k") + step * s.rows * kv_dim);
              step_v.push_back(t.f32("step_v") + step * s.rows * kv_dim);
            }
            ops::decode_attention({.rows = s.rows,
                                   .heads = s.heads,
                                   .kv_heads = s.kv_heads,
                                   .head_dim = s.head_dim,
                                   .scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim)),
                                   .q = t.f32("q"),
                                   .q_stride = q_dim,
                                   .prompt_rows = s.prompt_rows,
                                   .prompt_k = t.f32("prompt_k"),
                                   .prompt_v = t.f32("prompt_v"),
                                   .steps = s.steps,
                                   .step_k = step_k.data(),
                                   .step_v = step_v.data(),
                                   .ancestors = t.i32("ancestors"),
                                   .ancestors_stride = s.steps,
                                   .scratch = t.f32("scratch"),
                                   .out = t.f32("out")});
          },
      .work = {.flop =
                   static_cast<double>(s.rows * s.heads * (s.prompt_rows + s.steps)) * (4.0 * s.head_dim + kExpFlop),
               .bytes = 4.0 * static_cast<double>(2 * s.rows * q_dim + 2 * (s.prompt_rows + s.rows * s.steps) * kv_dim),
               .one_thread = true},
      .tolerance = 5e-6,
      .why = kWhy};
}

Case log_sum_exp(const char* what, Scale scale, int64_t elements) {
  return {
      .op = "log_sum_exp",
      .name = std::string("log_sum_exp/") + what,
      .scale = scale,
      .make =
          [=] {
            Maker make;
            return make.normal("x", {elements}, 4.0f).output("y", {1}).tensors;
          },
      .run = [=](Pool&, Tensors& t) { *t.f32("y") = ops::log_sum_exp({t.f32("x"), static_cast<size_t>(elements)}); },
      .work = {.flop = kExpFlop * static_cast<double>(elements),
               .bytes = 4.0 * static_cast<double>(elements),
               .one_thread = true},
      .tolerance = 1e-6,
      .why = "blocks in fp32, their sum in double"};
}

Case choose_columns(const char* what, Scale scale, int64_t rows, int64_t width, int64_t count) {
  return {.op = "choose_columns",
          .name = std::string("choose_columns/") + what,
          .scale = scale,
          .make =
              [=] {
                Maker make;
                make.normal("x", {rows, width}, 4.0f).distinct("chosen", count, width);
                return make.output("y", {rows, count}).output("log_sum_exp", {rows}).tensors;
              },
          .run =
              [=](Pool&, Tensors& t) {
                ops::choose_columns({.rows = rows,
                                     .width = width,
                                     .count = count,
                                     .x = t.f32("x"),
                                     .chosen = t.i32("chosen"),
                                     .y = t.f32("y"),
                                     .log_sum_exp = t.f32("log_sum_exp")});
              },
          .work = {.flop = kExpFlop * static_cast<double>(rows * width),
                   .bytes = 4.0 * static_cast<double>(rows * (width + 2 * count)),
                   .one_thread = true},
          .tolerance = 1e-6,
          .why = "blocks in fp32, their sum in double"};
}

}  // namespace

void add_attention_cases(std::vector<Case>& list) {
  const auto& scratch = bench::kScratchShape;
  const auto& small = bench::kSmallShape;
  const auto& qwen = bench::kQwenShape;
  // Sequences of one token, and longer than a tile of queries; heads no multiple of a vector wide.
  for (const Shape& shape :
       {Shape{"grouped, packed", Scale::tiny, 2, 1, 3, {1, 3, 66}}, Shape{"window", Scale::tiny, 2, 2, 3, {4, 67}, 9},
        Shape{"window of one tile", Scale::tiny, 1, 1, 3, {130}, 64},
        Shape{"wide heads", Scale::tiny, 4, 2, 10, {1, 4}},
        // Heads that are filled up to 32, 64 and 128 columns.
        Shape{"grouped, packed, in bf16", Scale::tiny, 2, 1, 34, {1, 3, 66}, 0, true},
        Shape{"window, in bf16", Scale::tiny, 1, 1, 6, {4, 103}, 40, true},
        Shape{"wide heads, in bf16", Scale::tiny, 1, 1, 100, {33, 4}, 0, true},
        Shape{"scratch", Scale::bench, scratch.heads, scratch.kv_heads, 32, std::vector<int64_t>(8, 128)},
        Shape{"small", Scale::bench, small.heads, small.kv_heads, 64, {256, 256}},
        Shape{"small, long with a window", Scale::bench, small.heads, small.kv_heads, 64, {1000, 30}, 256},
        Shape{"qwen0.5b", Scale::bench, qwen.heads, qwen.kv_heads, 64, {256, 256}},
        Shape{"qwen0.5b, in bf16", Scale::bench, qwen.heads, qwen.kv_heads, 64, {256, 256}, 0, true}}) {
    list.push_back(attention_forward(shape));
    list.push_back(attention_backward(shape));
  }
  list.push_back(decode_attention({"prompt and steps", Scale::tiny, 5, 4, 2, 6, 9, 3}));
  list.push_back(decode_attention({"prompt alone", Scale::tiny, 3, 2, 1, 8, 7, 0}));
  list.push_back(decode_attention({"steps alone", Scale::tiny, 4, 2, 2, 5, 0, 2}));
  list.push_back(
      decode_attention({"scratch, 20 beams", Scale::bench, 20, scratch.heads, scratch.kv_heads, 32, 120, 3}));
  list.push_back(log_sum_exp("odd", Scale::tiny, 37));
  list.push_back(log_sum_exp("more than a block", Scale::tiny, 1100));
  list.push_back(log_sum_exp("scratch vocabulary", Scale::bench, 2048));
  list.push_back(choose_columns("odd", Scale::tiny, 5, 41, 7));
  list.push_back(choose_columns("scratch, 20 beams", Scale::bench, 20, 2048, 256));
}

}  // namespace collimate::cases
