// SHA-256 (FIPS 180-4), for the numerics class, for digests of small things, and for the state that ranks compare.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace collimate {

class Sha256 {
 public:
  enum class Unit { best, words };  // words: without the processor's SHA instructions, for tests
  explicit Sha256(Unit unit = Unit::best);
  void update(std::span<const std::byte> bytes);
  void update(const std::string& text) { update(std::as_bytes(std::span(text.data(), text.size()))); }
  // Lower-case hexadecimal; the object is used up afterwards.
  std::string finish();

 private:
  void compress(const std::byte* block);
  bool with_instructions_;
  std::array<uint32_t, 8> state_;
  std::array<std::byte, 64> pending_{};
  size_t pending_bytes_ = 0;
  uint64_t total_bytes_ = 0;
};

std::string sha256_hex(std::span<const std::byte> bytes);
// JobFailure(bad_input) when the file cannot be read.
std::string sha256_file(const std::filesystem::path& path);

}  // namespace collimate
