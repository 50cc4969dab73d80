// bf16 products: equal to double sums of the rounded values, at every edge, and the same bytes on any pool.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "core/gemm_bf16.h"
#include "core/gemm_bf16_kernels.h"
#include "core/philox.h"

namespace collimate {
namespace {

std::vector<float> normal_values(int64_t count, uint64_t stream) {
  std::vector<float> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) values[i] = random_normal({.seed = 3, .stream = stream}, i);
  return values;
}

// Nearest even by the definition, on the bits.
float rounded(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits += 0x7fff + ((bits >> 16) & 1);
  bits &= 0xffff0000u;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

struct Case {
  int64_t m, n, k;
  bool transposed, accumulate;
};

void check_product(const Case& shape) {
  CAPTURE(shape.m);
  CAPTURE(shape.n);
  CAPTURE(shape.k);
  const auto [m, n, k, transposed, accumulate] = shape;
  const auto a = normal_values(m * (k + 3), 1), b = normal_values(n * k, 2), before = normal_values(m * (n + 5), 4);
  Bf16Panels panels;
  std::vector<float> first;
  for (const int threads : {1, 3}) {
    Pool pool(threads);
    panels.pack(
        pool,
        {.values = b.data(), .transposed = transposed, .k = k, .n = n, .stride = transposed ? k : n, .factor = -0.5f});
    std::vector<float> c = before;
    gemm_bf16(
        pool,
        {.m = m, .a = a.data(), .lda = k + 3, .b = &panels, .accumulate = accumulate, .c = c.data(), .ldc = n + 5});
    if (first.empty()) first = c;
    CHECK(std::memcmp(first.data(), c.data(), c.size() * sizeof(float)) == 0);
  }
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = accumulate ? before[i * (n + 5) + j] : 0.0, size = std::fabs(sum);
      for (int64_t l = 0; l < k; ++l) {
        const double term = static_cast<double>(rounded(a[i * (k + 3) + l])) *
                            static_cast<double>(rounded(-0.5f * b[transposed ? j * k + l : l * n + j]));
        sum += term;
        size += std::fabs(term);
      }
      // Products are exact; only fp32 sums err, at worst by one unit in the last place of the sum so far for each term.
      REQUIRE(std::fabs(first[i * (n + 5) + j] - sum) <= size * std::ldexp(1.0, -24) * static_cast<double>(k + 2));
    }
    for (int64_t j = n; j < n + 5; ++j) REQUIRE(first[i * (n + 5) + j] == before[i * (n + 5) + j]);
  }
}

TEST_CASE("bf16 products: values, edges and threads") {
  if (bf16_unit() == Bf16Unit::none) {
    MESSAGE("skipped: this processor has no bf16 unit");
    return;
  }
  for (const Case& shape : {Case{1, 1, 1, false, false}, Case{16, 32, 32, true, false}, Case{33, 65, 47, true, true},
                            Case{300, 300, 100, false, true}, Case{15, 31, 64, false, false},
                            Case{48, 96, 500, true, false}, Case{47, 70, 1100, true, false}}) {
    check_product(shape);
  }
}

TEST_CASE("bf16 products: the bias starts every row, and both units agree up to their sums") {
  if (bf16_unit() != Bf16Unit::amx) {
    MESSAGE("skipped: this processor has no AMX to compare with AVX512-BF16");
    return;
  }
  Pool pool(1);
  const int64_t rows = 48, k = 200;
  const auto a = normal_values(rows * k, 1), b = normal_values(32 * k, 2), bias = normal_values(32, 3);
  Bf16Panels panels;
  panels.pack(pool, {.values = b.data(), .transposed = true, .k = k, .n = 32, .stride = k});
  Bf16Rows packed;
  packed.pack({a.data(), rows, k, k});
  std::vector<float> c(rows * 32), d(rows * 32);
  Bf16PanelCall call{.a = packed.block(0),
                     .a_block = packed.block_size(),
                     .blocks = packed.blocks(),
                     .k = packed.k_padded(),
                     .panel = panels.panel(0),
                     .bias = bias.data(),
                     .c = c.data(),
                     .ldc = 32};
  bf16_panel_amx(call);
  call.c = d.data();
  bf16_panel_avx512(call);
  for (size_t i = 0; i < c.size(); ++i) REQUIRE(c[i] == doctest::Approx(d[i]).epsilon(1e-4));
  double expected = bias[5];
  for (int64_t l = 0; l < k; ++l) expected += double(rounded(a[7 * k + l])) * double(rounded(b[5 * k + l]));
  CHECK(c[7 * 32 + 5] == doctest::Approx(expected).epsilon(1e-5));
}

}  // namespace
}  // namespace collimate
