// Reading of safetensors: the file is mapped, the header checked in full, tensors handed out in place.
//
// 1. No pointer leaves before its range was checked against the file.
// 2. A tensor whose bytes are not aligned to its type is copied once, so that typed access is defined.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/failure.h"
#include "core/json.h"
#include "core/safetensors.h"

namespace collimate {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian, and so must be the machine");

constexpr uint64_t kHeaderBytesMax = 100'000'000;

struct DTypeRow {
  DType dtype;
  const char* name;
  size_t bytes;
};
constexpr DTypeRow kDTypes[] = {{DType::f32, "F32", 4}, {DType::f16, "F16", 2}, {DType::bf16, "BF16", 2},
                                {DType::i32, "I32", 4}, {DType::i64, "I64", 8}, {DType::u8, "U8", 1}};

const DTypeRow* find_dtype(const std::string& name) {
  for (const DTypeRow& row : kDTypes) {
    if (name == row.name) return &row;
  }
  return nullptr;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (const int64_t size : shape) {
    if (text.size() > 1) text += ", ";
    text += size < 0 ? "any" : std::to_string(size);
  }
  return text + "]";
}

float widen_f16(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 31u;
  const uint32_t mantissa = half & 1023u;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float value = static_cast<float>(mantissa) * 0x1p-24f;
  return sign != 0 ? -value : value;
}

}  // namespace

const char* dtype_name(DType dtype) {
  for (const DTypeRow& row : kDTypes) {
    if (row.dtype == dtype) return row.name;
  }
  return "?";
}

size_t dtype_bytes(DType dtype) {
  for (const DTypeRow& row : kDTypes) {
    if (row.dtype == dtype) return row.bytes;
  }
  return 0;
}

int64_t TensorView::elements() const {
  int64_t product = 1;
  for (const int64_t size : shape) product *= size;
  return product;
}

struct SafetensorsFile::Impl {
  std::string path;
  void* map = nullptr;
  size_t map_bytes = 0;
  std::map<std::string, TensorView> tensors;
  std::map<std::string, std::string> metadata;
  std::map<std::string, std::string> unsupported;  // tensor name -> type
  std::vector<std::unique_ptr<std::byte[]>> copies;

  ~Impl() {
    if (map != nullptr) munmap(map, map_bytes);
  }

  [[noreturn]] void corrupt(const std::string& what) const {
    throw JobFailure(FailureCause::corrupt_artifact,
                     path + " is not a whole safetensors file: " + what + "; fetch or rebuild it");
  }

  void map_file() {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
      fail_bad_input("cannot open " + path + " (" + std::strerror(errno) + "); check that it exists and may be read");
    }
    struct stat info{};
    const bool known = fstat(fd, &info) == 0;
    map_bytes = known ? static_cast<size_t>(info.st_size) : 0;
    if (known && map_bytes >= 8) map = mmap(nullptr, map_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    const int error = errno;
    ::close(fd);
    if (map_bytes < 8) corrupt("it has " + std::to_string(map_bytes) + " bytes, fewer than the 8 of the header's size");
    if (map == MAP_FAILED) {
      map = nullptr;
      throw JobFailure(FailureCause::store_unavailable, "cannot map " + path + ": " + std::strerror(error));
    }
  }

  void read_header() {
    const auto* bytes = static_cast<const std::byte*>(map);
    uint64_t header_bytes = 0;
    std::memcpy(&header_bytes, bytes, 8);
    if (header_bytes > kHeaderBytesMax || header_bytes > map_bytes - 8) {
      corrupt("the header claims " + std::to_string(header_bytes) + " bytes of a file of " + std::to_string(map_bytes));
    }
    const char* text = reinterpret_cast<const char*>(bytes) + 8;
    const Json header = Json::parse(text, text + header_bytes, nullptr, false);
    if (!header.is_object()) corrupt("the header is not a JSON object");
    const std::byte* data = bytes + 8 + header_bytes;
    const uint64_t data_bytes = map_bytes - 8 - header_bytes;
    for (const auto& [name, entry] : header.items()) {
      if (name == "__metadata__") {
        read_metadata(entry);
      } else {
        read_entry(name, entry, data, data_bytes);
      }
    }
  }

  void read_metadata(const Json& entry) {
    if (!entry.is_object()) corrupt("__metadata__ is not an object");
    for (const auto& [key, value] : entry.items()) {
      if (!value.is_string()) corrupt("__metadata__." + key + " is not a string");
      metadata[key] = value.get<std::string>();
    }
  }

