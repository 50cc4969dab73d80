// Linear layers and adapters on the bf16 unit. Inputs are exact in bf16, so that a reference rounds only what the op
// says it rounds.
#include <memory>

#include "bench/training_case.h"
#include "cases/case.h"
#include "core/ops_bf16.h"

namespace collimate::cases {
namespace {

constexpr float kScale = 2.0f;  // of the adapters

struct Shape {
  const char* what;
  Scale scale;
  int64_t rows, in, out;
  int64_t rank = 0;
  std::vector<int64_t> columns{};  // where each adapter's begin
  int64_t width = 0;               // of an adapter's output
  // Of the backward: which rows of W are trained.
  int64_t trained_first = 0, trained_rows = 0;

  int64_t adapters() const { return static_cast<int64_t>(columns.size()); }
  double flop() const {
    return 2.0 * static_cast<double>(rows) * static_cast<double>(in * out + adapters() * rank * (in + width));
  }
  // What the backward does beside the products that the forward has too.
  double gradient_flop() const {
    return 2.0 * static_cast<double>(rows) * static_cast<double>(trained_rows * in + adapters() * rank * (in + width));
  }
  double bytes() const { return 4.0 * static_cast<double>(rows * (in + out)) + 2.0 * static_cast<double>(in * out); }
  std::map<std::string, double> parameters() const {
    std::map<std::string, double> result{{"scale", kScale}, {"adapters", static_cast<double>(adapters())}};
    result["trained_first"] = static_cast<double>(trained_first);
    for (size_t i = 0; i < columns.size(); ++i) result["column" + std::to_string(i)] = static_cast<double>(columns[i]);
    return result;
  }
  // What is a bf16 value times a trained one is not rounded: the input's gradient, and that of W.
  std::vector<Gradient> derivatives() const {
    std::vector<Gradient> result{{.input = "x", .gradient = "dx"}};
    if (trained_rows > 0) result.push_back({.input = "weight", .gradient = "dweight", .first = trained_first * in});
    return result;
  }
  double tolerance() const { return columns.empty() ? 2e-6 : 1e-3; }
  const char* why() const {
    return columns.empty() ? "fp32 rounding of one sum; products are exact"
                           : "x A rounds to bf16 after an fp32 sum here and a double one there: a few differ by 2^-8";
  }
};

std::string numbered(const char* name, size_t index) { return name + std::to_string(index); }

// The packed matrices of one case, made anew from its tensors by pack().
struct Packed {
  ops::Bf16Matrix weight{};
  std::vector<ops::Bf16Matrix> a{}, b{};
  std::vector<ops::Bf16Adapter> adapters{};

