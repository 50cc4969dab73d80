// Safetensors: round trips, stable bytes, and a clear failure for every kind of damage.
#include <doctest/doctest.h>

#include <cstring>
#include <fstream>
#include <functional>

#include "core/atomic_file.h"
#include "core/failure.h"
#include "core/safetensors.h"
#include "core/sha256.h"
#include "test/temporary_folder.h"

namespace collimate {
namespace {

std::string with_header(const std::string& header, const std::string& data) {
  const uint64_t bytes = header.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &bytes, 8);
  return file + header + data;
}

FailureCause cause_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const JobFailure& failure) {
    return failure.cause();
  }
  FAIL("expected a JobFailure");
  return FailureCause::internal;
}

}  // namespace

TEST_CASE("safetensors: what is written is read, in sorted and padded form") {
  TemporaryFolder folder;
  const auto path = folder.path() / "a.safetensors";
  const std::vector<float> weights = {1, 2, 3, 4, 5, 6};
  const std::vector<int32_t> codes = {-1, 7};
  const std::vector<int64_t> sizes = {1ll << 40};
  const std::vector<uint8_t> mask = {1, 0, 1};
  SafetensorsWriter writer;
  writer.add_f32("weights", {2, 3}, weights);
  writer.add("mask", DType::u8, {3}, mask.data());
  writer.add_i32("codes", {2}, codes);
  writer.add_i64("sizes", {1}, sizes);
  writer.add_f32("none", {0, 4}, {});
  writer.set_metadata("config", "{\"a\": \"ü\"}");
  writer.write(path);

  const SafetensorsFile file = SafetensorsFile::open(path);
  CHECK(file.metadata().at("config") == "{\"a\": \"ü\"}");
  const auto read = file.f32("weights", {-1, 3});
  CHECK(std::vector<float>(read.begin(), read.end()) == weights);
  CHECK(file.i32("codes", {2})[0] == -1);
  CHECK(file.i64("sizes", {1})[0] == 1ll << 40);  // behind three bytes of mask: copied to an aligned place
  CHECK(file.u8("mask", {3})[2] == 1);
  CHECK(file.f32("none", {0, 4}).empty());
  CHECK(file.tensors().size() == 5);

  const std::string bytes = read_text_file(path);
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), 8);
  CHECK(header_bytes % 8 == 0);
  CHECK(bytes.find("codes") < bytes.find("mask"));
  writer.write(folder.path() / "b.safetensors");
  CHECK(sha256_file(folder.path() / "b.safetensors") == sha256_file(path));
}

TEST_CASE("safetensors: half precision is widened exactly") {
  TemporaryFolder folder;
  const std::vector<uint16_t> bf16 = {0x3f80, 0xc000, 0x0000, 0x7f80};
  const std::vector<uint16_t> f16 = {0x3c00, 0xc000, 0x0001, 0x7c00, 0x83ff};
  SafetensorsWriter writer;
  writer.add("b", DType::bf16, {4}, bf16.data());
  writer.add("h", DType::f16, {5}, f16.data());
  writer.write(folder.path() / "x");
  const SafetensorsFile file = SafetensorsFile::open(folder.path() / "x");
  CHECK(file.as_f32("b", {4}) == std::vector<float>{1, -2, 0, std::numeric_limits<float>::infinity()});
  CHECK(file.as_f32("h", {5}) ==
        std::vector<float>{1, -2, 0x1p-24f, std::numeric_limits<float>::infinity(), -1023 * 0x1p-24f});
}

TEST_CASE("safetensors: wrong requests are bad input and name the tensor") {
  TemporaryFolder folder;
  const std::vector<float> values = {1, 2};
  SafetensorsWriter writer;
  writer.add_f32("x", {2}, values);
  writer.write(folder.path() / "x");
  const SafetensorsFile file = SafetensorsFile::open(folder.path() / "x");
  CHECK(cause_of([&] { file.f32("y", {2}); }) == FailureCause::bad_input);
  CHECK(cause_of([&] { file.i32("x", {2}); }) == FailureCause::bad_input);
  CHECK(cause_of([&] { file.f32("x", {3}); }) == FailureCause::bad_input);
  CHECK(cause_of([&] { file.f32("x", {2, 1}); }) == FailureCause::bad_input);
  CHECK(cause_of([&] { SafetensorsFile::open(folder.path() / "absent"); }) == FailureCause::bad_input);
  CHECK_THROWS_WITH_AS(file.f32("x", {-1, 3}), "tensor x has shape [2]; expected [any, 3]", JobFailure);
}

TEST_CASE("safetensors: damaged files are corrupt artifacts") {
  TemporaryFolder folder;
  const std::string entry = R"("x":{"dtype":"F32","shape":[2],"data_offsets":)";
  const std::vector<std::string> damaged = {
      "",
      "short",
      std::string(8, '\xff'),
      with_header("{not json", ""),
      with_header("[]", ""),
      with_header("{" + entry + "[0,8]}}", "1234567"),
      with_header("{" + entry + "[0,4]}}", "12345678"),
      with_header("{" + entry + "[8,0]}}", "12345678"),
      with_header("{" + entry + "[-1,8]}}", "12345678"),
      with_header(R"({"x":{"dtype":"F32","shape":[4611686018427387905,4],"data_offsets":[0,16]}})",
                  std::string(16, 'x')),
      with_header(R"({"x":{"dtype":"F32","shape":"2","data_offsets":[0,8]}})", "12345678"),
      with_header(R"({"__metadata__":{"a":1}})", ""),
  };
  for (const std::string& bytes : damaged) {
    CAPTURE(bytes);
    write_text_atomically(folder.path() / "x", bytes);
    CHECK(cause_of([&] { SafetensorsFile::open(folder.path() / "x"); }) == FailureCause::corrupt_artifact);
  }
}

TEST_CASE("atomic files: a target that cannot be written is a store failure and leaves nothing behind") {
  TemporaryFolder folder;
  CHECK(cause_of([&] { write_text_atomically(folder.path() / "no" / "file", "x"); }) ==
        FailureCause::store_unavailable);
  std::filesystem::create_directory(folder.path() / "taken");
  CHECK(cause_of([&] { write_text_atomically(folder.path() / "taken", "x"); }) == FailureCause::store_unavailable);
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 1);
}

TEST_CASE("sha256: known vectors") {
  const auto of = [](const std::string& text) {
    Sha256 hash;
    hash.update(text);
    return hash.finish();
  };
  CHECK(of("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(of("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(of(std::string(1000000, 'a')) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  Sha256 pieces;
  for (int i = 0; i < 1000; ++i) pieces.update(std::string(1000, 'a'));
  CHECK(pieces.finish() == of(std::string(1000000, 'a')));
}

TEST_CASE("sha256: with and without the processor's instructions it is the same hash") {
  std::string text;
  for (int size = 0; size < 300; ++size) {
    Sha256 words(Sha256::Unit::words), best;
    words.update(text);
    best.update(text);
    CHECK(words.finish() == best.finish());
    text.push_back(static_cast<char>(size * 37 + 11));
  }
}

}  // namespace collimate