  void read_entry(const std::string& name, const Json& entry, const std::byte* data, uint64_t data_bytes) {
    if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string() || !entry.contains("shape") ||
        !entry["shape"].is_array() || !entry.contains("data_offsets") || !entry["data_offsets"].is_array() ||
        entry["data_offsets"].size() != 2 || !entry["data_offsets"][0].is_number_unsigned() ||
        !entry["data_offsets"][1].is_number_unsigned()) {
      corrupt("the entry of tensor " + name + " lacks a dtype, a shape or two data_offsets");
    }
    const uint64_t begin = entry["data_offsets"][0].get<uint64_t>();
    const uint64_t end = entry["data_offsets"][1].get<uint64_t>();
    if (begin > end || end > data_bytes) {
      corrupt("tensor " + name + " claims bytes " + std::to_string(begin) + " to " + std::to_string(end) + " of " +
              std::to_string(data_bytes));
    }
    TensorView view;
    uint64_t elements = 1;
    for (const Json& size : entry["shape"]) {
      if (!size.is_number_unsigned() || size.get<uint64_t>() > INT64_MAX ||
          __builtin_mul_overflow(elements, size.get<uint64_t>(), &elements)) {
        corrupt("the shape of tensor " + name + " is not a list of sizes");
      }
      view.shape.push_back(size.get<int64_t>());
    }
    const DTypeRow* dtype = find_dtype(entry["dtype"].get<std::string>());
    if (dtype == nullptr) {
      unsupported[name] = entry["dtype"].get<std::string>();
      return;
    }
    uint64_t expected = 0;
    if (__builtin_mul_overflow(elements, static_cast<uint64_t>(dtype->bytes), &expected) || expected != end - begin) {
      corrupt("tensor " + name + " of shape " + shape_text(view.shape) + " and type " + dtype->name + " has " +
              std::to_string(end - begin) + " bytes");
    }
    view.dtype = dtype->dtype;
    view.bytes = end - begin;
    view.data = aligned(data + begin, view.bytes, dtype->bytes);
    tensors.emplace(name, std::move(view));
  }

  const std::byte* aligned(const std::byte* data, size_t bytes, size_t alignment) {
    if (reinterpret_cast<uintptr_t>(data) % alignment == 0) return data;
    copies.push_back(std::make_unique<std::byte[]>(bytes));
    std::memcpy(copies.back().get(), data, bytes);
    return copies.back().get();
  }
};

SafetensorsFile::SafetensorsFile(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SafetensorsFile::~SafetensorsFile() = default;
SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;
SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&&) noexcept = default;

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  auto impl = std::make_unique<Impl>();
  impl->path = path.string();
  impl->map_file();
  impl->read_header();
  return SafetensorsFile(std::move(impl));
}

const std::map<std::string, TensorView>& SafetensorsFile::tensors() const { return impl_->tensors; }
const std::map<std::string, std::string>& SafetensorsFile::metadata() const { return impl_->metadata; }
bool SafetensorsFile::has(const std::string& name) const { return impl_->tensors.count(name) != 0; }

const TensorView& SafetensorsFile::get(const std::string& name) const {
  const auto found = impl_->tensors.find(name);
  if (found != impl_->tensors.end()) return found->second;
  const auto other = impl_->unsupported.find(name);
  if (other != impl_->unsupported.end()) {
    fail_bad_input("tensor " + name + " of " + impl_->path + " has type " + other->second +
                   "; expected F32, F16, BF16, I32, I64 or U8");
  }
  std::string present;
  for (const auto& [key, view] : impl_->tensors) {
    if (present.size() > 200) {
      present += ", …";
      break;
    }
    present += (present.empty() ? "" : ", ") + key;
  }
  fail_bad_input("tensor " + name + " is missing in " + impl_->path + ", which has: " + present);
}

namespace {

template <typename T>
std::span<const T> typed(const TensorView& view) {
  return {reinterpret_cast<const T*>(view.data), view.bytes / sizeof(T)};
}

void check_shape(const std::string& name, const TensorView& view, const std::vector<int64_t>& shape) {
  bool equal = view.shape.size() == shape.size();
  for (size_t i = 0; equal && i < shape.size(); ++i) equal = shape[i] < 0 || shape[i] == view.shape[i];
  if (!equal) {
    fail_bad_input("tensor " + name + " has shape " + shape_text(view.shape) + "; expected " + shape_text(shape));
  }
}

const TensorView& checked(const SafetensorsFile& file, const std::string& name, DType dtype,
                          const std::vector<int64_t>& shape) {
  const TensorView& view = file.get(name);
  if (view.dtype != dtype) {
    fail_bad_input("tensor " + name + " has type " + dtype_name(view.dtype) + "; expected " + dtype_name(dtype));
  }
  check_shape(name, view, shape);
  return view;
}

}  // namespace

std::span<const float> SafetensorsFile::f32(const std::string& name, const std::vector<int64_t>& shape) const {
  return typed<float>(checked(*this, name, DType::f32, shape));
}
std::span<const int32_t> SafetensorsFile::i32(const std::string& name, const std::vector<int64_t>& shape) const {
  return typed<int32_t>(checked(*this, name, DType::i32, shape));
}
std::span<const int64_t> SafetensorsFile::i64(const std::string& name, const std::vector<int64_t>& shape) const {
  return typed<int64_t>(checked(*this, name, DType::i64, shape));
}
std::span<const uint8_t> SafetensorsFile::u8(const std::string& name, const std::vector<int64_t>& shape) const {
  return typed<uint8_t>(checked(*this, name, DType::u8, shape));
}

void widen_values(const TensorView& view, const std::string& name, const ValueRange& range, float* to) {
  const auto count = static_cast<size_t>(range.count), first = static_cast<size_t>(range.first);
  if (view.dtype == DType::f32) {
    if (count != 0) std::memcpy(to, typed<float>(view).data() + first, count * sizeof(float));
  } else if (view.dtype == DType::bf16) {
    const auto halves = typed<uint16_t>(view).subspan(first, count);
    for (size_t i = 0; i < count; ++i) to[i] = std::bit_cast<float>(static_cast<uint32_t>(halves[i]) << 16);
  } else if (view.dtype == DType::f16) {
    const auto halves = typed<uint16_t>(view).subspan(first, count);
    for (size_t i = 0; i < count; ++i) to[i] = widen_f16(halves[i]);
  } else {
    fail_bad_input("tensor " + name + " has type " + dtype_name(view.dtype) + "; expected F32, F16 or BF16");
  }
}

std::vector<float> SafetensorsFile::as_f32(const std::string& name, const std::vector<int64_t>& shape) const {
  const TensorView& view = get(name);
  check_shape(name, view, shape);
  std::vector<float> values(static_cast<size_t>(view.elements()));
  widen_values(view, name, {0, view.elements()}, values.data());
  return values;
}

}  // namespace collimate
