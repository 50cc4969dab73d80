// Rows that ops leave in bf16 for the products after them: the values are those that rounding the fp32 results gives,
// and products read them as they read what they round themselves.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "core/ops_backend.h"
#include "core/philox.h"
#include "cuda/ops_backend.h"
#include "test/environment_variable.h"

namespace collimate {
namespace {

uint16_t rounded(float value) {
  uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
float widened(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float value = 0.0f;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// The real library may choose another algorithm where rows are further apart; the stand-in has one.
#ifdef COLLIMATE_CUDA_EMULATED
const std::vector<const char*> kLibraries{"off", COLLIMATE_CUBLASLT_STAND_IN};
#else
const std::vector<const char*> kLibraries{"off"};
#endif

constexpr uint16_t kNan = 0x7fc0;  // what nothing may read

class OnDevice {
 public:
  explicit OnDevice(OpsBackend& backend) : backend_(backend) {}

  BackendArray<float> normal(int64_t count, float factor = 1.0f) {
    std::vector<float> values(static_cast<size_t>(count));
    const RandomStream stream{.seed = 5, .site = RandomSite::test, .stream = ++arrays_};
    for (size_t i = 0; i < values.size(); ++i) values[i] = factor * random_normal(stream, i);
    return placed(values);
  }
  // Values that bf16 holds.
  std::vector<float> exact(int64_t count) {
    std::vector<float> values(static_cast<size_t>(count));
    const RandomStream stream{.seed = 6, .site = RandomSite::test, .stream = ++arrays_};
    for (size_t i = 0; i < values.size(); ++i) values[i] = widened(rounded(random_normal(stream, i)));
    return values;
  }
  template <typename T>
  BackendArray<T> placed(const std::vector<T>& values) {
    BackendArray<T> there(backend_, static_cast<int64_t>(values.size()));
    there.upload(values);
    return there;
  }
  template <typename T>
  std::vector<T> back(const BackendArray<T>& there) {
    std::vector<T> values(static_cast<size_t>(there.size()));
    there.download(values);
    return values;
  }
  // [rows, stride] of `values` [rows, width], NaN beside them.
  BackendArray<uint16_t> rows_of(const std::vector<float>& values, int64_t width, int64_t stride) {
    const int64_t rows = static_cast<int64_t>(values.size()) / width;
    std::vector<uint16_t> result(static_cast<size_t>(rows * stride), kNan);
    for (int64_t i = 0; i < rows * width; ++i)
      result[static_cast<size_t>(i / width * stride + i % width)] = rounded(values[static_cast<size_t>(i)]);
    return placed(result);
  }

 private:
  OpsBackend& backend_;
  uint64_t arrays_ = 0;
};

// `narrow` [rows, stride] holds `wide` [rows, width] rounded, and nothing was written beside it.
void check_rounded(const std::vector<uint16_t>& narrow, int64_t stride, const std::vector<float>& wide, int64_t width) {
  int wrong = 0;
  for (size_t i = 0; i < narrow.size(); ++i) {
    const auto row = static_cast<int64_t>(i) / stride, column = static_cast<int64_t>(i) % stride;
    const uint16_t expected = column < width ? rounded(wide[static_cast<size_t>(row * width + column)]) : kNan;
    if (narrow[i] != expected) ++wrong;
  }
  CHECK(wrong == 0);
}

// Each within `tolerance` of the largest.
void check_near(const std::vector<float>& got, const std::vector<float>& expected, double tolerance) {
  double largest = 0.0, apart = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    largest = std::max(largest, std::fabs(static_cast<double>(expected[i])));
    const double difference = std::fabs(static_cast<double>(got[i]) - static_cast<double>(expected[i]));
    apart = difference <= apart ? apart : difference;  // NaN stays
  }
  CHECK(apart <= tolerance * largest);
}

constexpr int64_t kRows = 21;

struct Adapters {
  std::vector<int64_t> ranks;  // of parts of equal width, side by side
};

struct Results {
  std::vector<float> y, dx, xa, dxa, da, db, dweight;
};

enum class Form { fp32, operands_bf16, all_bf16 };

// One forward and backward of a layer, its operands given in fp32 or in bf16, and so its results.
Results run_layer(OpsBackend& backend, const Adapters& of, bool fp8, Form form) {
  const bool narrow = form != Form::fp32;
  OnDevice t(backend);
  constexpr int64_t kIn = 24, kOut = 40;
  const auto parts = static_cast<int64_t>(of.ranks.size());
  int64_t room = 0;
  for (const int64_t rank : of.ranks) room += rank;
  const auto host = [&](int64_t count, float factor) { return t.back(t.normal(count, factor)); };
  const std::vector<float> w = host(kOut * kIn, 0.3f);
  const auto weight = backend.pack({.values = w.data(), .out = kOut, .in = kIn, .room = room, .fp8 = fp8});
  std::vector<std::unique_ptr<ops::PackedMatrix>> packed;
  std::vector<ops::Bf16Adapter> adapters;
  const BackendArray<float> xa = t.normal(kRows * room + 1), dxa = t.normal(kRows * room + 1),
                            da = t.normal(room * kIn + 1), db = t.normal(kOut * room + 1);
  int64_t first = 0;
  for (int64_t i = 0; i < parts; ++i) {
    const int64_t rank = of.ranks[static_cast<size_t>(i)], width = kOut / parts;
    const std::vector<float> a = host(rank * kIn, 0.3f), b = host(width * rank, 0.3f);
    packed.push_back(backend.pack({.values = a.data(), .out = rank, .in = kIn}));
    packed.push_back(backend.pack({.values = b.data(), .out = width, .in = rank, .factor = 2.0f}));
    adapters.push_back({.a = packed[packed.size() - 2].get(),
                        .b = packed.back().get(),
                        .column = i * width,
                        .width = width,
                        .xa = xa.data() + kRows * first,
                        .scale = 2.0f,
                        .da = da.data() + first * kIn,
                        .db = db.data() + width * first});
    first += rank;
  }
  const std::vector<float> x = t.exact(kRows * kIn), dy = t.exact(kRows * kOut);
  const int64_t x_stride = ops::row_with_room(kIn, room) + 8, dy_stride = ops::row_with_room(kOut, room);
  const BackendArray<float> x_wide = t.placed(x), dy_wide = t.placed(dy);
  const BackendArray<uint16_t> x_rows = t.rows_of(x, kIn, x_stride), dy_rows = t.rows_of(dy, kOut, dy_stride);
  const BackendArray<float> y = t.normal(kRows * kOut), dx = t.normal(kRows * kIn), dweight = t.normal(kOut * kIn);
  const BackendArray<uint16_t> y_rows = t.rows_of(dy, kOut, kOut + 3), dx_rows = t.rows_of(x, kIn, kIn);
  const ops::RowsOfBf16 none{};
  const auto result = [&](const BackendArray<uint16_t>& rows, int64_t stride) {
    return form == Form::all_bf16 ? ops::RowsOfBf16{rows.data(), stride} : none;
  };
  ops::Bf16LinearForward forward{.rows = kRows,
                                 .weight = weight.get(),
                                 .adapters = adapters,
                                 .x = narrow ? nullptr : x_wide.data(),
                                 .x_stride = kIn,
                                 .x_bf16 = narrow ? ops::RowsOfBf16{x_rows.data(), x_stride} : none,
                                 .y = y.data(),
                                 .y_stride = kOut,
                                 .y_bf16 = result(y_rows, kOut + 3)};
  backend.bf16_linear_forward(forward);
  backend.bf16_linear_backward({.rows = kRows,
                                .weight = weight.get(),
                                .adapters = adapters,
                                .dy = narrow ? nullptr : dy_wide.data(),
                                .dy_stride = kOut,
                                .dy_bf16 = narrow ? ops::RowsOfBf16{dy_rows.data(), dy_stride} : none,
                                .dx = dx.data(),
                                .dx_stride = kIn,
                                .dx_bf16 = result(dx_rows, kIn),
                                .dxa = dxa.data(),
                                .x = forward.x,
                                .x_stride = kIn,
                                .x_bf16 = forward.x_bf16,
                                .dweight = fp8 ? nullptr : dweight.data(),
                                .dweight_first = 0,
                                .dweight_rows = fp8 ? 0 : kOut});
  if (form == Form::all_bf16) {
    const std::vector<uint16_t> y_back = t.back(y_rows), dx_back = t.back(dx_rows);
    std::vector<float> y_values, dx_values;
    for (int64_t i = 0; i < kRows * kOut; ++i)
      y_values.push_back(widened(y_back[static_cast<size_t>(i / kOut * (kOut + 3) + i % kOut)]));
    for (const uint16_t half : dx_back) dx_values.push_back(widened(half));
    y.upload(y_values);
    dx.upload(dx_values);
  }
  return {t.back(y), t.back(dx), t.back(xa), t.back(dxa), t.back(da), t.back(db), t.back(dweight)};
}

}  // namespace

TEST_CASE("rows of bf16: norms and SwiGLU leave what rounding their results gives") {
  const auto backend = cuda::ops_on_device(0);
  OnDevice t(*backend);
  for (const int64_t width : {int64_t{64}, int64_t{37}}) {
    CAPTURE(width);
    const int64_t stride = width + 11, count = kRows * width;
    const BackendArray<float> x = t.normal(count), weight = t.normal(width), y = t.normal(count),
                              inverse = t.normal(kRows), dy = t.normal(count);
    const auto narrow = [&](int64_t row) {
      return t.placed(std::vector<uint16_t>(static_cast<size_t>(kRows * row), kNan));
    };
    const BackendArray<uint16_t> y_rows = narrow(stride);
    ops::RmsNormForward norm{.rows = kRows,
                             .dim = width,
                             .eps = 1e-5f,
                             .x = x.data(),
                             .weight = weight.data(),
                             .y = y.data(),
                             .inverse_rms = inverse.data()};
    backend->rmsnorm_forward(norm);
    norm.y = nullptr;
    norm.y_bf16 = {y_rows.data(), stride};
    backend->rmsnorm_forward(norm);
    check_rounded(t.back(y_rows), stride, t.back(y), width);
    const BackendArray<float> dx = t.normal(count);
    const BackendArray<uint16_t> dx_rows = narrow(stride);
    backend->rmsnorm_backward({.rows = kRows,
                               .dim = width,
                               .x = x.data(),
                               .weight = weight.data(),
                               .inverse_rms = inverse.data(),
                               .dy = dy.data(),
                               .dx = dx.data(),
                               .dx_bf16 = {dx_rows.data(), stride}});
    check_rounded(t.back(dx_rows), stride, t.back(dx), width);

    const int64_t pair_stride = 2 * width + 3;
    const BackendArray<float> gate_up = t.normal(2 * count), act = t.normal(count), dgate_up = t.normal(2 * count);
    const BackendArray<uint16_t> act_rows = narrow(stride), dgate_up_rows = narrow(pair_stride);
    backend->swiglu_forward({.rows = kRows, .ffn_dim = width, .gate_up = gate_up.data(), .act = act.data()});
    backend->swiglu_forward(
        {.rows = kRows, .ffn_dim = width, .gate_up = gate_up.data(), .act_bf16 = {act_rows.data(), stride}});
    check_rounded(t.back(act_rows), stride, t.back(act), width);
    ops::SwiGluBackward backward{
        .rows = kRows, .ffn_dim = width, .gate_up = gate_up.data(), .dact = dy.data(), .dgate_up = dgate_up.data()};
    backend->swiglu_backward(backward);
    backward.dgate_up = nullptr;
    backward.dgate_up_bf16 = {dgate_up_rows.data(), pair_stride};
    backend->swiglu_backward(backward);
    check_rounded(t.back(dgate_up_rows), pair_stride, t.back(dgate_up), 2 * width);

    // What SwiGLU reads may come in bf16 too.
    const std::vector<float> exact_pair = t.exact(2 * count), exact_d = t.exact(count);
    const BackendArray<float> pair = t.placed(exact_pair), d = t.placed(exact_d);
    const BackendArray<uint16_t> pair_rows = t.rows_of(exact_pair, 2 * width, pair_stride),
                                 d_rows = t.rows_of(exact_d, width, stride);
    backend->swiglu_forward({.rows = kRows, .ffn_dim = width, .gate_up = pair.data(), .act = act.data()});
    const std::vector<float> expected_act = t.back(act);
    backend->swiglu_forward(
        {.rows = kRows, .ffn_dim = width, .gate_up_bf16 = {pair_rows.data(), pair_stride}, .act = act.data()});
    CHECK(t.back(act) == expected_act);
    backend->swiglu_backward(
        {.rows = kRows, .ffn_dim = width, .gate_up = pair.data(), .dact = d.data(), .dgate_up = dgate_up.data()});
    const std::vector<float> expected_gradient = t.back(dgate_up);
    backend->swiglu_backward({.rows = kRows,
                              .ffn_dim = width,
                              .gate_up_bf16 = {pair_rows.data(), pair_stride},
                              .dact_bf16 = {d_rows.data(), stride},
                              .dgate_up = dgate_up.data()});
    CHECK(t.back(dgate_up) == expected_gradient);
  }
}

TEST_CASE("rows of bf16: attention leaves what rounding its output gives, and its gradients read it") {
  const auto backend = cuda::ops_on_device(0);
  OnDevice t(*backend);
  for (const bool bf16_products : {false, true}) {
    for (const int64_t dim : {int64_t{16}, int64_t{10}, int64_t{64}}) {
      CAPTURE(bf16_products);
      CAPTURE(dim);
      const int64_t heads = 4, kv_heads = 2, q_dim = heads * dim, kv_dim = kv_heads * dim, stride = q_dim + 6;
      const std::vector<int64_t> offsets{0, 13, kRows};
      std::vector<int32_t> first, end;
      for (int32_t row = 0; row < kRows; ++row) {
        first.push_back(row < 13 ? 0 : 13);
        end.push_back(row < 13 ? 13 : static_cast<int32_t>(kRows));
      }
      const BackendArray<int32_t> first_there = t.placed(first), end_there = t.placed(end);
      const BackendArray<float> q = t.normal(kRows * q_dim), k = t.normal(kRows * kv_dim), v = t.normal(kRows * kv_dim),
                                out = t.normal(kRows * q_dim), log_sum_exp = t.normal(kRows * heads),
                                dout = t.normal(kRows * q_dim);
      const BackendArray<uint16_t> rows = t.placed(std::vector<uint16_t>(static_cast<size_t>(kRows * stride), kNan));
      ops::AttentionForward wide{.heads = heads,
                                 .kv_heads = kv_heads,
                                 .head_dim = dim,
                                 .offsets = offsets,
                                 .first_row = first_there.data(),
                                 .end_row = end_there.data(),
                                 .scale = 0.3f,
                                 .q = q.data(),
                                 .k = k.data(),
                                 .v = v.data(),
                                 .q_stride = q_dim,
                                 .k_stride = kv_dim,
                                 .v_stride = kv_dim,
                                 .out = out.data(),
                                 .log_sum_exp = log_sum_exp.data(),
                                 .bf16_products = bf16_products};
      ops::AttentionForward narrow = wide;
      narrow.out = nullptr;
      narrow.out_bf16 = {rows.data(), stride};
      backend->attention_forward(wide);
      backend->attention_forward(narrow);
      check_rounded(t.back(rows), stride, t.back(out), q_dim);
      // Rounded outputs in fp32 are what the rows hold: the same bytes come of them.
      std::vector<float> as_rounded = t.back(out);
      for (float& value : as_rounded) value = widened(rounded(value));
      out.upload(as_rounded);
      const auto gradients = [&](const ops::AttentionForward& forward) {
        const BackendArray<float> dq = t.normal(kRows * q_dim), dk = t.normal(kRows * kv_dim),
                                  dv = t.normal(kRows * kv_dim);
        backend->attention_backward(
            {.forward = forward, .dout = dout.data(), .dq = dq.data(), .dk = dk.data(), .dv = dv.data()});
        return std::vector<std::vector<float>>{t.back(dq), t.back(dk), t.back(dv)};
      };
      CHECK(gradients(narrow) == gradients(wide));
    }
  }
}

TEST_CASE("rows of bf16: heads are turned and attended to where the product left them") {
  const auto backend = cuda::ops_on_device(0);
  OnDevice t(*backend);
  for (const int64_t dim : {int64_t{16}, int64_t{40}, int64_t{64}, int64_t{128}}) {
    CAPTURE(dim);
    const int64_t heads = 4, kv_heads = 2, width = (heads + 2 * kv_heads) * dim, stride = width + 8;
    const int64_t q_dim = heads * dim, kv_dim = kv_heads * dim;
    const std::vector<float> qkv = t.exact(kRows * width), dout = t.exact(kRows * q_dim);
    std::vector<int32_t> first, end, positions;
    for (int32_t row = 0; row < kRows; ++row) {
      first.push_back(row < 13 ? 0 : 13);
      end.push_back(row < 13 ? 13 : static_cast<int32_t>(kRows));
      positions.push_back(row - first.back());
    }
    const std::vector<int64_t> offsets{0, 13, kRows};
    const BackendArray<int32_t> first_there = t.placed(first), end_there = t.placed(end),
                                positions_there = t.placed(positions);
    const BackendArray<float> cos = t.normal(kRows * dim / 2), sin = t.normal(kRows * dim / 2);
    const BackendArray<float> wide = t.placed(qkv), out = t.normal(kRows * q_dim), lse = t.normal(kRows * heads);
    const BackendArray<uint16_t> rows = t.rows_of(qkv, width, stride);
    ops::Rope rope{.rows = kRows,
                   .heads = heads + kv_heads,
                   .head_dim = dim,
                   .positions = positions_there.data(),
                   .cos = cos.data(),
                   .sin = sin.data(),
                   .x = wide.data(),
                   .x_stride = width};
    for (const bool inverse : {false, true}) {
      rope.inverse = inverse;
      rope.x = wide.data();
      rope.x_bf16 = {};
      backend->rope(rope);
      rope.x = nullptr;
      rope.x_bf16 = {rows.data(), stride};
      backend->rope(rope);
      std::vector<float> turned = t.back(wide);
      check_rounded(t.back(rows), stride, turned, width);
      for (float& value : turned) value = widened(rounded(value));
      wide.upload(turned);
    }
    ops::AttentionForward forward{.heads = heads,
                                  .kv_heads = kv_heads,
                                  .head_dim = dim,
                                  .offsets = offsets,
                                  .first_row = first_there.data(),
                                  .end_row = end_there.data(),
                                  .scale = 0.3f,
                                  .window = dim == 64 ? 5 : 0,
                                  .q = wide.data(),
                                  .k = wide.data() + q_dim,
                                  .v = wide.data() + q_dim + kv_dim,
                                  .q_stride = width,
                                  .k_stride = width,
                                  .v_stride = width,
                                  .out = out.data(),
                                  .log_sum_exp = lse.data(),
                                  .bf16_products = true};
    backend->attention_forward(forward);
    const std::vector<float> expected_out = t.back(out);
    const BackendArray<float> dwide = t.normal(kRows * width), dout_there = t.placed(dout);
    backend->attention_backward({.forward = forward,
                                 .dout = dout_there.data(),
                                 .dq = dwide.data(),
                                 .dk = dwide.data() + q_dim,
                                 .dv = dwide.data() + q_dim + kv_dim});
    forward.q = forward.k = forward.v = nullptr;
    forward.q_bf16 = {rows.data(), stride};
    forward.k_bf16 = {rows.data() + q_dim, stride};
    forward.v_bf16 = {rows.data() + q_dim + kv_dim, stride};
    backend->attention_forward(forward);
    CHECK(t.back(out) == expected_out);
    const BackendArray<uint16_t> dout_rows = t.rows_of(dout, q_dim, q_dim + 16),
                                 drows = t.placed(std::vector<uint16_t>(static_cast<size_t>(kRows * stride), kNan));
    backend->attention_backward({.forward = forward,
                                 .dout_bf16 = {dout_rows.data(), q_dim + 16},
                                 .dq_bf16 = {drows.data(), stride},
                                 .dk_bf16 = {drows.data() + q_dim, stride},
                                 .dv_bf16 = {drows.data() + q_dim + kv_dim, stride}});
    check_rounded(t.back(drows), stride, t.back(dwide), width);
  }
}

TEST_CASE("rows of bf16: products give the bytes that they give for the same values in fp32") {
  // No adapters; rooms that fill their columns, and some that leave columns beside them.
  for (const Adapters& of : {Adapters{}, Adapters{{8}}, Adapters{{4, 4}}, Adapters{{3}}, Adapters{{2, 3}}}) {
    for (const bool fp8 : {false, true}) {
      for (const char* library : kLibraries) {
        const EnvironmentVariable chosen("COLLIMATE_CUBLASLT", library);
        const auto backend = cuda::ops_on_device(0);
        CAPTURE(library);
        CAPTURE(of.ranks.size());
        CAPTURE(fp8);
        const Results wide = run_layer(*backend, of, fp8, Form::fp32);
        const Results narrow = run_layer(*backend, of, fp8, Form::operands_bf16);
        CHECK(narrow.y == wide.y);
        CHECK(narrow.dx == wide.dx);
        CHECK(narrow.xa == wide.xa);
        CHECK(narrow.dxa == wide.dxa);
        CHECK(narrow.da == wide.da);
        CHECK(narrow.db == wide.db);
        CHECK(narrow.dweight == wide.dweight);
        for (const float value : narrow.dx) REQUIRE(std::isfinite(value));
        const Results rounded_results = run_layer(*backend, of, fp8, Form::all_bf16);
        CHECK(rounded_results.da == wide.da);
        // In eight bits the adapters' part is added to what was rounded.
        const double tolerance = fp8 && !of.ranks.empty() ? 1.0 / 64 : 1.0 / 256;
        check_near(rounded_results.y, wide.y, tolerance);
        check_near(rounded_results.dx, wide.dx, tolerance);
        if (fp8 && !of.ranks.empty()) continue;
        for (size_t i = 0; i < wide.y.size(); ++i) REQUIRE(rounded_results.y[i] == widened(rounded(wide.y[i])));
        for (size_t i = 0; i < wide.dx.size(); ++i) REQUIRE(rounded_results.dx[i] == widened(rounded(wide.dx[i])));
      }
    }
  }
}

}  // namespace collimate
