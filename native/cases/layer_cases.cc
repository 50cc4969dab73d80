// Embedding, norms, rotary positions, SwiGLU.
#include <cmath>
#include <memory>

#include "bench/training_case.h"
#include "cases/case.h"
#include "core/ops.h"

namespace collimate::cases {
namespace {

constexpr const char* kCopies = "values are copied or added a few times";
constexpr const char* kOneRow = "fp32 rounding of sums over one row";

struct Rows {
  const char* what;
  Scale scale;
  int64_t rows, dim;
};
// A lane of the `small` training case; a tiny shape with no multiple of a vector in it, and more than a block of rows.
const Rows kTinyRows{"odd", Scale::tiny, 65, 7};
const Rows kSmallRows{"small", Scale::bench, 512, bench::kSmallShape.dim};
const Rows kQwenRows{"qwen0.5b", Scale::bench, 512, bench::kQwenShape.dim};

double floats(double count) { return 4.0 * count; }

Case embedding_forward(const Rows& shape, int64_t vocabulary) {
  const auto [what, scale, rows, dim] = shape;
  return {.op = "embedding_forward",
          .name = std::string("embedding_forward/") + what,
          .scale = scale,
          .make =
              [=, rows = rows, dim = dim] {
                Maker make;
                return make.normal("table", {vocabulary, dim})
                    .below("tokens", {rows}, static_cast<int32_t>(vocabulary))
                    .output("y", {rows, dim})
                    .tensors;
              },
          .run =
              [=, rows = rows, dim = dim](Pool& pool, Tensors& t) {
                ops::embedding_forward(pool, {.rows = rows,
                                              .dim = dim,
                                              .vocabulary = vocabulary,
                                              .table = t.f32("table"),
                                              .tokens = t.i32("tokens"),
                                              .y = t.f32("y")});
              },
          .work = {.bytes = floats(2.0 * rows * dim)},
          .tolerance = 0,
          .why = "values are copied"};
}

// Only rows from `first_row` on are trained.
Case embedding_backward(const Rows& shape, int64_t vocabulary, int64_t first_row) {
  const auto [what, scale, rows, dim] = shape;
  const int64_t trained = vocabulary - first_row;
  return {.op = "embedding_backward",
          .name = std::string("embedding_backward/") + what,
          .scale = scale,
          .parameters = {{"first_row", static_cast<double>(first_row)}},
          .make =
              [=, rows = rows, dim = dim] {
                Maker make;
                return make.below("tokens", {rows}, static_cast<int32_t>(vocabulary))
                    .normal("dy", {rows, dim})
                    .normal("table", {vocabulary, dim})
                    .normal("dtable", {trained, dim}, 1.0f, Role::accumulated)
                    .tensors;
              },
          .run =
              [=, rows = rows, dim = dim](Pool& pool, Tensors& t) {
                ops::embedding_backward(pool, {.rows = rows,
                                               .dim = dim,
                                               .first_row = first_row,
                                               .table_rows = trained,
                                               .tokens = t.i32("tokens"),
                                               .dy = t.f32("dy"),
                                               .dtable = t.f32("dtable")});
              },
          .work = {.flop = 1.0 * rows * dim, .bytes = floats(3.0 * rows * dim)},
          .tolerance = 1e-6,
          .why = kCopies,
          .derivative = {.loss =
                             [=, rows = rows, dim = dim](Pool& pool, Tensors& t) {
                               LargeBuffer<float> y(static_cast<size_t>(rows * dim));
                               ops::embedding_forward(pool, {.rows = rows,
                                                             .dim = dim,
                                                             .vocabulary = vocabulary,
                                                             .table = t.f32("table"),
                                                             .tokens = t.i32("tokens"),
                                                             .y = y.data()});
                               return weighted_sum(y, t.at("dy"));
                             },
                         .of = {{.input = "table", .gradient = "dtable", .first = first_row * dim}}}};
}

Case rmsnorm_forward(const Rows& shape, bool with_delta) {
  const auto [what, scale, rows, dim] = shape;
  return {
      .op = "rmsnorm_forward",
      .name = std::string("rmsnorm_forward/") + what + (with_delta ? ", with the addition" : ""),
      .scale = scale,
      .parameters = {{"eps", 1e-5}},
      .make =
          [=, rows = rows, dim = dim] {
            Maker make;
            make.normal("x", {rows, dim}).normal("weight", {dim}).output("y", {rows, dim});
            if (with_delta) make.normal("delta", {rows, dim}).output("sum", {rows, dim});
            return make.output("inverse_rms", {rows}).tensors;
          },
      .run =
          [=, rows = rows, dim = dim](Pool& pool, Tensors& t) {
            ops::rmsnorm_forward(pool, {.rows = rows,
                                        .dim = dim,
                                        .eps = 1e-5f,
                                        .x = t.f32("x"),
                                        .delta = with_delta ? t.f32("delta") : nullptr,
                                        .sum = with_delta ? t.f32("sum") : nullptr,
                                        .weight = t.f32("weight"),
                                        .y = t.f32("y"),
                                        .inverse_rms = t.f32("inverse_rms")});
          },
      .work = {.flop = (with_delta ? 5.0 : 4.0) * rows * dim, .bytes = floats((with_delta ? 4.0 : 2.0) * rows * dim)},
      .tolerance = 1e-6,
      .why = kOneRow};
}

Case rmsnorm_backward(const Rows& shape, bool trained) {
  const auto [what, scale, rows, dim] = shape;
  const auto forward = [rows = rows, dim = dim](Pool& pool, Tensors& t, float* y, float* inverse_rms) {
    ops::rmsnorm_forward(pool, {.rows = rows,
                                .dim = dim,
                                .eps = 1e-5f,
                                .x = t.f32("x"),
                                .weight = t.f32("weight"),
                                .y = y,
                                .inverse_rms = inverse_rms});
  };
  Case result{.op = "rmsnorm_backward",
              .name = std::string("rmsnorm_backward/") + what + (trained ? "" : ", frozen"),
              .scale = scale,
              .parameters = {{"eps", 1e-5}},
              .make =
                  [=, rows = rows, dim = dim] {
                    Maker make;
                    make.normal("x", {rows, dim}).normal("weight", {dim}).normal("dy", {rows, dim});
                    make.normal("dx", {rows, dim}, 1.0f, Role::accumulated).normal("inverse_rms", {rows});
                    if (trained) make.normal("dweight", {dim}, 1.0f, Role::accumulated);
                    Pool pool(1);
                    LargeBuffer<float> y(static_cast<size_t>(rows * dim));
                    forward(pool, make.tensors, y.data(), make.tensors.f32("inverse_rms"));
                    return make.tensors;
                  },
              .run =
                  [=, rows = rows, dim = dim](Pool& pool, Tensors& t) {
                    ops::rmsnorm_backward(pool, {.rows = rows,
                                                 .dim = dim,
                                                 .x = t.f32("x"),
                                                 .weight = t.f32("weight"),
                                                 .inverse_rms = t.f32("inverse_rms"),
                                                 .dy = t.f32("dy"),
                                                 .dx = t.f32("dx"),
                                                 .dweight = trained ? t.f32("dweight") : nullptr});
                  },
              .work = {.flop = (trained ? 10.0 : 7.0) * rows * dim, .bytes = floats(4.0 * rows * dim)},
              .tolerance = 5e-6,
              .why = kOneRow,
              .derivative = {.loss =
                                 [=, rows = rows, dim = dim](Pool& pool, Tensors& t) {
                                   LargeBuffer<float> y(static_cast<size_t>(rows * dim));
                                   forward(pool, t, y.data(), nullptr);
                                   return weighted_sum(y, t.at("dy"));
                                 },
                             .of = {{.input = "x", .gradient = "dx"}}}};
  if (trained) result.derivative.of.push_back({.input = "weight", .gradient = "dweight"});
  return result;
}

struct Heads {
  const char* what;
  Scale scale;
  int64_t rows, heads, head_dim, stride;
};
// Heads that are columns of a wider matrix, as q and k are.
const Heads kTinyHeads{"odd", Scale::tiny, 13, 3, 10, 37};
const Heads kQwenHeads{"qwen0.5b", Scale::bench, 512, bench::kQwenShape.heads, 64, 18 * 64};
const Heads kSmallHeads{"small", Scale::bench, 512, bench::kSmallShape.heads, 64, 16 * 64};

std::map<std::string, double> head_parameters(const Heads& shape) {
  return {{"heads", static_cast<double>(shape.heads)}, {"head_dim", static_cast<double>(shape.head_dim)}};
}

Case head_norm_forward(const Heads& s) {
  Case result{
      .op = "head_norm_forward",
      .name = std::string("head_norm_forward/") + s.what,
      .scale = s.scale,
      .parameters = head_parameters(s),
      .make =
          [s] {
            Maker make;
            return make.normal("weight", {s.head_dim})
                .normal("x", {s.rows, s.stride}, 1.0f, Role::replaced)
                .output("raw", {s.rows, s.heads * s.head_dim})
                .output("inverse_rms", {s.rows, s.heads})
                .tensors;
          },
      .run =
          [s](Pool& pool, Tensors& t) {
            ops::head_norm_forward(pool, {.rows = s.rows,
                                          .heads = s.heads,
                                          .head_dim = s.head_dim,
                                          .eps = 1e-6f,
                                          .weight = t.f32("weight"),
                                          .x = t.f32("x"),
                                          .x_stride = s.stride,
                                          .raw = t.f32("raw"),
                                          .inverse_rms = t.f32("inverse_rms")});
          },
      .work = {.flop = 4.0 * s.rows * s.heads * s.head_dim, .bytes = floats(3.0 * s.rows * s.heads * s.head_dim)},
      .tolerance = 1e-6,
      .why = kOneRow};
  result.parameters["eps"] = 1e-6;
  return result;
}

Case head_norm_backward(const Heads& s) {
  const int64_t width = s.heads * s.head_dim;
  // Of contiguous rows, into x.
  const auto forward = [=](Pool& pool, const float* weight, float* x, float* inverse_rms) {
    ops::head_norm_forward(pool, {.rows = s.rows,
                                  .heads = s.heads,
                                  .head_dim = s.head_dim,
                                  .eps = 1e-6f,
                                  .weight = weight,
                                  .x = x,
                                  .x_stride = width,
                                  .inverse_rms = inverse_rms});
  };
  Case result{
      .op = "head_norm_backward",
      .name = std::string("head_norm_backward/") + s.what,
      .scale = s.scale,
      .parameters = head_parameters(s),
      .make =
          [=] {
            Maker make;
            make.normal("weight", {s.head_dim}).normal("raw", {s.rows, width});
            make.normal("dx", {s.rows, s.stride}, 1.0f, Role::replaced).normal("inverse_rms", {s.rows, s.heads});
            make.normal("dweight", {s.head_dim}, 1.0f, Role::accumulated);
            Pool pool(1);
            LargeBuffer<float> x = make.tensors.at("raw").f32;
            forward(pool, make.tensors.f32("weight"), x.data(), make.tensors.f32("inverse_rms"));
            return make.tensors;
          },
      .run =
          [=](Pool& pool, Tensors& t) {
            ops::head_norm_backward(pool, {.rows = s.rows,
                                           .heads = s.heads,
                                           .head_dim = s.head_dim,
                                           .weight = t.f32("weight"),
                                           .raw = t.f32("raw"),
                                           .inverse_rms = t.f32("inverse_rms"),
                                           .dx = t.f32("dx"),
                                           .dx_stride = s.stride,
                                           .dweight = t.f32("dweight")});
          },
      .work = {.flop = 10.0 * s.rows * width, .bytes = floats(3.0 * s.rows * width)},
      .tolerance = 5e-6,
      .why = kOneRow};
  result.parameters["eps"] = 1e-6;
  result.derivative = {
      .loss =
          [=](Pool& pool, Tensors& t) {
            LargeBuffer<float> x = t.at("raw").f32;
            forward(pool, t.f32("weight"), x.data(), nullptr);
            double sum = 0.0;
            for (int64_t i = 0; i < s.rows; ++i)
              for (int64_t c = 0; c < width; ++c)
                sum += static_cast<double>(x[i * width + c]) * t.f32("dx")[i * s.stride + c];
            return sum;
          },
      .of = {{.input = "weight", .gradient = "dweight"},
             {.input = "raw", .gradient = "dx", .width = width, .stride = width, .gradient_stride = s.stride}}};
  return result;
}

Case rope(const Heads& s, bool inverse) {
  constexpr double kTheta = 10000.0;
  constexpr int64_t kPositions = 256;
  std::vector<double> frequencies;
  for (int64_t i = 0; i < s.head_dim / 2; ++i)
    frequencies.push_back(std::pow(kTheta, -2.0 * static_cast<double>(i) / static_cast<double>(s.head_dim)));
  const auto table = std::make_shared<ops::RopeTable>(ops::make_rope_table(frequencies, kPositions));
  const auto turn = [=](Pool& pool, Tensors& t, float* x, bool back) {
    ops::rope(pool, {.rows = s.rows,
                     .heads = s.heads,
                     .head_dim = s.head_dim,
                     .positions = t.i32("positions"),
                     .cos = table->cos.data(),
                     .sin = table->sin.data(),
                     .x = x,
                     .x_stride = s.stride,
                     .inverse = back});
  };
  Case result{
      .op = "rope",
      .name = std::string("rope/") + s.what + (inverse ? ", inverse" : ""),
      .scale = s.scale,
      .parameters = head_parameters(s),
      .make =
          [s] {
            Maker make;
            return make.below("positions", {s.rows}, kPositions)
                .normal("x", {s.rows, s.stride}, 1.0f, Role::replaced)
                .normal("y", {s.rows, s.stride})
                .tensors;
          },
      .run = [=](Pool& pool, Tensors& t) { turn(pool, t, t.f32("x"), inverse); },
      .work = {.flop = 3.0 * s.rows * s.heads * s.head_dim, .bytes = floats(2.0 * s.rows * s.heads * s.head_dim)},
      .tolerance = 1e-6,
      .why = "two products a value, of sines rounded to fp32"};
  result.parameters["theta"] = kTheta;
  result.parameters["inverse"] = inverse ? 1 : 0;
  // The loss sum(x * rope(y)): its gradient with respect to y is the inverse of x, and the other way round.
  result.derivative = {.loss =
                           [=](Pool& pool, Tensors& t) {
                             LargeBuffer<float> y = t.at("y").f32;
                             turn(pool, t, y.data(), !inverse);
                             return weighted_sum(y, t.at("x"));
                           },
                       .of = {{.input = "y", .gradient = "x"}}};
  return result;
}

Case swiglu_forward(const Rows& shape) {
  const auto [what, scale, rows, ffn] = shape;
  return {.op = "swiglu_forward",
          .name = std::string("swiglu_forward/") + what,
          .scale = scale,
          .make =
              [rows = rows, ffn = ffn] {
                Maker make;
                return make.normal("gate_up", {rows, 2 * ffn}, 3.0f).output("act", {rows, ffn}).tensors;
              },
          .run =
              [rows = rows, ffn = ffn](Pool& pool, Tensors& t) {
                ops::swiglu_forward(pool,
                                    {.rows = rows, .ffn_dim = ffn, .gate_up = t.f32("gate_up"), .act = t.f32("act")});
              },
          .work = {.flop = (kExpFlop + 4) * rows * ffn, .bytes = floats(3.0 * rows * ffn)},
          .tolerance = 1e-6,
          .why = "one exponential, relative error below 4e-7"};
}

Case swiglu_backward(const Rows& shape) {
  const auto [what, scale, rows, ffn] = shape;
  return {.op = "swiglu_backward",
          .name = std::string("swiglu_backward/") + what,
          .scale = scale,
          .make =
              [rows = rows, ffn = ffn] {
                Maker make;
                return make.normal("gate_up", {rows, 2 * ffn}, 3.0f)
                    .normal("dact", {rows, ffn})
                    .output("dgate_up", {rows, 2 * ffn})
                    .tensors;
              },
          .run =
              [rows = rows, ffn = ffn](Pool& pool, Tensors& t) {
                ops::swiglu_backward(pool, {.rows = rows,
                                            .ffn_dim = ffn,
                                            .gate_up = t.f32("gate_up"),
                                            .dact = t.f32("dact"),
                                            .dgate_up = t.f32("dgate_up")});
              },
          .work = {.flop = (kExpFlop + 10) * rows * ffn, .bytes = floats(5.0 * rows * ffn)},
          .tolerance = 1e-6,
          .why = "one exponential, relative error below 4e-7",
          .derivative = {.loss =
                             [rows = rows, ffn = ffn](Pool& pool, Tensors& t) {
                               LargeBuffer<float> act(static_cast<size_t>(rows * ffn));
                               ops::swiglu_forward(
                                   pool,
                                   {.rows = rows, .ffn_dim = ffn, .gate_up = t.f32("gate_up"), .act = act.data()});
                               return weighted_sum(act, t.at("dact"));
                             },
                         .of = {{.input = "gate_up", .gradient = "dgate_up"}}}};
}

}  // namespace

void add_layer_cases(std::vector<Case>& list) {
  list.push_back(embedding_forward(kTinyRows, 23));
  list.push_back(embedding_forward(kSmallRows, 8192));
  list.push_back(embedding_backward(kTinyRows, 23, 6));
  list.push_back(embedding_backward(kSmallRows, 8192, 0));
  for (const bool with_delta : {false, true}) {
    list.push_back(rmsnorm_forward(kTinyRows, with_delta));
    list.push_back(rmsnorm_forward(kSmallRows, with_delta));
  }
  list.push_back(rmsnorm_forward(kQwenRows, true));
  for (const bool trained : {false, true}) {
    list.push_back(rmsnorm_backward(kTinyRows, trained));
    list.push_back(rmsnorm_backward(kSmallRows, trained));
  }
  list.push_back(rmsnorm_backward({"wide", Scale::tiny, 3, 77}, true));
  for (const Heads& heads : {kTinyHeads, kSmallHeads, kQwenHeads}) {
    list.push_back(head_norm_forward(heads));
    list.push_back(head_norm_backward(heads));
    list.push_back(rope(heads, false));
    list.push_back(rope(heads, true));
  }
  const int64_t small_ffn = bench::kSmallShape.ffn_dim, qwen_ffn = bench::kQwenShape.ffn_dim;
  for (const Rows& rows : {Rows{"odd", Scale::tiny, 19, 13}, Rows{"small", Scale::bench, 512, small_ffn},
                           Rows{"qwen0.5b", Scale::bench, 512, qwen_ffn}}) {
    list.push_back(swiglu_forward(rows));
    list.push_back(swiglu_backward(rows));
  }
}

}  // namespace collimate::cases
