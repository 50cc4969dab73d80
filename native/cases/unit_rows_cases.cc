// Rows scaled to one length.
#include <algorithm>

#include "bench/training_case.h"
#include "cases/case.h"
#include "core/ops.h"

namespace collimate::cases {
namespace {

constexpr float kLength = 3.5f;
constexpr const char* kOneRow = "fp32 rounding of sums over one row";

struct Shape {
  const char* what;
  Scale scale;
  int64_t rows, dim;
};

double elements(const Shape& s) { return static_cast<double>(s.rows * s.dim); }

void forward(Pool& pool, const Shape& s, const float* x, float* y, float* inverse_length) {
  ops::unit_rows_forward(
      pool, {.rows = s.rows, .dim = s.dim, .length = kLength, .x = x, .y = y, .inverse_length = inverse_length});
}

Case unit_rows_forward(const Shape& s) {
  return {.op = "unit_rows_forward",
          .name = std::string("unit_rows_forward/") + s.what,
          .scale = s.scale,
          .parameters = {{"length", kLength}},
          .make =
              [s] {
                Maker make;
                make.normal("x", {s.rows, s.dim}).output("y", {s.rows, s.dim}).output("inverse_length", {s.rows});
                std::fill_n(make.tensors.f32("x"), s.dim, 0.0f);  // a row without direction
                return make.tensors;
              },
          .run = [s](Pool& pool, Tensors& t) { forward(pool, s, t.f32("x"), t.f32("y"), t.f32("inverse_length")); },
          .work = {.flop = 3.0 * elements(s), .bytes = 8.0 * elements(s)},
          .tolerance = 1e-6,
          .why = kOneRow};
}

Case unit_rows_backward(const Shape& s) {
  return {.op = "unit_rows_backward",
          .name = std::string("unit_rows_backward/") + s.what,
          .scale = s.scale,
          .parameters = {{"length", kLength}},
          .make =
              [s] {
                Maker make;
                make.normal("x", {s.rows, s.dim}).normal("y", {s.rows, s.dim}).normal("inverse_length", {s.rows});
                make.normal("dy", {s.rows, s.dim}).output("dx", {s.rows, s.dim});
                Pool pool(1);
                Tensors& t = make.tensors;
                forward(pool, s, t.f32("x"), t.f32("y"), t.f32("inverse_length"));
                return make.tensors;
              },
          .run =
              [s](Pool& pool, Tensors& t) {
                ops::unit_rows_backward(pool, {.rows = s.rows,
                                               .dim = s.dim,
                                               .length = kLength,
                                               .y = t.f32("y"),
                                               .inverse_length = t.f32("inverse_length"),
                                               .dy = t.f32("dy"),
                                               .dx = t.f32("dx")});
              },
          .work = {.flop = 6.0 * elements(s), .bytes = 12.0 * elements(s)},
          .tolerance = 5e-6,
          .why = kOneRow,
          .derivative = {.loss =
                             [s](Pool& pool, Tensors& t) {
                               LargeBuffer<float> y(static_cast<size_t>(s.rows * s.dim));
                               LargeBuffer<float> inverse_length(static_cast<size_t>(s.rows));
                               forward(pool, s, t.f32("x"), y.data(), inverse_length.data());
                               return weighted_sum(y, t.at("dy"));
                             },
                         .of = {{.input = "x", .gradient = "dx"}}}};
}

}  // namespace

void add_unit_rows_cases(std::vector<Case>& list) {
  for (const Shape& shape :
       {Shape{"odd", Scale::tiny, 65, 7}, Shape{"small", Scale::bench, 512, bench::kSmallShape.dim}}) {
    list.push_back(unit_rows_forward(shape));
    list.push_back(unit_rows_backward(shape));
  }
}

}  // namespace collimate::cases
