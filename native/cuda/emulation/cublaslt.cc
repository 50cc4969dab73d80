// Stands in for libcublasLt in tests without a card: the functions that cuda/cublaslt.cu loads, with plain loops for
// kernels. Built as a shared library of its own, so that the tests load it as they would the real one.
//
// 1. It is stricter than the real one: an algorithm that splits sums, a workspace, or an address below the alignment
//    that was promised is an error.
// 2. Its first proposals split sums, and it has none for results of kWithoutAlgorithm columns: a caller that takes what
//    comes first, or expects a proposal always, fails.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace {

constexpr int kSuccess = 0, kInvalid = 7, kNotSupported = 15;
constexpr int kWithoutAlgorithm = 13;

struct Product {
  int transpose_first = 0, transpose_second = 0;
  const float *scale_first = nullptr, *scale_second = nullptr;
};
struct Layout {
  int type = 0;
  uint64_t rows = 0, columns = 0;
  int64_t stride = 0;
};
struct Preference {
  std::array<uint32_t, 9> value{};
  uint64_t workspace = 1 << 20;
};
// The words of an algorithm, as this library uses them.
enum Word { kSplits = 0, kReduction = 1, kAlignFirst = 2, kAlignSecond = 3, kAlignResult = 4 };
using Algorithm = std::array<uint64_t, 8>;
struct Result {
  Algorithm algorithm;
  size_t workspace_bytes;
  int status;
  float waves;
  int reserved[4];
};

int64_t multiplications = 0;

template <typename T>
int give(void** to, T value) {
  *to = new T(value);
  return kSuccess;
}
template <typename T>
int take(void* object) {
  delete static_cast<T*>(object);
  return kSuccess;
}
bool is_on(const void* address, uint64_t alignment) { return reinterpret_cast<uintptr_t>(address) % alignment == 0; }

