// SHA-256, by the processor's own instructions where it has them. The round constants are the first 32 fraction bits of
// the cube roots of the first 64 primes.
#include "core/sha256.h"

#include <cpuid.h>
#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <fstream>
#include <vector>

#include "core/failure.h"

namespace collimate {
namespace {

constexpr std::array<uint32_t, 64> kRound = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

uint32_t load_big_endian(const std::byte* p) {
  uint32_t word = 0;
  std::memcpy(&word, p, 4);
  return __builtin_bswap32(word);
}

void compress_in_words(std::array<uint32_t, 8>& state, const std::byte* block) {
  std::array<uint32_t, 64> w;
  for (size_t i = 0; i < 16; ++i) w[i] = load_big_endian(block + 4 * i);
  for (size_t i = 16; i < 64; ++i) {
    const uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ (w[i - 15] >> 3);
    const uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ (w[i - 2] >> 10);
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  auto [a, b, c, d, e, f, g, h] = state;
  for (size_t i = 0; i < 64; ++i) {
    const uint32_t s1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
    const uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + kRound[i] + w[i];
    const uint32_t s0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
    const uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
    h = g;
    g = f;
    f = e;
    e = d + t1;
    d = c;
    c = b;
    b = a;
    a = t1 + t2;
  }
  const std::array<uint32_t, 8> added = {a, b, c, d, e, f, g, h};
  for (size_t i = 0; i < 8; ++i) state[i] += added[i];
}

// __builtin_cpu_supports knows no "sha" in every compiler that builds this.
bool has_sha_instructions() {
  static const bool has = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b & (1u << 29)) != 0;
  }();
  return has;
}

// Four rounds: the instruction does two at a time, on the state as the pairs (a, b, e, f) and (c, d, g, h).
#define COLLIMATE_SHA __attribute__((target("sha,sse4.1,ssse3")))
COLLIMATE_SHA inline void four_rounds(__m128i& abef, __m128i& cdgh, __m128i words, const uint32_t* constants) {
  const __m128i sums = _mm_add_epi32(words, _mm_loadu_si128(reinterpret_cast<const __m128i*>(constants)));
  cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sums);
  abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_unpackhi_epi64(sums, sums));
}

COLLIMATE_SHA void compress_with_instructions(std::array<uint32_t, 8>& state, const std::byte* block) {
  const auto u = [](uint32_t word) { return static_cast<int>(word); };
  const auto [a, b, c, d, e, f, g, h] = state;
  const __m128i abef_before = _mm_set_epi32(u(a), u(b), u(e), u(f));
  const __m128i cdgh_before = _mm_set_epi32(u(c), u(d), u(g), u(h));
  __m128i abef = abef_before, cdgh = cdgh_before;
  const __m128i big_endian = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
  __m128i w[4];  // the last 16 words of the schedule; w[i % 4] holds words 4 i to 4 i + 3
  for (size_t i = 0; i < 4; ++i) {
    w[i] = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 16 * i)), big_endian);
    four_rounds(abef, cdgh, w[i], kRound.data() + 4 * i);
  }
  for (size_t i = 4; i < 16; ++i) {
    const __m128i three_back = w[(i + 1) % 4], two_back = w[(i + 2) % 4], one_back = w[(i + 3) % 4];
    // w[t - 16] + s0(w[t - 15]) + w[t - 7], and then s1 of the two words before, which the instruction feeds itself.
    const __m128i partial =
        _mm_add_epi32(_mm_sha256msg1_epu32(w[i % 4], three_back), _mm_alignr_epi8(one_back, two_back, 4));
    w[i % 4] = _mm_sha256msg2_epu32(partial, one_back);
    four_rounds(abef, cdgh, w[i % 4], kRound.data() + 4 * i);
  }
  abef = _mm_add_epi32(abef, abef_before);
  cdgh = _mm_add_epi32(cdgh, cdgh_before);
  state = {static_cast<uint32_t>(_mm_extract_epi32(abef, 3)), static_cast<uint32_t>(_mm_extract_epi32(abef, 2)),
           static_cast<uint32_t>(_mm_extract_epi32(cdgh, 3)), static_cast<uint32_t>(_mm_extract_epi32(cdgh, 2)),
           static_cast<uint32_t>(_mm_extract_epi32(abef, 1)), static_cast<uint32_t>(_mm_extract_epi32(abef, 0)),
           static_cast<uint32_t>(_mm_extract_epi32(cdgh, 1)), static_cast<uint32_t>(_mm_extract_epi32(cdgh, 0))};
}

}  // namespace

Sha256::Sha256(Unit unit)
    : with_instructions_(unit == Unit::best && has_sha_instructions()),
      state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19} {}

void Sha256::compress(const std::byte* block) {
  if (with_instructions_) {
    compress_with_instructions(state_, block);
    return;
  }
  compress_in_words(state_, block);
}

void Sha256::update(std::span<const std::byte> bytes) {
  total_bytes_ += bytes.size();
  while (!bytes.empty()) {
    if (pending_bytes_ == 0 && bytes.size() >= 64) {
      compress(bytes.data());
      bytes = bytes.subspan(64);
      continue;
    }
    const size_t take = std::min(bytes.size(), 64 - pending_bytes_);
    std::memcpy(pending_.data() + pending_bytes_, bytes.data(), take);
    pending_bytes_ += take;
    bytes = bytes.subspan(take);
    if (pending_bytes_ == 64) {
      compress(pending_.data());
      pending_bytes_ = 0;
    }
  }
}

std::string Sha256::finish() {
  const uint64_t bits = __builtin_bswap64(total_bytes_ * 8);
  const size_t padding = (pending_bytes_ < 56 ? 56 : 120) - pending_bytes_;
  std::vector<std::byte> tail(padding + 8);
  tail[0] = std::byte{0x80};
  std::memcpy(tail.data() + padding, &bits, 8);
  update(tail);
  constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (const uint32_t word : state_) {
    for (int shift = 28; shift >= 0; shift -= 4) hex += kDigits[(word >> shift) & 15u];
  }
  return hex;
}

std::string sha256_hex(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.finish();
}

std::string sha256_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail_bad_input("cannot read " + path.string() + " to hash it; check that it exists and may be read");
  Sha256 hash;
  std::vector<char> buffer(1 << 20);
  while (file) {
    file.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    hash.update(std::as_bytes(std::span(buffer.data(), static_cast<size_t>(file.gcount()))));
  }
  return hash.finish();
}

}  // namespace collimate
