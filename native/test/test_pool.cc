// The pool: every item once, nesting, exceptions, and the floating-point mode of its threads.
#include <doctest/doctest.h>
#include <immintrin.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#include "core/pool.h"
#include "core/tree_sum.h"

namespace collimate {

TEST_CASE("pool: every item runs exactly once, at 1, 2, 3 and 5 threads") {
  for (const int threads : {1, 2, 3, 5}) {
    Pool pool(threads);
    CHECK(pool.threads() == threads);
    for (const int64_t items : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> counts(static_cast<size_t>(items));
      for (int repeat = 0; repeat < 50; ++repeat) {
        pool.for_each(items, [&](int64_t item) { counts[static_cast<size_t>(item)].fetch_add(1); });
      }
      for (const auto& count : counts) CHECK(count.load() == 50);
    }
  }
}

TEST_CASE("pool: blocks cover the range, the last one short") {
  Pool pool(2);
  std::vector<std::atomic<int>> touched(103);
  std::atomic<int> blocks{0};
  pool.for_blocks(103, 10, [&](int64_t begin, int64_t end) {
    blocks.fetch_add(1);
    CHECK(begin % 10 == 0);
    for (int64_t i = begin; i < end; ++i) touched[static_cast<size_t>(i)].fetch_add(1);
  });
  CHECK(blocks.load() == 11);
  for (const auto& count : touched) CHECK(count.load() == 1);
  pool.for_blocks(0, 10, [](int64_t, int64_t) { FAIL("an empty range has no block"); });
}

TEST_CASE("pool: nested calls and calls from two threads finish") {
  Pool pool(3);
  std::atomic<int> total{0};
  const auto nested = [&] {
    pool.for_each(10, [&](int64_t) { pool.for_each(10, [&](int64_t) { total.fetch_add(1); }); });
  };
  std::thread other([&] {
    for (int i = 0; i < 20; ++i) nested();
  });
  for (int i = 0; i < 20; ++i) nested();
  other.join();
  CHECK(total.load() == 4000);
}

TEST_CASE("pool: an exception reaches the caller, and the pool works on") {
  Pool pool(3);
  for (int repeat = 0; repeat < 20; ++repeat) {
    CHECK_THROWS_WITH_AS(pool.for_each(100,
                                       [](int64_t item) {
                                         if (item == 37) throw std::runtime_error("item 37");
                                       }),
                         "item 37", std::runtime_error);
    std::atomic<int> total{0};
    pool.for_each(10, [&](int64_t) { total.fetch_add(1); });
    CHECK(total.load() == 10);
  }
}

TEST_CASE("pool: all threads flush denormals") {
  Pool pool(3);
  std::atomic<int> wrong{0};
  std::thread([&] {
    pool.for_each(64, [&](int64_t) {
      volatile float small = 1e-38f;
      const float product = small * 0.01f;
      if (product != 0.0f || _MM_GET_DENORMALS_ZERO_MODE() != _MM_DENORMALS_ZERO_ON) wrong.fetch_add(1);
    });
  }).join();
  CHECK(wrong.load() == 0);
}

TEST_CASE("tree_sum: the split is at the largest power of two below the count") {
  CHECK(tree_sum({}) == 0.0);
  const std::vector<double> terms = {1e16, 1.0, -1e16, 1.0, 3.0};
  CHECK(tree_sum(terms) == ((1e16 + 1.0) + (-1e16 + 1.0)) + 3.0);
  std::vector<double> ones(1000, 0.1);
  CHECK(tree_sum(ones) == doctest::Approx(100.0).epsilon(1e-15));
}

}  // namespace collimate
