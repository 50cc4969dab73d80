// Linear layers, biases and low-rank adapters, in fp32.
#include "bench/training_case.h"
#include "cases/case.h"
#include "core/ops.h"

namespace collimate::cases {
namespace {

constexpr const char* kWhy = "fp32 rounding of one sum";

// x and y may be columns of wider matrices.
struct Shape {
  const char* what;
  Scale scale;
  int64_t rows, in, out;
  int64_t x_more = 0, y_more = 0;  // columns beside them
  int64_t x_stride() const { return in + x_more; }
  int64_t y_stride() const { return out + y_more; }
  double products() const { return 2.0 * static_cast<double>(rows * in * out); }
};

void forward(Pool& pool, const Shape& s, Tensors& t, float* y) {
  ops::linear_forward(pool, {.rows = s.rows,
                             .in = s.in,
                             .out = s.out,
                             .x = t.f32("x"),
                             .x_stride = s.x_stride(),
                             .weight = t.f32("weight"),
                             .y = y,
                             .y_stride = s.y_stride()});
}

Case linear_forward(const Shape& s) {
  return {.op = "linear_forward",
          .name = std::string("linear_forward/") + s.what,
          .scale = s.scale,
          .make =
              [s] {
                Maker make;
                return make.normal("x", {s.rows, s.x_stride()})
                    .normal("weight", {s.out, s.in})
                    .normal("y", {s.rows, s.y_stride()}, 1.0f, Role::replaced)
                    .tensors;
              },
          .run = [s](Pool& pool, Tensors& t) { forward(pool, s, t, t.f32("y")); },
          .work = {.flop = s.products(), .bytes = 4.0 * static_cast<double>(s.rows * (s.in + s.out) + s.in * s.out)},
          .tolerance = 2e-6,
          .why = kWhy};
}

enum class Weight { frozen, trained };
enum class Input { overwritten, accumulated };

Case linear_backward(const Shape& s, Weight weight, Input input) {
  const bool trained = weight == Weight::trained, adds = input == Input::accumulated;
  Case result{
      .op = "linear_backward",
      .name = std::string("linear_backward/") + s.what + (trained ? ", trained" : ", frozen") +
              (adds ? ", accumulates" : ""),
      .scale = s.scale,
      .parameters = {{"accumulate_dx", adds ? 1.0 : 0.0}},
      .make =
          [=] {
            Maker make;
            make.normal("x", {s.rows, s.x_stride()}).normal("weight", {s.out, s.in});
            make.normal("dy", {s.rows, s.y_stride()});
            make.normal("dx", {s.rows, s.x_stride()}, 1.0f, adds ? Role::accumulated : Role::replaced);
            if (trained) make.normal("dweight", {s.out, s.in}, 1.0f, Role::accumulated);
            return make.tensors;
          },
      .run =
          [=](Pool& pool, Tensors& t) {
            ops::linear_backward(pool, {.rows = s.rows,
                                        .in = s.in,
                                        .out = s.out,
                                        .x = trained ? t.f32("x") : nullptr,
                                        .x_stride = s.x_stride(),
                                        .weight = t.f32("weight"),
                                        .dy = t.f32("dy"),
                                        .dy_stride = s.y_stride(),
                                        .dx = t.f32("dx"),
                                        .dx_stride = s.x_stride(),
                                        .accumulate_dx = adds,
                                        .dweight = trained ? t.f32("dweight") : nullptr});
          },
      .work = {.flop = (trained ? 2 : 1) * s.products(),
               .bytes = 4.0 * static_cast<double>((trained ? 2 : 1) * (s.rows * (s.in + s.out) + s.in * s.out))},
      .tolerance = 2e-6,
      .why = kWhy};
  result.derivative = {
      .loss =
          [s](Pool& pool, Tensors& t) {
            LargeBuffer<float> y(static_cast<size_t>(s.rows * s.y_stride()));
            std::fill(y.begin(), y.end(), 0.0f);
            forward(pool, s, t, y.data());
            return weighted_sum(y, t.at("dy"));
          },
      .of = {{.input = "x", .gradient = "dx", .width = s.in, .stride = s.x_stride(), .gradient_stride = s.x_stride()}}};
  if (trained) result.derivative.of.push_back({.input = "weight", .gradient = "dweight"});
  return result;
}

void add_lora(Pool& pool, const Shape& s, int64_t rank, Tensors& t, float* xa, float* y) {
  ops::lora_forward(pool, {.rows = s.rows,
                           .in = s.in,
                           .out = s.out,
                           .rank = rank,
                           .scale = 2.0f,
                           .x = t.f32("x"),
                           .x_stride = s.x_stride(),
                           .a = t.f32("a"),
                           .b = t.f32("b"),
                           .xa = xa,
                           .y = y,
                           .y_stride = s.y_stride()});
}

Case lora_forward(const Shape& s, int64_t rank) {
  return {.op = "lora_forward",
          .name = std::string("lora_forward/") + s.what,
          .scale = s.scale,
          .parameters = {{"scale", 2.0}},
          .make =
              [=] {
                Maker make;
                return make.normal("x", {s.rows, s.x_stride()})
                    .normal("a", {rank, s.in})
                    .normal("b", {s.out, rank})
                    .output("xa", {s.rows, rank})
                    .normal("y", {s.rows, s.y_stride()}, 1.0f, Role::accumulated)
                    .tensors;
              },
          .run = [=](Pool& pool, Tensors& t) { add_lora(pool, s, rank, t, t.f32("xa"), t.f32("y")); },
          .work = {.flop = 2.0 * static_cast<double>(s.rows * rank * (s.in + s.out)),
                   .bytes = 4.0 * static_cast<double>(s.rows * (s.in + 2 * s.out))},
          .tolerance = 2e-6,
          .why = kWhy};
}

Case lora_backward(const Shape& s, int64_t rank) {
  return {
      .op = "lora_backward",
      .name = std::string("lora_backward/") + s.what,
      .scale = s.scale,
      .parameters = {{"scale", 2.0}},
      .make =
          [=] {
            Maker make;
            make.normal("x", {s.rows, s.x_stride()}).normal("a", {rank, s.in}).normal("b", {s.out, rank});
            make.normal("dy", {s.rows, s.y_stride()}).normal("xa", {s.rows, rank});
            make.output("dxa", {s.rows, rank}, Role::scratch);
            make.normal("dx", {s.rows, s.x_stride()}, 1.0f, Role::accumulated);
            make.normal("da", {rank, s.in}, 1.0f, Role::accumulated);
            make.normal("db", {s.out, rank}, 1.0f, Role::accumulated);
            Pool pool(1);
            LargeBuffer<float> y(static_cast<size_t>(s.rows * s.y_stride()));
            add_lora(pool, s, rank, make.tensors, make.tensors.f32("xa"), y.data());
            return make.tensors;
          },
      .run =
          [=](Pool& pool, Tensors& t) {
            ops::lora_backward(pool, {.rows = s.rows,
                                      .in = s.in,
                                      .out = s.out,
                                      .rank = rank,
                                      .scale = 2.0f,
                                      .x = t.f32("x"),
                                      .x_stride = s.x_stride(),
                                      .a = t.f32("a"),
                                      .b = t.f32("b"),
                                      .xa = t.f32("xa"),
                                      .dy = t.f32("dy"),
                                      .dy_stride = s.y_stride(),
                                      .dxa = t.f32("dxa"),
                                      .dx = t.f32("dx"),
                                      .dx_stride = s.x_stride(),
                                      .da = t.f32("da"),
                                      .db = t.f32("db")});
          },
      .work = {.flop = 4.0 * static_cast<double>(s.rows * rank * (s.in + s.out)),
               .bytes = 4.0 * static_cast<double>(s.rows * (3 * s.in + s.out))},
      .tolerance = 2e-6,
      .why = kWhy,
      .derivative =
          {.loss =
               [=](Pool& pool, Tensors& t) {
                 LargeBuffer<float> y(static_cast<size_t>(s.rows * s.y_stride())),
                     xa(static_cast<size_t>(s.rows * rank));
                 std::fill(y.begin(), y.end(), 0.0f);
                 add_lora(pool, s, rank, t, xa.data(), y.data());
                 return weighted_sum(y, t.at("dy"));
               },
           .of = {
               {.input = "x", .gradient = "dx", .width = s.in, .stride = s.x_stride(), .gradient_stride = s.x_stride()},
               {.input = "a", .gradient = "da"},
               {.input = "b", .gradient = "db"}}}};
}

Case lora_gradient(const Shape& s, int64_t rank) {
  return {.op = "lora_gradient",
          .name = std::string("lora_gradient/") + s.what,
          .scale = s.scale,
          .parameters = {{"scale", 2.0}},
          .make =
              [=] {
                Maker make;
                make.normal("x", {s.rows, s.x_stride()}).normal("xa", {s.rows, rank});
                make.normal("dy", {s.rows, s.y_stride()}).normal("dxa", {s.rows, rank});
                make.normal("da", {rank, s.in}, 1.0f, Role::accumulated);
                make.normal("db", {s.out, rank}, 1.0f, Role::accumulated);
                return make.tensors;
              },
          .run =
              [=](Pool& pool, Tensors& t) {
                ops::lora_gradient(pool, {.rows = s.rows,
                                          .in = s.in,
                                          .out = s.out,
                                          .rank = rank,
                                          .scale = 2.0f,
                                          .x = t.f32("x"),
                                          .x_stride = s.x_stride(),
                                          .xa = t.f32("xa"),
                                          .dy = t.f32("dy"),
                                          .dy_stride = s.y_stride(),
                                          .dxa = t.f32("dxa"),
                                          .da = t.f32("da"),
                                          .db = t.f32("db")});
              },
          .work = {.flop = 2.0 * static_cast<double>(s.rows * rank * (s.in + s.out)),
                   .bytes = 4.0 * static_cast<double>(s.rows * (s.in + s.out))},
          .tolerance = 2e-6,
          .why = kWhy};
}

Case add_bias(const Shape& s) {
  return {.op = "add_bias",
          .name = std::string("add_bias/") + s.what,
          .scale = s.scale,
          .make =
              [s] {
                Maker make;
                return make.normal("bias", {s.out}).normal("y", {s.rows, s.out}, 1.0f, Role::accumulated).tensors;
              },
          .run =
              [s](Pool& pool, Tensors& t) {
                ops::add_bias(pool, {.rows = s.rows, .width = s.out, .bias = t.f32("bias"), .y = t.f32("y")});
              },
          .work = {.flop = static_cast<double>(s.rows * s.out), .bytes = 8.0 * static_cast<double>(s.rows * s.out)},
          .tolerance = 1e-7,
          .why = "one addition"};
}

Case bias_backward(const Shape& s) {
  return {.op = "bias_backward",
          .name = std::string("bias_backward/") + s.what,
          .scale = s.scale,
          .make =
              [s] {
                Maker make;
                return make.normal("bias", {s.out})
                    .normal("dy", {s.rows, s.out})
                    .normal("dbias", {s.out}, 1.0f, Role::accumulated)
                    .tensors;
              },
          .run =
              [s](Pool& pool, Tensors& t) {
                ops::bias_backward(pool, {.rows = s.rows, .width = s.out, .dy = t.f32("dy"), .dbias = t.f32("dbias")});
              },
          .work = {.flop = static_cast<double>(s.rows * s.out), .bytes = 4.0 * static_cast<double>(s.rows * s.out)},
          .tolerance = 2e-6,
          .why = kWhy,
          .derivative = {.loss =
                             [s](Pool& pool, Tensors& t) {
                               LargeBuffer<float> y(static_cast<size_t>(s.rows * s.out));
                               std::fill(y.begin(), y.end(), 0.0f);
                               ops::add_bias(pool,
                                             {.rows = s.rows, .width = s.out, .bias = t.f32("bias"), .y = y.data()});
                               return weighted_sum(y, t.at("dy"));
                             },
                         .of = {{.input = "bias", .gradient = "dbias"}}}};
}

}  // namespace

void add_linear_cases(std::vector<Case>& list) {
  const int64_t dim = bench::kSmallShape.dim, ffn = bench::kSmallShape.ffn_dim;
  const Shape odd{"odd", Scale::tiny, 19, 11, 9}, strided{"strided", Scale::tiny, 7, 6, 5, 3, 4};
  const Shape up{"small, gate and up", Scale::bench, 512, dim, 2 * ffn},
      down{"small, down", Scale::bench, 512, ffn, dim};
  const Shape qwen{"qwen0.5b, down", Scale::bench, 512, bench::kQwenShape.ffn_dim, bench::kQwenShape.dim};
  for (const Shape& shape : {odd, strided, up, down, qwen}) {
    list.push_back(linear_forward(shape));
    list.push_back(linear_backward(shape, Weight::frozen, Input::accumulated));
    list.push_back(linear_backward(shape, Weight::trained, Input::overwritten));
  }
  for (const Shape& shape : {odd, strided}) list.push_back(lora_forward(shape, 3));
  for (const Shape& shape : {odd, strided}) list.push_back(lora_backward(shape, 3));
  list.push_back(lora_gradient(strided, 3));
  list.push_back(lora_gradient({"beyond one tile of rows and of columns", Scale::tiny, 70, 67, 5, 2, 1}, 6));
  for (const Shape& shape : {up, down, qwen}) {
    list.push_back(lora_forward(shape, 16));
    list.push_back(lora_backward(shape, 16));
    list.push_back(lora_gradient(shape, 16));
  }
  for (const Shape& shape : {Shape{"odd, three blocks of rows", Scale::tiny, 131, 0, 5},
                             Shape{"qwen0.5b, q, k and v", Scale::bench, 512, 0, 18 * 64}}) {
    list.push_back(add_bias(shape));
    list.push_back(bias_backward(shape));
  }
}

}  // namespace collimate::cases
