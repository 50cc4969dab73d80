// Writing of safetensors: one pass over the header, then the tensors in name order.
#include <cstring>

#include "core/atomic_file.h"
#include "core/failure.h"
#include "core/json.h"
#include "core/safetensors.h"

namespace collimate {

void SafetensorsWriter::add(const std::string& name, DType dtype, std::vector<int64_t> shape, const void* data) {
  TensorView view;
  view.dtype = dtype;
  view.shape = std::move(shape);
  view.data = static_cast<const std::byte*>(data);
  view.bytes = static_cast<size_t>(view.elements()) * dtype_bytes(dtype);
  if (!tensors_.emplace(name, std::move(view)).second) {
    throw JobFailure(FailureCause::internal, "tensor " + name + " was added twice");
  }
}

namespace {

void check_count(const std::string& name, const std::vector<int64_t>& shape, size_t count) {
  int64_t elements = 1;
  for (const int64_t size : shape) elements *= size;
  if (elements != static_cast<int64_t>(count)) {
    throw JobFailure(FailureCause::internal, "tensor " + name + " has " + std::to_string(count) +
                                                 " values for a shape of " + std::to_string(elements));
  }
}

}  // namespace

void SafetensorsWriter::add_f32(const std::string& name, std::vector<int64_t> shape, std::span<const float> values) {
  check_count(name, shape, values.size());
  add(name, DType::f32, std::move(shape), values.data());
}
void SafetensorsWriter::add_i32(const std::string& name, std::vector<int64_t> shape, std::span<const int32_t> values) {
  check_count(name, shape, values.size());
  add(name, DType::i32, std::move(shape), values.data());
}
void SafetensorsWriter::add_i64(const std::string& name, std::vector<int64_t> shape, std::span<const int64_t> values) {
  check_count(name, shape, values.size());
  add(name, DType::i64, std::move(shape), values.data());
}

void SafetensorsWriter::set_metadata(const std::string& key, const std::string& value) { metadata_[key] = value; }

void SafetensorsWriter::write(const std::filesystem::path& path) const {
  Json header = Json::object();  // keys are kept sorted
  if (!metadata_.empty()) header["__metadata__"] = metadata_;
  uint64_t offset = 0;
  for (const auto& [name, view] : tensors_) {
    header[name] = {
        {"dtype", dtype_name(view.dtype)}, {"shape", view.shape}, {"data_offsets", {offset, offset + view.bytes}}};
    offset += view.bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t header_bytes = text.size();
  std::string prefix(8, '\0');
  std::memcpy(prefix.data(), &header_bytes, 8);
  prefix += text;
  std::vector<std::span<const std::byte>> parts = {std::as_bytes(std::span(prefix.data(), prefix.size()))};
  for (const auto& [name, view] : tensors_) parts.emplace_back(view.data, view.bytes);
  write_file_atomically(path, parts);
}

}  // namespace collimate
