// Ops against double-precision references and finite differences, and the same bytes at 1, 2 and 3 threads.
//
// Tolerances: references differ by fp32 rounding of sums of a few hundred terms (2e-5 relative to the largest value);
// finite differences by O(step^2) truncation and fp32 noise / step (2e-3 relative to the largest gradient).
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <string>

#include "core/ops.h"
#include "gradient_check.h"

namespace collimate {
namespace {

constexpr double kReference = 2e-5;
constexpr double kGradient = 2e-3;

// Packed attention of one shape, with everything its backward needs.
struct AttentionCase {
  int64_t heads, kv_heads, head_dim;
  std::vector<int64_t> offsets;
  int64_t window = 0;
  std::vector<float> q, k, v, out, lse, weights, dq, dk, dv;

  AttentionCase(int64_t h, int64_t kv, int64_t d, std::vector<int64_t> sequence_offsets)
      : heads(h), kv_heads(kv), head_dim(d), offsets(std::move(sequence_offsets)) {
    const int64_t rows = offsets.back();
    q = random_values(rows * heads * head_dim, 1);
    k = random_values(rows * kv_heads * head_dim, 2);
    v = random_values(rows * kv_heads * head_dim, 3);
    weights = random_values(rows * heads * head_dim, 4);
    out.resize(q.size());
    lse.resize(static_cast<size_t>(rows * heads));
    dq.resize(q.size());
    dk.resize(k.size());
    dv.resize(v.size());
  }
  ops::AttentionForward args() {
    return {.heads = heads,
            .kv_heads = kv_heads,
            .head_dim = head_dim,
            .offsets = offsets,
            .scale = 1.0f / std::sqrt(static_cast<float>(head_dim)),
            .window = window,
            .q = q.data(),
            .k = k.data(),
            .v = v.data(),
            .q_stride = heads * head_dim,
            .k_stride = kv_heads * head_dim,
            .v_stride = kv_heads * head_dim,
            .out = out.data(),
            .log_sum_exp = lse.data()};
  }
  void backward(Pool& pool) {
    ops::attention_forward(pool, args());
    ops::attention_backward(
        pool, {.forward = args(), .dout = weights.data(), .dq = dq.data(), .dk = dk.data(), .dv = dv.data()});
  }
  std::vector<double> reference() const {
    std::vector<double> result(out.size(), 0.0);
    const int64_t group = heads / kv_heads;
    for (size_t s = 0; s + 1 < offsets.size(); ++s) {
      for (int64_t i = offsets[s]; i < offsets[s + 1]; ++i) {
        for (int64_t h = 0; h < heads; ++h) reference_row(result, {offsets[s], i, h, h / group});
      }
    }
    return result;
  }

