// Philox 4x32-10 (Salmon et al., SC 2011): random numbers as a pure function of (seed, stream, index).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace collimate {

// What a number is drawn for; part of the counter, so that sites never share numbers.
enum class RandomSite : uint32_t {
  parameter_init = 1,
  example_order = 2,
  dropout = 3,
  kmeans_init = 4,
  negative_item = 5,
  edge_order = 6,
  item_row = 7,
  test = 99,
};

struct RandomStream {
  uint64_t seed = 0;
  RandomSite site = RandomSite::test;
  uint64_t stream = 0;  // for example a step, an epoch or a parameter's number
};

// The bare generator: ten rounds over a 128-bit counter and a 64-bit key.
constexpr std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, uint32_t key0, uint32_t key1);
// Four independent 32-bit words for counter `index` (< 2^32) of the stream.
constexpr std::array<uint32_t, 4> philox4(const RandomStream& stream, uint32_t index);
// The same for counters first .. first + kPhiloxLanes - 1, side by side in vector registers: words[w][lane].
constexpr int kPhiloxLanes = 16;
using PhiloxWords = std::array<std::array<uint32_t, kPhiloxLanes>, 4>;
PhiloxWords philox4_lanes(const RandomStream& stream, uint32_t first);

uint32_t random_u32(const RandomStream& stream, uint64_t index);
// Uniform in [0, 1), 24 bits.
float random_uniform(const RandomStream& stream, uint64_t index);
// Unbiased enough for n < 2^31: multiply-shift of 32 bits.
uint32_t random_below(const RandomStream& stream, uint64_t index, uint32_t n);
// Standard normal (Box-Muller on the library-independent math of core/math.h).
float random_normal(const RandomStream& stream, uint64_t index);
// Fisher-Yates permutation of 0..n-1.
std::vector<int64_t> random_permutation(const RandomStream& stream, int64_t n);

// ---- constexpr, so that kernels of cuda/ may call them -------------------------------------------------------------
namespace philox_detail {
inline constexpr uint32_t kMultiplier0 = 0xD2511F53u;
inline constexpr uint32_t kMultiplier1 = 0xCD9E8D57u;
inline constexpr uint32_t kWeyl0 = 0x9E3779B9u;
inline constexpr uint32_t kWeyl1 = 0xBB67AE85u;
}  // namespace philox_detail

constexpr std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, uint32_t key0, uint32_t key1) {
  using namespace philox_detail;
  for (int i = 0; i < 10; ++i) {
    const uint64_t product0 = static_cast<uint64_t>(kMultiplier0) * counter[0];
    const uint64_t product1 = static_cast<uint64_t>(kMultiplier1) * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key0, static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key1, static_cast<uint32_t>(product0)};
    key0 += kWeyl0;
    key1 += kWeyl1;
  }
  return counter;
}

// Key = seed; counter = (index, stream low, stream high, site).
constexpr std::array<uint32_t, 4> philox4(const RandomStream& stream, uint32_t index) {
  return philox4x32({index, static_cast<uint32_t>(stream.stream), static_cast<uint32_t>(stream.stream >> 32),
                     static_cast<uint32_t>(stream.site)},
                    static_cast<uint32_t>(stream.seed), static_cast<uint32_t>(stream.seed >> 32));
}

}  // namespace collimate
