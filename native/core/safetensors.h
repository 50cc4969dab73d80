// Reading (memory-mapped) and writing of safetensors files.
//
// 1. A writer's bytes depend only on tensor names, shapes, types, values and metadata: names sorted, header padded with
// spaces to 8.
// 2. A reader checks every offset against the file before it hands out a pointer; a bad file is
// JobFailure(corrupt_artifact)
//    for a damaged one and JobFailure(bad_input) for a missing tensor, a wrong type or a wrong shape, naming the
//    tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace collimate {

enum class DType { f32, f16, bf16, i32, i64, u8 };

const char* dtype_name(DType dtype);  // "F32", ...
size_t dtype_bytes(DType dtype);

struct TensorView {
  DType dtype = DType::f32;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  size_t bytes = 0;
  int64_t elements() const;
};

// Values [first, first + count) of a tensor, f32, f16 or bf16 widened to f32. `name` is for the error on another type.
struct ValueRange {
  int64_t first = 0, count = 0;
};
void widen_values(const TensorView& view, const std::string& name, const ValueRange& range, float* to);

class SafetensorsFile {
 public:
  static SafetensorsFile open(const std::filesystem::path& path);
  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;

  const std::map<std::string, TensorView>& tensors() const;
  const std::map<std::string, std::string>& metadata() const;
  bool has(const std::string& name) const;
  const TensorView& get(const std::string& name) const;
  // Typed access; `shape` entries of -1 match anything.
  std::span<const float> f32(const std::string& name, const std::vector<int64_t>& shape) const;
  std::span<const int32_t> i32(const std::string& name, const std::vector<int64_t>& shape) const;
  std::span<const int64_t> i64(const std::string& name, const std::vector<int64_t>& shape) const;
  std::span<const uint8_t> u8(const std::string& name, const std::vector<int64_t>& shape) const;
  // f32, f16 or bf16 widened to f32.
  std::vector<float> as_f32(const std::string& name, const std::vector<int64_t>& shape) const;

 private:
  struct Impl;
  explicit SafetensorsFile(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

class SafetensorsWriter {
 public:
  // The pointed-to data must live until write().
  void add(const std::string& name, DType dtype, std::vector<int64_t> shape, const void* data);
  void add_f32(const std::string& name, std::vector<int64_t> shape, std::span<const float> values);
  void add_i32(const std::string& name, std::vector<int64_t> shape, std::span<const int32_t> values);
  void add_i64(const std::string& name, std::vector<int64_t> shape, std::span<const int64_t> values);
  void set_metadata(const std::string& key, const std::string& value);
  // Temporary name, fsync, rename. ENOSPC and EROFS become JobFailure(store_unavailable).
  void write(const std::filesystem::path& path) const;

 private:
  std::map<std::string, TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace collimate