 private:
  struct Row {
    int64_t begin, row, head, kv_head;
  };
  void reference_row(std::vector<double>& result, const Row& at) const {
    const auto element = [&](const std::vector<float>& x, int64_t row, int64_t count, int64_t head, int64_t d) {
      return static_cast<double>(x[static_cast<size_t>((row * count + head) * head_dim + d)]);
    };
    std::vector<double> weight;
    double total = 0.0;
    const int64_t first = window > 0 ? std::max(at.begin, at.row - window + 1) : at.begin;
    for (int64_t j = first; j <= at.row; ++j) {
      double score = 0.0;
      for (int64_t d = 0; d < head_dim; ++d) {
        score += element(q, at.row, heads, at.head, d) * element(k, j, kv_heads, at.kv_head, d);
      }
      weight.push_back(std::exp(score / std::sqrt(static_cast<double>(head_dim))));
      total += weight.back();
    }
    for (int64_t j = first; j <= at.row; ++j) {
      for (int64_t d = 0; d < head_dim; ++d) {
        result[static_cast<size_t>((at.row * heads + at.head) * head_dim + d)] +=
            weight[static_cast<size_t>(j - first)] / total * element(v, j, kv_heads, at.kv_head, d);
      }
    }
  }
};

}  // namespace

TEST_CASE("ops: attention equals a naive reference, over short, tile-sized and longer sequences") {
  Pool pool(2);
  for (const auto& [heads, kv_heads, head_dim] : {std::array<int64_t, 3>{4, 2, 8}, {2, 2, 6}, {3, 1, 16}}) {
    AttentionCase attention(heads, kv_heads, head_dim, {0, 1, 6, 70, 134, 334});
    for (const int64_t window : {0, 1, 5, 64, 100, 1000}) {
      CAPTURE(window);
      attention.window = window;
      ops::attention_forward(pool, attention.args());
      CHECK(largest_difference(attention.out, attention.reference()) < kReference);
    }
  }
}

TEST_CASE("ops: attention gradients of q, k and v, with and without a window") {
  Pool pool(2);
  AttentionCase attention(4, 2, 6, {0, 3, 73});
  for (const int64_t window : {0, 9}) {
    attention.window = window;
    attention.backward(pool);
    const auto loss = [&] {
      ops::attention_forward(pool, attention.args());
      return weighted_sum(attention.out, attention.weights);
    };
    CHECK(gradient_error({.values = attention.q, .analytic = attention.dq, .loss = loss}) < kGradient);
    CHECK(gradient_error({.values = attention.k, .analytic = attention.dk, .loss = loss}) < kGradient);
    CHECK(gradient_error({.values = attention.v, .analytic = attention.dv, .loss = loss}) < kGradient);
  }
}

TEST_CASE("ops: a token never sees later tokens or other sequences") {
  Pool pool(1);
  AttentionCase attention(2, 1, 8, {0, 5, 90});
  ops::attention_forward(pool, attention.args());
  const std::vector<float> before = attention.out;
  for (const int64_t changed : {2, 40, 89}) {
    const float kept = attention.v[static_cast<size_t>(changed * 8)];
    attention.v[static_cast<size_t>(changed * 8)] += 10.0f;
    ops::attention_forward(pool, attention.args());
    const int64_t end = changed < 5 ? 5 : 90;
    for (int64_t row = 0; row < 90; ++row) {
      const bool same = std::memcmp(before.data() + row * 16, attention.out.data() + row * 16, 16 * sizeof(float)) == 0;
      CHECK(same == !(row >= changed && row < end));
    }
    attention.v[static_cast<size_t>(changed * 8)] = kept;
  }
}

TEST_CASE("ops: RMSNorm with the residual addition, against double precision and finite differences") {
  Pool pool(2);
  const int64_t rows = 131, dim = 21;
  auto x = random_values(rows * dim, 1), delta = random_values(rows * dim, 2), weight = random_values(dim, 3);
  const auto out_weights = random_values(rows * dim, 4);
  std::vector<float> sum(x.size()), y(x.size()), inverse(static_cast<size_t>(rows)), dx(x.size(), 0.5f),
      dweight(weight.size(), 0.25f);
  const auto forward = [&] {
    ops::rmsnorm_forward(pool, {.rows = rows,
                                .dim = dim,
                                .eps = 1e-5f,
                                .x = x.data(),
                                .delta = delta.data(),
                                .sum = sum.data(),
                                .weight = weight.data(),
                                .y = y.data(),
                                .inverse_rms = inverse.data()});
    return weighted_sum(y, out_weights);
  };
  forward();
  std::vector<double> expected(x.size());
  for (int64_t i = 0; i < rows; ++i) {
    double squares = 0.0;
    const auto value = [&](int64_t c) {
      return static_cast<double>(x[static_cast<size_t>(i * dim + c)]) +
             static_cast<double>(delta[static_cast<size_t>(i * dim + c)]);
    };
    for (int64_t c = 0; c < dim; ++c) squares += value(c) * value(c);
    for (int64_t c = 0; c < dim; ++c) {
      expected[static_cast<size_t>(i * dim + c)] =
          static_cast<double>(weight[static_cast<size_t>(c)]) * value(c) / std::sqrt(squares / dim + 1e-5);
    }
  }
  CHECK(largest_difference(y, expected) < kReference);
  ops::rmsnorm_backward(pool, {.rows = rows,
                               .dim = dim,
                               .x = sum.data(),
                               .weight = weight.data(),
                               .inverse_rms = inverse.data(),
                               .dy = out_weights.data(),
                               .dx = dx.data(),
                               .dweight = dweight.data()});
  for (float& g : dx) g -= 0.5f;  // it accumulates
  for (float& g : dweight) g -= 0.25f;
  CHECK(gradient_error({.values = x, .analytic = dx, .loss = forward}) < kGradient);
  CHECK(gradient_error({.values = delta, .analytic = dx, .loss = forward}) < kGradient);
  CHECK(gradient_error({.values = weight, .analytic = dweight, .loss = forward}) < kGradient);
}

TEST_CASE("ops: SwiGLU gradient, also in place") {
  Pool pool(2);
  const int64_t rows = 19, ffn = 13;
  auto gate_up = random_values(rows * 2 * ffn, 1, 3.0f);
  const auto dact = random_values(rows * ffn, 2);
  std::vector<float> act(static_cast<size_t>(rows * ffn)), gradient(gate_up.size());
  const auto forward = [&] {
    ops::swiglu_forward(pool, {.rows = rows, .ffn_dim = ffn, .gate_up = gate_up.data(), .act = act.data()});
    return weighted_sum(act, dact);
  };
  forward();
  const double gate = static_cast<double>(gate_up[0]), up = static_cast<double>(gate_up[static_cast<size_t>(ffn)]);
  CHECK(static_cast<double>(act[0]) == doctest::Approx(gate / (1.0 + std::exp(-gate)) * up).epsilon(1e-6));
  ops::swiglu_backward(
      pool,
      {.rows = rows, .ffn_dim = ffn, .gate_up = gate_up.data(), .dact = dact.data(), .dgate_up = gradient.data()});
  CHECK(gradient_error({.values = gate_up, .analytic = gradient, .loss = forward}) < kGradient);
  ops::swiglu_backward(
      pool, {.rows = rows, .ffn_dim = ffn, .gate_up = gate_up.data(), .dact = dact.data(), .dgate_up = gate_up.data()});
  CHECK(gate_up == gradient);
}

TEST_CASE("ops: cross-entropy loss and gradient; a NaN logit makes the loss NaN") {
  Pool pool(2);
  const int64_t rows = 21, vocabulary = 37;
  auto logits = random_values(rows * vocabulary, 1, 4.0f);
  std::vector<int32_t> targets(static_cast<size_t>(rows));
  for (int64_t i = 0; i < rows; ++i) targets[static_cast<size_t>(i)] = static_cast<int32_t>(i * 5 % vocabulary);
  std::vector<double> losses(static_cast<size_t>(rows));
  std::vector<float> gradient;
  const auto run = [&] {
    gradient = logits;
    ops::cross_entropy(pool, {.rows = rows,
                              .vocabulary = vocabulary,
                              .logits = gradient.data(),
                              .targets = targets.data(),
                              .scale = 0.5f,
                              .losses = losses.data()});
    double total = 0.0;
    for (const double loss : losses) total += loss;
    return 0.5 * total;
  };
  run();
  double total = 0.0;
  for (int64_t j = 0; j < vocabulary; ++j) total += std::exp(static_cast<double>(logits[static_cast<size_t>(j)]));
  CHECK(losses[0] == doctest::Approx(std::log(total) - static_cast<double>(logits[0])).epsilon(1e-6));
  const std::vector<float> analytic = gradient;
  CHECK(gradient_error({.values = logits, .analytic = analytic, .loss = run}) < kGradient);
  logits[static_cast<size_t>(3 * vocabulary + 1)] = NAN;
  run();
  CHECK(std::isnan(losses[3]));
  CHECK(std::isfinite(losses[2]));
}

TEST_CASE("ops: rotary positions turn pairs (i, i + D/2) and are undone by the inverse") {
  Pool pool(1);
  const int64_t rows = 7, heads = 3, head_dim = 8, stride = 30;
  const std::vector<double> frequency{1.0, 0.1, 0.01, 0.001};
  const ops::RopeTable table = ops::make_rope_table(frequency, 10);
  const std::vector<int32_t> positions{0, 1, 2, 9, 0, 1, 5};
  const auto original = random_values(rows * stride, 1);
  auto x = original;
  ops::Rope args{.rows = rows,
                 .heads = heads,
                 .head_dim = head_dim,
                 .positions = positions.data(),
                 .table = &table,
                 .x = x.data(),
                 .x_stride = stride};
  ops::rope(pool, args);
  const double angle = 9.0 * 0.1;
  const auto at = static_cast<size_t>(3 * stride + 8 + 1);  // row 3 (position 9), head 1, element 1
  CHECK(static_cast<double>(x[at]) == doctest::Approx(static_cast<double>(original[at]) * std::cos(angle) -
                                                      static_cast<double>(original[at + 4]) * std::sin(angle))
                                          .epsilon(1e-5));
  CHECK(static_cast<double>(x[at + 4]) == doctest::Approx(static_cast<double>(original[at + 4]) * std::cos(angle) +
                                                          static_cast<double>(original[at]) * std::sin(angle))
                                              .epsilon(1e-5));
  CHECK(x[static_cast<size_t>(3 * stride + 24)] == original[static_cast<size_t>(3 * stride + 24)]);  // behind the heads
  args.inverse = true;
  ops::rope(pool, args);
  for (size_t i = 0; i < x.size(); ++i) CHECK(x[i] == doctest::Approx(original[i]).epsilon(1e-5));
}

TEST_CASE("ops: low-rank linear layer, gradients of x, A and B") {
  Pool pool(2);
  const int64_t rows = 33, in = 11, out = 9, rank = 3;
  auto x = random_values(rows * in, 1), a = random_values(rank * in, 2), b = random_values(out * rank, 3);
  auto weight = random_values(out * in, 4);
  const auto dy = random_values(rows * out, 5);
  std::vector<float> xa(static_cast<size_t>(rows * rank)), dxa(xa.size()), y(dy.size());
  const auto forward = [&] {
    ops::linear_forward(pool, {.rows = rows,
                               .in = in,
                               .out = out,
                               .x = x.data(),
                               .x_stride = in,
                               .weight = weight.data(),
                               .y = y.data(),
                               .y_stride = out});
    ops::lora_forward(pool, {.rows = rows,
                             .in = in,
                             .out = out,
                             .rank = rank,
                             .scale = 2.0f,
                             .x = x.data(),
                             .x_stride = in,
                             .a = a.data(),
                             .b = b.data(),
                             .xa = xa.data(),
                             .y = y.data(),
                             .y_stride = out});
    return weighted_sum(y, dy);
  };
  forward();
  std::vector<float> dx(x.size()), dweight(weight.size(), 0.0f), da(a.size(), 0.0f), db(b.size(), 0.0f);
  ops::linear_backward(pool, {.rows = rows,
                              .in = in,
                              .out = out,
                              .x = x.data(),
                              .x_stride = in,
                              .weight = weight.data(),
                              .dy = dy.data(),
                              .dy_stride = out,
                              .dx = dx.data(),
                              .dx_stride = in,
                              .dweight = dweight.data()});
  ops::lora_backward(pool, {.rows = rows,
                            .in = in,
                            .out = out,
                            .rank = rank,
                            .scale = 2.0f,
                            .x = x.data(),
                            .x_stride = in,
                            .a = a.data(),
                            .b = b.data(),
                            .xa = xa.data(),
                            .dy = dy.data(),
                            .dy_stride = out,
                            .dxa = dxa.data(),
                            .dx = dx.data(),
                            .dx_stride = in,
                            .da = da.data(),
                            .db = db.data()});
  CHECK(gradient_error({.values = x, .analytic = dx, .loss = forward}) < kGradient);
  CHECK(gradient_error({.values = weight, .analytic = dweight, .loss = forward}) < kGradient);
  CHECK(gradient_error({.values = a, .analytic = da, .loss = forward}) < kGradient);
  CHECK(gradient_error({.values = b, .analytic = db, .loss = forward}) < kGradient);
}

TEST_CASE("ops: 1, 2 and 3 threads give the same bytes") {
  std::map<int, std::vector<float>> results;
  for (const int threads : {1, 2, 3}) {
    Pool pool(threads);
    AttentionCase attention(4, 2, 16, {0, 130, 131, 400});
    attention.backward(pool);
    std::vector<float>& all = results[threads];
    for (const auto* part : {&attention.out, &attention.lse, &attention.dq, &attention.dk, &attention.dv})
      all.insert(all.end(), part->begin(), part->end());
    const int64_t rows = 400, dim = 64;
    std::vector<float> dx(static_cast<size_t>(rows * dim), 0.0f), dweight(static_cast<size_t>(dim), 0.0f),
        inverse(static_cast<size_t>(rows), 0.7f);
    const auto weight = random_values(dim, 9);
    ops::rmsnorm_backward(pool, {.rows = rows,
                                 .dim = dim,
                                 .x = attention.q.data(),
                                 .weight = weight.data(),
                                 .inverse_rms = inverse.data(),
                                 .dy = attention.weights.data(),
                                 .dx = dx.data(),
                                 .dweight = dweight.data()});
    all.insert(all.end(), dx.begin(), dx.end());
    all.insert(all.end(), dweight.begin(), dweight.end());
    std::vector<float> wide(static_cast<size_t>(dim * dim), 0.0f);
    ops::linear_backward(pool, {.rows = rows,
                                .in = dim,
                                .out = dim,
                                .x = attention.q.data(),
                                .x_stride = dim,
                                .weight = attention.weights.data(),
                                .dy = attention.weights.data(),
                                .dy_stride = dim,
                                .dx = dx.data(),
                                .dx_stride = dim,
                                .dweight = wide.data()});
    all.insert(all.end(), dx.begin(), dx.end());
    all.insert(all.end(), wide.begin(), wide.end());
    all.push_back(static_cast<float>(ops::sum_squares(pool, attention.q)));
  }
  for (const int threads : {2, 3}) {
    REQUIRE(results[threads].size() == results[1].size());
    CHECK(std::memcmp(results[threads].data(), results[1].data(), results[1].size() * sizeof(float)) == 0);
  }
}

}  // namespace collimate
