// The ops around the layers, beyond the case list: what embedding refuses, and how often dropout drops.
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "core/failure.h"
#include "core/ops.h"

namespace collimate {

TEST_CASE("ops: a token outside the vocabulary is bad input") {
  Pool pool(2);
  const std::vector<float> table(5 * 2, 1.0f);
  std::vector<float> y(2);
  for (const int32_t bad : {-1, 5}) {
    CHECK_THROWS_WITH_AS(
        ops::embedding_forward(
            pool, {.rows = 1, .dim = 2, .vocabulary = 5, .table = table.data(), .tokens = &bad, .y = y.data()}),
        doctest::Contains("must lie in 0..4"), JobFailure);
  }
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

}  // namespace collimate
