// Philox against the vectors of its authors, and the properties that draws must have.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/philox.h"

namespace collimate {

TEST_CASE("philox: the published known answers of philox4x32 with ten rounds") {
  using Words = std::array<uint32_t, 4>;
  CHECK(philox4x32({0, 0, 0, 0}, 0, 0) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox4x32({~0u, ~0u, ~0u, ~0u}, ~0u, ~0u) == Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0xa4093822, 0x299f31d0) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("philox: lanes side by side are the counters one by one, also around the end of the counter") {
  const RandomStream stream{.seed = 0x123456789abcdef0, .site = RandomSite::dropout, .stream = 0xfedcba9876543210};
  for (const uint32_t first : {0u, 5u, 0x7ffffff8u, 0xfffffff8u}) {
    const PhiloxWords words = philox4_lanes(stream, first);
    for (uint32_t lane = 0; lane < kPhiloxLanes; ++lane)
      for (size_t word = 0; word < 4; ++word) CHECK(words[word][lane] == philox4(stream, first + lane)[word]);
  }
}

TEST_CASE("philox: seed, site, stream and index all matter") {
  const RandomStream base{.seed = 7, .site = RandomSite::test, .stream = 3};
  const uint32_t word = random_u32(base, 0);
  CHECK(word == random_u32(base, 0));
  CHECK(word != random_u32(base, 1));
  CHECK(word != random_u32({.seed = 8, .site = RandomSite::test, .stream = 3}, 0));
  CHECK(word != random_u32({.seed = 7, .site = RandomSite::dropout, .stream = 3}, 0));
  CHECK(word != random_u32({.seed = 7, .site = RandomSite::test, .stream = uint64_t{3} << 32}, 0));
}

TEST_CASE("philox: moments of uniforms, bounded draws and normals") {
  const RandomStream stream{.seed = 1, .site = RandomSite::test, .stream = 1};
  constexpr int kDraws = 100000;
  double uniform_sum = 0.0;
  double normal_sum = 0.0;
  double normal_squares = 0.0;
  std::array<int, 10> counts{};
  for (uint64_t i = 0; i < kDraws; ++i) {
    const float uniform = random_uniform(stream, i);
    REQUIRE(uniform >= 0.0f);
    REQUIRE(uniform < 1.0f);
    uniform_sum += uniform;
    const double normal = random_normal(stream, i);
    REQUIRE(std::isfinite(normal));
    normal_sum += normal;
    normal_squares += normal * normal;
    ++counts[random_below(stream, i, 10)];
  }
  // Five standard errors of each mean.
  CHECK(std::fabs(uniform_sum / kDraws - 0.5) < 5 * 0.2887 / std::sqrt(kDraws));
  CHECK(std::fabs(normal_sum / kDraws) < 5 / std::sqrt(kDraws));
  CHECK(std::fabs(normal_squares / kDraws - 1.0) < 5 * std::sqrt(2.0 / kDraws));
  for (const int count : counts) CHECK(std::abs(count - kDraws / 10) < 5 * std::sqrt(kDraws * 0.09));
}

TEST_CASE("philox: a permutation holds every number once and moves them") {
  for (const int64_t n : {0, 1, 2, 1000}) {
    std::vector<int64_t> order = random_permutation({.seed = 2, .site = RandomSite::example_order, .stream = 0}, n);
    std::vector<int64_t> identity(static_cast<size_t>(n));
    std::iota(identity.begin(), identity.end(), int64_t{0});
    if (n == 1000) CHECK(order != identity);
    std::sort(order.begin(), order.end());
    CHECK(order == identity);
  }
}

}  // namespace collimate
