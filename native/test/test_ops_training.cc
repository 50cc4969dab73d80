// The ops around the layers: embedding gradient, dropout, AdamW, sum of squares.
#include <doctest/doctest.h>

#include <cmath>

#include "core/ops.h"
#include "gradient_check.h"

namespace collimate {

TEST_CASE("ops: embedding gradient sums over repeated tokens, only into trained rows") {
  Pool pool(2);
  const std::vector<int32_t> tokens{4, 1, 4, 3, 4, 0};
  std::vector<float> dy(6 * 2);
  for (size_t i = 0; i < dy.size(); ++i) dy[i] = static_cast<float>(i);
  std::vector<float> dtable(3 * 2, 100.0f);
  ops::embedding_backward(pool, {.rows = 6,
                                 .dim = 2,
                                 .first_row = 2,
                                 .table_rows = 3,
                                 .tokens = tokens.data(),
                                 .dy = dy.data(),
                                 .dtable = dtable.data()});
  CHECK(dtable == std::vector<float>{100, 100, 106, 107, 100 + 0 + 4 + 8, 100 + 1 + 5 + 9});
  const std::vector<int32_t> bad{5};
  CHECK_THROWS(ops::embedding_forward(
      pool, {.rows = 1, .dim = 2, .vocabulary = 5, .table = dy.data(), .tokens = bad.data(), .y = dtable.data()}));
}

TEST_CASE("ops: dropout keeps the stated share, repeats its mask and changes with the stream") {
  Pool pool(2);
  const int64_t elements = 50001;
  const auto masked = [&](uint64_t stream) {
    std::vector<float> x(static_cast<size_t>(elements), 1.0f);
    ops::dropout(pool, {.elements = elements,
                        .probability = 0.25f,
                        .stream = {.seed = 1, .site = RandomSite::dropout, .stream = stream},
                        .x = x.data()});
    return x;
  };
  const auto first = masked(1);
  int64_t dropped = 0;
  for (const float x : first) {
    if (x == 0.0f)
      ++dropped;
    else
      CHECK(x == 1.0f / 0.75f);
  }
  // Four standard deviations of a binomial of 50,001 draws.
  CHECK(std::fabs(static_cast<double>(dropped) - 0.25 * static_cast<double>(elements)) <
        4 * std::sqrt(0.25 * 0.75 * static_cast<double>(elements)));
  CHECK(first == masked(1));
  CHECK(first != masked(2));
}

TEST_CASE("ops: AdamW equals the formula in double precision, decay decoupled") {
  Pool pool(2);
  auto p = random_values(1000, 1), g = random_values(1000, 2);
  std::vector<float> m(1000, 0.0f), v(1000, 0.0f);
  std::vector<double> pd(p.begin(), p.end()), md(1000, 0.0), vd(1000, 0.0), result;
  for (int step = 1; step <= 3; ++step) {
    ops::adamw(pool, {.elements = 1000,
                      .parameter = p.data(),
                      .first_moment = m.data(),
                      .second_moment = v.data(),
                      .gradient = g.data(),
                      .gradient_scale = 0.5f,
                      .learning_rate = 0.01f,
                      .beta1 = 0.9f,
                      .beta2 = 0.95f,
                      .epsilon = 1e-8f,
                      .weight_decay = 0.1f,
                      .bias_correction1 = static_cast<float>(1 - std::pow(0.9, step)),
                      .bias_correction2 = static_cast<float>(1 - std::pow(0.95, step))});
    for (size_t i = 0; i < 1000; ++i) {
      const double gradient = 0.5 * static_cast<double>(g[i]);
      md[i] = 0.9 * md[i] + 0.1 * gradient;
      vd[i] = 0.95 * vd[i] + 0.05 * gradient * gradient;
      pd[i] = pd[i] * (1 - 0.01 * 0.1) -
              0.01 * (md[i] / (1 - std::pow(0.9, step))) / (std::sqrt(vd[i] / (1 - std::pow(0.95, step))) + 1e-8);
    }
  }
  CHECK(largest_difference(p, pd) < 2e-5);
  CHECK(ops::sum_squares(pool, p) == doctest::Approx([&] {
                                       double s = 0;
                                       for (const float x : p) s += static_cast<double>(x) * static_cast<double>(x);
                                       return s;
                                     }())
                                         .epsilon(1e-12));
}

}  // namespace collimate