// To the nearest, ties to even.
uint16_t narrowed(float value) {
  uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

float widened(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value = 0.0f;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

// Eight bits with so many of mantissa; by the definition of the format.
float widened(uint8_t code, int mantissa_bits) {
  const int magnitude = code & 0x7f, exponent = magnitude >> mantissa_bits, bias = mantissa_bits == 3 ? 7 : 15;
  const int mantissa = magnitude & ((1 << mantissa_bits) - 1), one = exponent > 0 ? 1 << mantissa_bits : 0;
  const float value = std::ldexp(static_cast<float>(one + mantissa), std::max(exponent, 1) - bias - mantissa_bits);
  if (magnitude == 0x7f) return NAN;
  return (code & 0x80) != 0 ? -value : value;
}

constexpr int kFp32 = 0, kBf16 = 14, kE4m3 = 28, kE5m2 = 29;

// op(matrix)[row, column] of values in columns.
float at(const void* values, const Layout& layout, bool transposed, uint64_t row, uint64_t column) {
  const uint64_t stride = static_cast<uint64_t>(layout.stride);
  const uint64_t place = transposed ? row * stride + column : column * stride + row;
  if (layout.type == kBf16) return widened(static_cast<const uint16_t*>(values)[place]);
  return widened(static_cast<const uint8_t*>(values)[place], layout.type == kE4m3 ? 3 : 2);
}

bool fits(const Product& p, const Layout& first, const Layout& second, const Layout& result) {
  const uint64_t rows = p.transpose_first ? first.columns : first.rows;
  const uint64_t depth = p.transpose_first ? first.rows : first.columns;
  const uint64_t other = p.transpose_second ? second.columns : second.rows;
  const uint64_t columns = p.transpose_second ? second.rows : second.columns;
  const auto spans = [](const Layout& l) { return l.stride >= static_cast<int64_t>(l.rows); };
  const bool are_bf16 = first.type == kBf16 && second.type == kBf16;
  // As on the cards of 2022: eight bits only transposed times plain, and of sizes that fill sixteen bytes.
  const auto is_whole = [](const Layout& l) { return l.rows % 16 == 0 && l.columns % 16 == 0 && l.stride % 16 == 0; };
  const bool are_fp8 = first.type == kE4m3 && (second.type == kE4m3 || second.type == kE5m2) &&
                       p.transpose_first == 1 && p.transpose_second == 0 && is_whole(first) && is_whole(second);
  return rows == result.rows && columns == result.columns && depth == other && spans(first) && spans(second) &&
         spans(result) && (are_bf16 || are_fp8) && (result.type == kFp32 || result.type == kBf16);
}

}  // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED int64_t stand_in_multiplications() { return multiplications; }

EXPORTED size_t cublasLtGetVersion() { return 130002; }
EXPORTED int cublasLtCreate(void** handle) { return give(handle, 0); }
EXPORTED int cublasLtDestroy(void* handle) { return take<int>(handle); }

EXPORTED int cublasLtMatmulDescCreate(void** product, int compute_type, int scale_type) {
  return compute_type == 68 && scale_type == 0 ? give(product, Product{}) : kNotSupported;
}
EXPORTED int cublasLtMatmulDescDestroy(void* product) { return take<Product>(product); }
EXPORTED int cublasLtMatmulDescSetAttribute(void* product, int attribute, const void* value, size_t bytes) {
  auto& p = *static_cast<Product*>(product);
  if ((attribute == 17 || attribute == 18) && bytes == sizeof(const float*)) {
    std::memcpy(attribute == 17 ? &p.scale_first : &p.scale_second, value, bytes);
    return kSuccess;
  }
  if ((attribute != 3 && attribute != 4) || bytes != sizeof(int)) return kInvalid;
  std::memcpy(attribute == 3 ? &p.transpose_first : &p.transpose_second, value, bytes);
  return kSuccess;
}

EXPORTED int cublasLtMatrixLayoutCreate(void** layout, int type, uint64_t rows, uint64_t columns, int64_t stride) {
  return give(layout, Layout{type, rows, columns, stride});
}
EXPORTED int cublasLtMatrixLayoutDestroy(void* layout) { return take<Layout>(layout); }

EXPORTED int cublasLtMatmulPreferenceCreate(void** preference) { return give(preference, Preference{}); }
EXPORTED int cublasLtMatmulPreferenceDestroy(void* preference) { return take<Preference>(preference); }
EXPORTED int cublasLtMatmulPreferenceSetAttribute(void* preference, int attribute, const void* value, size_t bytes) {
  auto& p = *static_cast<Preference*>(preference);
  if (attribute == 1 && bytes == sizeof p.workspace) {
    std::memcpy(&p.workspace, value, bytes);
    return kSuccess;
  }
  if (attribute < 3 || attribute > 8 || bytes != sizeof(uint32_t)) return kInvalid;
  std::memcpy(&p.value[static_cast<size_t>(attribute)], value, bytes);
  return kSuccess;
}

EXPORTED int cublasLtMatmulAlgoGetHeuristic(void*, void* product, void* first, void* second, void* result, void*,
                                            void* preference, int wanted, Result* results, int* found) {
  const auto& p = *static_cast<Preference*>(preference);
  const auto& to = *static_cast<Layout*>(result);
  *found = 0;
  if (!fits(*static_cast<Product*>(product), *static_cast<Layout*>(first), *static_cast<Layout*>(second), to))
    return kInvalid;
  if (to.rows == kWithoutAlgorithm) return kNotSupported;
  Algorithm plain{};
  plain[kSplits] = 1;
  plain[kAlignFirst] = p.value[5];
  plain[kAlignSecond] = p.value[6];
  plain[kAlignResult] = p.value[7];
  Algorithm split = plain, reduced = plain;
  split[kSplits] = 4;
  reduced[kReduction] = 2;
  for (const Algorithm& one : {split, reduced, plain})
    if (*found < wanted) results[(*found)++] = {one, 0, kSuccess, 1.0f, {}};
  return kSuccess;
}

EXPORTED int cublasLtMatmulAlgoConfigGetAttribute(const void* algorithm, int attribute, void* value, size_t bytes,
                                                  size_t* written) {
  const auto& a = *static_cast<const Algorithm*>(algorithm);
  if ((attribute != 2 && attribute != 3) || bytes != sizeof(uint32_t)) return kInvalid;
  const auto number = static_cast<uint32_t>(a[attribute == 2 ? kSplits : kReduction]);
  std::memcpy(value, &number, bytes);
  *written = bytes;
  return kSuccess;
}

EXPORTED int cublasLtMatmulAlgoCheck(void*, void* product, void* first, void* second, void* result, void*,
                                     const void* algorithm, Result* answer) {
  *answer = {*static_cast<const Algorithm*>(algorithm), 0, kSuccess, 1.0f, {}};
  return fits(*static_cast<Product*>(product), *static_cast<Layout*>(first), *static_cast<Layout*>(second),
              *static_cast<Layout*>(result))
             ? kSuccess
             : kInvalid;
}

EXPORTED int cublasLtMatmul(void*, void* product, const void* alpha, const void* a, void* a_layout, const void* b,
                            void* b_layout, const void* beta, const void* c, void* c_layout, void* d, void* d_layout,
                            const void* algorithm, void* workspace, size_t workspace_bytes, void*) {
  const auto& p = *static_cast<Product*>(product);
  const auto &first = *static_cast<Layout*>(a_layout), &second = *static_cast<Layout*>(b_layout);
  const auto& result = *static_cast<Layout*>(d_layout);
  const auto& chosen = *static_cast<const Algorithm*>(algorithm);
  if (chosen[kSplits] != 1 || chosen[kReduction] != 0 || workspace != nullptr || workspace_bytes != 0) return kInvalid;
  if (!is_on(a, chosen[kAlignFirst]) || !is_on(b, chosen[kAlignSecond]) || !is_on(d, chosen[kAlignResult]))
    return kInvalid;
  if (c != d || c_layout != d_layout || !fits(p, first, second, result)) return kInvalid;
  float factor = 0.0f, kept = 0.0f;
  std::memcpy(&factor, alpha, sizeof factor);
  std::memcpy(&kept, beta, sizeof kept);
  if ((first.type == kBf16) != (p.scale_first == nullptr) || (p.scale_first == nullptr) != (p.scale_second == nullptr))
    return kInvalid;
  if (p.scale_first != nullptr) factor *= *p.scale_first * *p.scale_second;
  const uint64_t depth = p.transpose_first ? first.rows : first.columns;
  for (uint64_t column = 0; column < result.columns; ++column) {
    for (uint64_t row = 0; row < result.rows; ++row) {
      float sum = 0.0f;
      for (uint64_t k = 0; k < depth; ++k)
        sum += at(a, first, p.transpose_first != 0, row, k) * at(b, second, p.transpose_second != 0, k, column);
      const uint64_t place = column * static_cast<uint64_t>(result.stride) + row;
      if (result.type == kBf16) {
        uint16_t& to = static_cast<uint16_t*>(d)[place];
        to = narrowed(kept == 0.0f ? factor * sum : factor * sum + kept * widened(to));
      } else {
        float& to = static_cast<float*>(d)[place];
        to = kept == 0.0f ? factor * sum : factor * sum + kept * to;
      }
    }
  }
  ++multiplications;
  return kSuccess;
}
