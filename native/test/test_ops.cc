// What single ops promise beyond the case list (test_op_cases.cc): attention over many tiles and windows against a
// plain double-precision loop, what a token may see, aliasing, NaN.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "core/ops.h"
#include "gradient_check.h"

namespace collimate {
namespace {

// fp32 rounding of sums of a few hundred terms, relative to the largest value.
constexpr double kReference = 2e-5;

// Packed attention of one shape, with everything its backward needs.
struct AttentionCase {
  int64_t heads, kv_heads, head_dim;
  std::vector<int64_t> offsets;
  int64_t window = 0;
  std::vector<float> q, k, v, out, lse;

  AttentionCase(int64_t h, int64_t kv, int64_t d, std::vector<int64_t> sequence_offsets)
      : heads(h), kv_heads(kv), head_dim(d), offsets(std::move(sequence_offsets)) {
    const int64_t rows = offsets.back();
    q = random_values(rows * heads * head_dim, 1);
    k = random_values(rows * kv_heads * head_dim, 2);
    v = random_values(rows * kv_heads * head_dim, 3);
    out.resize(q.size());
    lse.resize(static_cast<size_t>(rows * heads));
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

TEST_CASE("ops: SwiGLU's gradient may take its input's place") {
  Pool pool(2);
  const int64_t rows = 19, ffn = 13;
  auto gate_up = random_values(rows * 2 * ffn, 1, 3.0f);
  const auto dact = random_values(rows * ffn, 2);
  std::vector<float> gradient(gate_up.size());
  for (std::vector<float>* to : {&gradient, &gate_up}) {
    ops::swiglu_backward(
        pool, {.rows = rows, .ffn_dim = ffn, .gate_up = gate_up.data(), .dact = dact.data(), .dgate_up = to->data()});
  }
  CHECK(gate_up == gradient);
}

TEST_CASE("ops: a NaN logit makes its row's loss NaN, and no other") {
  Pool pool(2);
  const int64_t rows = 21, vocabulary = 37;
  auto logits = random_values(rows * vocabulary, 1, 4.0f);
  const std::vector<int32_t> targets(static_cast<size_t>(rows), 5);
  std::vector<double> losses(static_cast<size_t>(rows));
  logits[static_cast<size_t>(3 * vocabulary + 1)] = NAN;
  ops::cross_entropy(pool, {.rows = rows,
                            .vocabulary = vocabulary,
                            .logits = logits.data(),
                            .targets = targets.data(),
                            .losses = losses.data()});
  for (int64_t row = 0; row < rows; ++row) CHECK(std::isnan(losses[static_cast<size_t>(row)]) == (row == 3));
}

}  // namespace collimate