  void pack(Pool& pool, const Shape& s, Tensors& t) {
    const size_t count = s.columns.size();
    weight.pack(pool, {.values = t.f32("weight"), .out = s.out, .in = s.in});
    a.resize(count);
    b.resize(count);
    adapters.resize(count);
    for (size_t i = 0; i < count; ++i) {
      a[i].pack(pool, {.values = t.f32(numbered("a", i)), .out = s.rank, .in = s.in});
      b[i].pack(pool, {.values = t.f32(numbered("b", i)), .out = s.width, .in = s.rank, .factor = kScale});
      adapters[i] = {.a = &a[i], .b = &b[i], .column = s.columns[i], .width = s.width, .scale = kScale};
    }
  }
};

void add_weights(Maker& make, const Shape& s) {
  make.coarse("weight", {s.out, s.in});
  for (size_t i = 0; i < s.columns.size(); ++i)
    make.coarse(numbered("a", i), {s.rank, s.in}).coarse(numbered("b", i), {s.width, s.rank});
}

Case bf16_linear_forward(const Shape& s) {
  const auto packed = std::make_shared<Packed>();
  return {.op = "bf16_linear_forward",
          .name = std::string("bf16_linear_forward/") + s.what,
          .scale = s.scale,
          .parameters = s.parameters(),
          .needs_bf16_unit = true,
          .make =
              [s] {
                Maker make;
                add_weights(make, s);
                make.coarse("x", {s.rows, s.in}).output("y", {s.rows, s.out});
                for (size_t i = 0; i < s.columns.size(); ++i) make.output(numbered("xa", i), {s.rows, s.rank});
                return make.tensors;
              },
          .prepare =
              [=](Pool& pool, Tensors& t) {
                packed->pack(pool, s, t);
                for (size_t i = 0; i < s.columns.size(); ++i) packed->adapters[i].xa = t.f32(numbered("xa", i));
              },
          .run =
              [=](Pool& pool, Tensors& t) {
                ops::bf16_linear_forward(pool, {.rows = s.rows,
                                                .weight = &packed->weight,
                                                .adapters = packed->adapters,
                                                .x = t.f32("x"),
                                                .x_stride = s.in,
                                                .y = t.f32("y"),
                                                .y_stride = s.out});
              },
          .work = {.flop = s.flop(), .bytes = s.bytes(), .bf16_products = true},
          .tolerance = s.tolerance(),
          .why = s.why()};
}

Case bf16_linear_backward(const Shape& s) {
  const auto packed = std::make_shared<Packed>();
  return {.op = "bf16_linear_backward",
          .name = std::string("bf16_linear_backward/") + s.what,
          .scale = s.scale,
          .parameters = s.parameters(),
          .needs_bf16_unit = true,
          .make =
              [s] {
                Maker make;
                add_weights(make, s);
                make.coarse("x", {s.rows, s.in}).coarse("dy", {s.rows, s.out}).output("dx", {s.rows, s.in});
                if (s.adapters() > 0) make.output("dxa", {s.adapters(), s.rows, s.rank});
                for (size_t i = 0; i < s.columns.size(); ++i)
                  make.coarse(numbered("xa", i), {s.rows, s.rank})
                      .normal(numbered("da", i), {s.rank, s.in}, 1.0f, Role::accumulated)
                      .normal(numbered("db", i), {s.width, s.rank}, 1.0f, Role::accumulated);
                if (s.trained_rows > 0) make.normal("dweight", {s.trained_rows, s.in}, 1.0f, Role::accumulated);
                return make.tensors;
              },
          .prepare =
              [=](Pool& pool, Tensors& t) {
                packed->pack(pool, s, t);
                for (size_t i = 0; i < s.columns.size(); ++i) {
                  packed->adapters[i].xa = t.f32(numbered("xa", i));
                  packed->adapters[i].da = t.f32(numbered("da", i));
                  packed->adapters[i].db = t.f32(numbered("db", i));
                }
              },
          .run =
              [=](Pool& pool, Tensors& t) {
                ops::bf16_linear_backward(pool, {.rows = s.rows,
                                                 .weight = &packed->weight,
                                                 .adapters = packed->adapters,
                                                 .dy = t.f32("dy"),
                                                 .dy_stride = s.out,
                                                 .dx = t.f32("dx"),
                                                 .dx_stride = s.in,
                                                 .dxa = s.adapters() > 0 ? t.f32("dxa") : nullptr,
                                                 .x = t.f32("x"),
                                                 .x_stride = s.in,
                                                 .dweight = s.trained_rows > 0 ? t.f32("dweight") : nullptr,
                                                 .dweight_first = s.trained_first,
                                                 .dweight_rows = s.trained_rows});
              },
          .work = {.flop = s.flop() + s.gradient_flop(), .bytes = s.bytes(), .bf16_products = true},
          .tolerance = s.columns.empty() ? s.tolerance() : 5e-3,
          .why = s.columns.empty() ? s.why() : "on a device the product with dy B has that in bf16: 2^-9 a term",
          // A step that keeps x exact in bf16; with adapters x A is rounded on the way.
          .derivative = {.loss =
                             [=](Pool& pool, Tensors& t) {
                               LargeBuffer<float> y(static_cast<size_t>(s.rows * s.out)),
                                   xa(static_cast<size_t>(s.rows * s.rank));
                               Packed own;
                               own.pack(pool, s, t);
                               for (ops::Bf16Adapter& adapter : own.adapters) adapter.xa = xa.data();
                               ops::bf16_linear_forward(pool, {.rows = s.rows,
                                                               .weight = &own.weight,
                                                               .adapters = own.adapters,
                                                               .x = t.f32("x"),
                                                               .x_stride = s.in,
                                                               .y = y.data(),
                                                               .y_stride = s.out});
                               return weighted_sum(y, t.at("dy"));
                             },
                         .of = s.derivatives(),
                         .step = 0.5f,
                         .tolerance = s.columns.empty() ? 1e-5 : 3e-2}};
}

}  // namespace

void add_bf16_cases(std::vector<Case>& list) {
  const int64_t dim = bench::kSmallShape.dim, ffn = bench::kSmallShape.ffn_dim;
  const int64_t qwen_dim = bench::kQwenShape.dim, qwen_ffn = bench::kQwenShape.ffn_dim;
  // An adapter on a panel of 32 columns, and one that begins inside one.
  for (const Shape& shape :
       {Shape{.what = "odd",
              .scale = Scale::tiny,
              .rows = 17,
              .in = 35,
              .out = 33,
              .trained_first = 3,
              .trained_rows = 30},
        Shape{.what = "adapters",
              .scale = Scale::tiny,
              .rows = 17,
              .in = 18,
              .out = 36,
              .rank = 3,
              .columns = {32, 5},
              .width = 4},
        // Sums over rows in two blocks.
        Shape{.what = "many rows",
              .scale = Scale::tiny,
              .rows = 600,
              .in = 8,
              .out = 16,
              .rank = 2,
              .columns = {0, 8},
              .width = 8,
              .trained_rows = 16},
        Shape{"small, gate and up with adapters", Scale::bench, 512, dim, 2 * ffn, 16, {0, ffn}, ffn},
        Shape{"small, down with an adapter", Scale::bench, 512, ffn, dim, 16, {0}, dim},
        Shape{"qwen0.5b, down with an adapter", Scale::bench, 512, qwen_ffn, qwen_dim, 16, {0}, qwen_dim}}) {
    list.push_back(bf16_linear_forward(shape));
    list.push_back(bf16_linear_backward(shape));
  }
}

}  // namespace collimate::cases
