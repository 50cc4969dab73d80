// Products against a double-precision reference, and byte-equality at 1, 2 and 3 threads.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/gemm.h"
#include "core/philox.h"

namespace collimate {
namespace {

struct Case {
  int64_t m, n, k;
  bool transpose_a = false;
  bool transpose_b = false;
  float alpha = 1.0f;
  float beta = 0.0f;
};

std::vector<float> random_values(int64_t count, uint64_t stream) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = random_uniform({.seed = 5, .site = RandomSite::test, .stream = stream}, i) - 0.5f;
  }
  return values;
}

// Operands with row strides wider than the rows, so that a wrong stride shows.
struct Operands {
  explicit Operands(const Case& c) {
    args = {.transpose_a = c.transpose_a,
            .transpose_b = c.transpose_b,
            .m = c.m,
            .n = c.n,
            .k = c.k,
            .alpha = c.alpha,
            .beta = c.beta};
    args.lda = (c.transpose_a ? c.m : c.k) + 3;
    args.ldb = (c.transpose_b ? c.k : c.n) + 5;
    args.ldc = c.n + 7;
    a = random_values((c.transpose_a ? c.k : c.m) * args.lda, 1);
    b = random_values((c.transpose_b ? c.n : c.k) * args.ldb, 2);
    before = random_values(c.m * args.ldc, 3);
    args.a = a.data();
    args.b = b.data();
  }
  std::vector<float> run(int threads) {
    Pool pool(threads);
    std::vector<float> c = before;
    args.c = c.data();
    gemm(pool, args);
    return c;
  }
  double expected(int64_t row, int64_t col) const {
    double sum = 0.0;
    for (int64_t k = 0; k < args.k; ++k) {
      const float left = args.transpose_a ? a[size_t(k * args.lda + row)] : a[size_t(row * args.lda + k)];
      const float right = args.transpose_b ? b[size_t(col * args.ldb + k)] : b[size_t(k * args.ldb + col)];
      sum += static_cast<double>(left) * right;
    }
    return args.alpha * sum + args.beta * before[size_t(row * args.ldc + col)];
  }
  GemmArgs args;
  std::vector<float> a, b, before;
};

std::vector<Case> cases() {
  std::vector<Case> list = {{512, 16, 2048, true},
                            {64, 64, 16384},
                            {256, 64, 20000},
                            {1, 1, 1},
                            {300, 700, 130},
                            {33, 1025, 65},
                            {1000, 48, 7},
                            {16, 4096, 300, false, true},
                            {513, 100, 31, true, true},
                            {200, 200, 200, true, false, 0.5f, 1.0f},
                            {100, 300, 50, false, true, 2.0f, 0.25f},
                            {640, 192, 1024, false, true}};
  for (int64_t m = 1; m <= 20; ++m) {
    list.push_back({m, 512, 256, false, m % 2 == 0});
    list.push_back({m, 97, 64, m % 2 == 0, false, 1.0f, 1.0f});
  }
  return list;
}

}  // namespace

TEST_CASE("gemm: bytes are equal at 1, 2 and 3 threads, and close to double precision") {
  for (const Case& c : cases()) {
    CAPTURE(c.m);
    CAPTURE(c.n);
    CAPTURE(c.k);
    Operands operands(c);
    const std::vector<float> one = operands.run(1);
    for (const int threads : {2, 3}) {
      const std::vector<float> more = operands.run(threads);
      CHECK(std::memcmp(one.data(), more.data(), one.size() * sizeof(float)) == 0);
    }
    // Worst case of a sum of k products of values below one half: k * 2^-24 / 4 of rounding, and a margin for sqrt(k)
    // growth.
    const double tolerance = 1e-6 + static_cast<double>(c.k) * 2e-8;
    double worst = 0.0;
    for (int64_t row = 0; row < c.m; row += 1 + c.m / 17) {
      for (int64_t col = 0; col < c.n; col += 1 + c.n / 19) {
        worst = std::max(worst, std::fabs(one[size_t(row * operands.args.ldc + col)] - operands.expected(row, col)));
      }
    }
    CHECK(worst < tolerance);
    // Between the rows nothing is written.
    for (int64_t row = 0; row < c.m; ++row) {
      for (int64_t col = c.n; col < operands.args.ldc; ++col) {
        REQUIRE(one[size_t(row * operands.args.ldc + col)] == operands.before[size_t(row * operands.args.ldc + col)]);
      }
    }
  }
}

TEST_CASE("gemm: empty products scale C, and beta 0 never reads it") {
  Pool pool(2);
  std::vector<float> c = {1, 2, 3, 4};
  gemm(pool, {.m = 2, .n = 2, .k = 0, .beta = 0.5f, .c = c.data(), .ldc = 2});
  CHECK(c == std::vector<float>{0.5f, 1, 1.5f, 2});
  gemm(pool, {.m = 0, .n = 2, .k = 4, .c = c.data(), .ldc = 2});
  CHECK(c[0] == 0.5f);
  c.assign(4, std::numeric_limits<float>::quiet_NaN());
  gemm(pool, {.m = 2, .n = 2, .k = 0, .c = c.data(), .ldc = 2});
  CHECK(c == std::vector<float>{0, 0, 0, 0});
  c.assign(4, std::numeric_limits<float>::quiet_NaN());
  const std::vector<float> identity = {1, 0, 0, 1};
  gemm(pool, {.m = 2,
              .n = 2,
              .k = 2,
              .a = identity.data(),
              .lda = 2,
              .b = identity.data(),
              .ldb = 2,
              .c = c.data(),
              .ldc = 2});
  CHECK(c == identity);
}

TEST_CASE("gemm: the cut depends on the shape and feeds several threads") {
  for (const Case& c : cases()) {
    const GemmTiling tile = gemm_tiling(c.m, c.n, c.k);
    CHECK(tile.rows >= 1);
    CHECK(tile.cols >= 1);
    CHECK(tile.rows <= 256);
    CHECK(tile.cols <= 512);
  }
  const GemmTiling middle = gemm_tiling(512, 512, 512);
  CHECK(((512 + middle.rows - 1) / middle.rows) * ((512 + middle.cols - 1) / middle.cols) >= 4);
}

}  // namespace collimate
