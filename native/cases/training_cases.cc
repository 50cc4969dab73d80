// Cross-entropy, moves of rows, dropout, sum of squares, AdamW.
#include <algorithm>
#include <cmath>

#include "bench/training_case.h"
#include "cases/case.h"
#include "core/ops.h"

namespace collimate::cases {
namespace {

Case cross_entropy(const char* what, Scale scale, int64_t rows, int64_t vocabulary) {
  constexpr float kScale = 0.5f;
  const double size = static_cast<double>(rows * vocabulary);
  const auto run = [=](Pool& pool, Tensors& t, float* logits, double* losses) {
    ops::cross_entropy(pool, {.rows = rows,
                              .vocabulary = vocabulary,
                              .logits = logits,
                              .targets = t.i32("targets"),
                              .scale = kScale,
                              .losses = losses});
  };
  return {.op = "cross_entropy",
          .name = std::string("cross_entropy/") + what,
          .scale = scale,
          .parameters = {{"scale", kScale}},
          .make =
              [=] {
                Maker make;
                return make.normal("logits", {rows, vocabulary}, 4.0f, Role::replaced)
                    .below("targets", {rows}, static_cast<int32_t>(vocabulary))
                    .double_output("losses", rows)
                    .tensors;
              },
          .run = [=](Pool& pool, Tensors& t) { run(pool, t, t.f32("logits"), t.f64("losses")); },
          .work = {.flop = (kExpFlop + 4) * size, .bytes = 8.0 * size},
          .tolerance = 1e-6,
          .why = "exponentials in fp32, the logarithm in double",
          .derivative = {.loss =
                             [=](Pool& pool, Tensors& t) {
                               LargeBuffer<float> logits = t.at("logits").f32;
                               std::vector<double> losses(static_cast<size_t>(rows));
                               run(pool, t, logits.data(), losses.data());
                               double total = 0.0;
                               for (const double loss : losses) total += loss;
                               return static_cast<double>(kScale) * total;
                             },
                         .of = {{.input = "logits", .gradient = "logits"}}}};
}

struct Move {
  const char* what;
  Scale scale;
  int64_t rows, of, dim;  // `rows` different ones of `of`
};

Case gather_rows(const Move& s) {
  return {.op = "gather_rows",
          .name = std::string("gather_rows/") + s.what,
          .scale = s.scale,
          .make =
              [s] {
                Maker make;
                return make.distinct("index", s.rows, s.of)
                    .normal("from", {s.of, s.dim})
                    .output("to", {s.rows, s.dim})
                    .tensors;
              },
          .run =
              [s](Pool& pool, Tensors& t) {
                ops::gather_rows(
                    pool,
                    {.rows = s.rows, .dim = s.dim, .index = t.i32("index"), .from = t.f32("from"), .to = t.f32("to")});
              },
          .work = {.bytes = 8.0 * static_cast<double>(s.rows * s.dim)},
          .tolerance = 0,
          .why = "values are copied"};
}

// The gradient of a gather into rows that were zero.
Case scatter_rows(const Move& s) {
  return {.op = "scatter_rows",
          .name = std::string("scatter_rows/") + s.what,
          .scale = s.scale,
          .make =
              [s] {
                Maker make;
                make.distinct("index", s.rows, s.of).normal("gathered_from", {s.of, s.dim});
                make.normal("from", {s.rows, s.dim}).normal("to", {s.of, s.dim}, 0.0f, Role::replaced);
                return make.tensors;
              },
          .run =
              [s](Pool& pool, Tensors& t) {
                ops::scatter_rows(
                    pool,
                    {.rows = s.rows, .dim = s.dim, .index = t.i32("index"), .from = t.f32("from"), .to = t.f32("to")});
              },
          .work = {.bytes = 8.0 * static_cast<double>(s.rows * s.dim)},
          .tolerance = 0,
          .why = "values are copied",
          .derivative = {.loss =
                             [s](Pool& pool, Tensors& t) {
                               LargeBuffer<float> gathered(static_cast<size_t>(s.rows * s.dim));
                               ops::gather_rows(pool, {.rows = s.rows,
                                                       .dim = s.dim,
                                                       .index = t.i32("index"),
                                                       .from = t.f32("gathered_from"),
                                                       .to = gathered.data()});
                               return weighted_sum(gathered, t.at("from"));
                             },
                         .of = {{.input = "gathered_from", .gradient = "to"}}}};
}

// Every third row goes nowhere; the others keep their order, from the last row of `to` down.
Case copy_rows(const Move& s) {
  const int64_t from_stride = s.dim + 3, to_stride = s.dim + 1;
  return {.op = "copy_rows",
          .name = std::string("copy_rows/") + s.what,
          .scale = s.scale,
          .parameters = {{"dim", static_cast<double>(s.dim)}},
          .make =
              [=] {
                std::vector<int32_t> to_row;
                for (int64_t i = 0; i < s.rows; ++i)
                  to_row.push_back(i % 3 == 2 ? -1 : static_cast<int32_t>(s.of - 1 - i));
                Maker make;
                make.integers("to_row", to_row).normal("from", {s.rows, from_stride});
                return make.normal("to", {s.of, to_stride}, 1.0f, Role::replaced).tensors;
              },
          .run =
              [=](Pool& pool, Tensors& t) {
                ops::copy_rows(pool, {.rows = s.rows,
                                      .dim = s.dim,
                                      .from = t.f32("from"),
                                      .from_stride = from_stride,
                                      .to_row = t.i32("to_row"),
                                      .to = t.f32("to"),
                                      .to_stride = to_stride});
              },
          .work = {.bytes = 8.0 * static_cast<double>(s.rows * s.dim)},
          .tolerance = 0,
          .why = "values are copied"};
}

Case add_rows(const Move& s) {
  return {.op = "add_rows",
          .name = std::string("add_rows/") + s.what,
          .scale = s.scale,
          .make =
              [=] {
                std::vector<int32_t> left_out;
                for (int64_t i = 0; i < s.rows; ++i) left_out.push_back(i % 4 == 1 ? 1 : 0);
                Maker make;
                make.integers("left_out", left_out).normal("from", {s.rows, s.dim});
                return make.normal("to", {s.rows, s.dim}, 1.0f, Role::replaced).tensors;
              },
          .run =
              [=](Pool& pool, Tensors& t) {
                ops::add_rows(pool, {.rows = s.rows,
                                     .dim = s.dim,
                                     .left_out = t.i32("left_out"),
                                     .from = t.f32("from"),
                                     .to = t.f32("to")});
              },
          .work = {.flop = static_cast<double>(s.rows * s.dim), .bytes = 12.0 * static_cast<double>(s.rows * s.dim)},
          .tolerance = 1e-7,
          .why = "one addition"};
}

Case dropout(const char* what, Scale scale, int64_t elements) {
  constexpr float kProbability = 0.3f;
  constexpr RandomStream kStream{.seed = 11, .site = RandomSite::dropout, .stream = 5};
  const auto drop = [=](Pool& pool, float* x) {
    ops::dropout(pool, {.elements = elements, .probability = kProbability, .stream = kStream, .x = x});
  };
  return {.op = "dropout",
          .name = std::string("dropout/") + what,
          .scale = scale,
          .parameters = {{"probability", 0.3},
                         {"seed", static_cast<double>(kStream.seed)},
                         {"site", static_cast<double>(kStream.site)},
                         {"stream", static_cast<double>(kStream.stream)}},
          .make =
              [=] {
                Maker make;
                return make.normal("x", {elements}, 1.0f, Role::replaced).normal("y", {elements}).tensors;
              },
          .run = [=](Pool& pool, Tensors& t) { drop(pool, t.f32("x")); },
          .work = {.flop = static_cast<double>(elements), .bytes = 8.0 * static_cast<double>(elements)},
          .tolerance = 2e-7,
          .why = "one product with a rounded factor",
          // The loss sum(x * dropout(y)) has the gradient dropout(x).
          .derivative = {.loss =
                             [=](Pool& pool, Tensors& t) {
                               LargeBuffer<float> y = t.at("y").f32;
                               drop(pool, y.data());
                               return weighted_sum(y, t.at("x"));
                             },
                         .of = {{.input = "y", .gradient = "x"}}}};
}

Case sum_squares(const char* what, Scale scale, int64_t elements) {
  return {
      .op = "sum_squares",
      .name = std::string("sum_squares/") + what,
      .scale = scale,
      .make =
          [=] {
            Maker make;
            return make.normal("x", {elements}).double_output("sum", 1).tensors;
          },
      .run = [=](Pool& pool,
                 Tensors& t) { *t.f64("sum") = ops::sum_squares(pool, {t.f32("x"), static_cast<size_t>(elements)}); },
      .work = {.flop = 2.0 * static_cast<double>(elements), .bytes = 4.0 * static_cast<double>(elements)},
      .tolerance = 1e-13,
      .why = "double precision throughout"};
}

// Update number `step` of parameters whose moments are those of earlier ones.
Case adamw(const char* what, Scale scale, int64_t elements, int step) {
  const std::map<std::string, double> parameters{
      {"learning_rate", 0.01}, {"beta1", 0.9},          {"beta2", 0.95}, {"epsilon", 1e-8},
      {"weight_decay", 0.1},   {"gradient_scale", 0.5}, {"step", step}};
  const auto at = [=](const char* name) { return static_cast<float>(parameters.at(name)); };
  const ops::AdamW options{.elements = elements,
                           .gradient_scale = at("gradient_scale"),
                           .learning_rate = at("learning_rate"),
                           .beta1 = at("beta1"),
                           .beta2 = at("beta2"),
                           .epsilon = at("epsilon"),
                           .weight_decay = at("weight_decay"),
                           .bias_correction1 = static_cast<float>(1 - std::pow(0.9, step)),
                           .bias_correction2 = static_cast<float>(1 - std::pow(0.95, step))};
  return {.op = "adamw",
          .name = std::string("adamw/") + what,
          .scale = scale,
          .parameters = parameters,
          .make =
              [=] {
                Maker make;
                return make.normal("parameter", {elements}, 1.0f, Role::replaced)
                    .normal("gradient", {elements})
                    .normal("first_moment", {elements}, step > 1 ? 1.0f : 0.0f, Role::replaced)
                    .uniform("second_moment", {elements}, step > 1 ? 1.0f : 0.0f, Role::replaced)
                    .tensors;
              },
          .run =
              [=](Pool& pool, Tensors& t) {
                ops::AdamW args = options;
                args.parameter = t.f32("parameter");
                args.first_moment = t.f32("first_moment");
                args.second_moment = t.f32("second_moment");
                args.gradient = t.f32("gradient");
                ops::adamw(pool, args);
              },
          .work = {.flop = 15.0 * static_cast<double>(elements), .bytes = 28.0 * static_cast<double>(elements)},
          .tolerance = 1e-6,
          .why = "options are rounded to fp32: 0.95 and 0.9 by up to 3e-8, 1 - beta2 by 1e-6 of itself"};
}

}  // namespace

void add_training_cases(std::vector<Case>& list) {
  list.push_back(cross_entropy("odd", Scale::tiny, 18, 37));
  list.push_back(cross_entropy("small", Scale::bench, 512, 8192));
  list.push_back(cross_entropy("qwen0.5b", Scale::bench, 20, 151936));
  const int64_t dim = bench::kSmallShape.dim;
  for (const Move& move : {Move{"odd", Scale::tiny, 9, 23, 5}, Move{"small, answers", Scale::bench, 300, 512, dim}}) {
    list.push_back(gather_rows(move));
    list.push_back(scatter_rows(move));
    list.push_back(copy_rows(move));
    list.push_back(add_rows(move));
  }
  list.push_back(dropout("odd", Scale::tiny, 103));
  list.push_back(dropout("small", Scale::bench, 512 * dim));
  list.push_back(sum_squares("odd", Scale::tiny, 103));
  list.push_back(sum_squares("a part of the scratch gradient", Scale::bench, 2'000'000));
  list.push_back(adamw("first step", Scale::tiny, 101, 1));
  list.push_back(adamw("third step", Scale::tiny, 101, 3));
  list.push_back(adamw("a part of the scratch parameters", Scale::bench, 2'000'000, 3));
}

}  // namespace collimate::cases
