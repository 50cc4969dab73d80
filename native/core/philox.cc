// Philox 4x32-10 in vector registers, and what is drawn with it.
#include "core/philox.h"

#include <immintrin.h>

#include <cmath>
#include <numeric>
#include <utility>

#include "core/math.h"

namespace collimate {
namespace {

using namespace philox_detail;

}  // namespace

// A 32-bit word a 64-bit lane, where its products need the room; the upper halves of what is kept are never read.
PhiloxWords philox4_lanes(const RandomStream& stream, uint32_t first) {
  constexpr int kVectors = kPhiloxLanes / 4;
  const auto all = [](uint64_t value) { return _mm256_set1_epi64x(static_cast<long long>(value)); };
  const __m256i multiplier0 = all(kMultiplier0), multiplier1 = all(kMultiplier1);
  __m256i c[kVectors][4];
  for (int v = 0; v < kVectors; ++v) {
    const auto counter = [&](int lane) {
      return static_cast<long long>(static_cast<uint32_t>(first + static_cast<uint32_t>(4 * v + lane)));
    };
    c[v][0] = _mm256_set_epi64x(counter(3), counter(2), counter(1), counter(0));
    c[v][1] = all(stream.stream & 0xffffffffu);
    c[v][2] = all(stream.stream >> 32);
    c[v][3] = all(static_cast<uint32_t>(stream.site));
  }
  uint32_t key0 = static_cast<uint32_t>(stream.seed), key1 = static_cast<uint32_t>(stream.seed >> 32);
  for (int i = 0; i < 10; ++i) {
    for (auto& x : c) {
      const __m256i product0 = _mm256_mul_epu32(multiplier0, x[0]), product1 = _mm256_mul_epu32(multiplier1, x[2]);
      x[0] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product1, 32), x[1]), all(key0));
      x[2] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product0, 32), x[3]), all(key1));
      x[1] = product1;
      x[3] = product0;
    }
    key0 += kWeyl0;
    key1 += kWeyl1;
  }
  PhiloxWords words;
  for (int v = 0; v < kVectors; ++v) {
    for (size_t word = 0; word < 4; ++word) {
      alignas(32) uint64_t lanes[4];
      _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), c[v][word]);
      for (int lane = 0; lane < 4; ++lane) words[word][4 * v + lane] = static_cast<uint32_t>(lanes[lane]);
    }
  }
  return words;
}

uint32_t random_u32(const RandomStream& stream, uint64_t index) {
  return philox4(stream, static_cast<uint32_t>(index >> 2))[index & 3];
}

float random_uniform(const RandomStream& stream, uint64_t index) {
  return static_cast<float>(random_u32(stream, index) >> 8) * 0x1p-24f;
}

uint32_t random_below(const RandomStream& stream, uint64_t index, uint32_t n) {
  return static_cast<uint32_t>((static_cast<uint64_t>(random_u32(stream, index)) * n) >> 32);
}

// Normals 2i and 2i+1 come from one pair of words: 32 bits each, the radius's word shifted off zero.
float random_normal(const RandomStream& stream, uint64_t index) {
  const std::array<uint32_t, 4> words = philox4(stream, static_cast<uint32_t>(index >> 2));
  const size_t pair = static_cast<size_t>(index & 2);
  const double u = (static_cast<double>(words[pair]) + 0.5) * 0x1p-32;
  const double angle = 6.283185307179586 * ((static_cast<double>(words[pair + 1]) + 0.5) * 0x1p-32);
  const double radius = std::sqrt(-2.0 * log_f64(u));
  return static_cast<float>(radius * ((index & 1) == 0 ? cos_f64(angle) : sin_f64(angle)));
}

std::vector<int64_t> random_permutation(const RandomStream& stream, int64_t n) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  for (int64_t i = n - 1; i > 0; --i) {
    const uint32_t j = random_below(stream, static_cast<uint64_t>(i), static_cast<uint32_t>(i + 1));
    std::swap(order[static_cast<size_t>(i)], order[j]);
  }
  return order;
}

}  // namespace collimate
