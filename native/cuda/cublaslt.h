// bf16 products by NVIDIA's cuBLASLt, loaded when a device is opened, since a machine may lack it.
//
// 1. COLLIMATE_CUBLASLT: `auto` (where it is found; the default), `off`, `on` (a device without it is an error) or the
//    path of the library.
// 2. An algorithm splits no sum and needs no workspace, and it is chosen for what is multiplied by, not for how many
//    rows there are: a row's bits depend on the row alone.
// 3. What cuBLASLt has no such algorithm for is left to the kernel of cuda/gemm_bf16.cu.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "cuda/fp8.h"
#include "cuda/gemm.h"

namespace collimate::cuda {

struct CublasLtLibrary;  // its functions

// c[m, n] = a bᵀ, operands in eight bits, each with its scale.
struct Fp8Product {
  static constexpr int64_t kMultiple = 16;  // that the library's sizes are
  int64_t m = 0, n = 0, k = 0;
  Fp8Format a_format = Fp8Format::e4m3;
  const uint8_t* a = nullptr;  // [m, k]
  const uint8_t* b = nullptr;  // [n, k], e4m3
  const float *a_inverse_scale = nullptr, *b_inverse_scale = nullptr;
  float* c = nullptr;          // [m, n]
  uint16_t* c_bf16 = nullptr;  // in place of c where it is given
  int64_t ldc = 0;
};

class CublasLt {
 public:
  // To be made with the device current. JobFailure(bad_input) where it is asked for and cannot be had.
  CublasLt();
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  // False, with nothing done, where the product is not cuBLASLt's.
  bool multiply(Device& device, const Bf16Product& product);
  bool multiply(Device& device, const Fp8Product& product);
  // False where multiply() would be for its sizes.
  bool takes(const Fp8Product& product) const;
  bool is_used() const { return library_ != nullptr; }
  // "cuBLASLt 13.0.2", or why there is none.
  const std::string& description() const { return description_; }

 private:
  // What a product looks like to the library, without its addresses.
  struct Shape {
    int type_a, type_b, type_c;
    bool transpose_a, transpose_b, accumulate;
    int64_t m, n, k, lda, ldb, ldc;
    int64_t alignment_a, alignment_b, alignment_c;  // bytes, at most 16
    auto operator<=>(const Shape&) const = default;
  };
  using Algorithm = std::array<uint64_t, 8>;
  struct Descriptors;
  struct Plan;
  struct Operands;
  const Plan& plan_for(const Shape& shape);
  bool multiply(Device& device, const Shape& shape, const Operands& operands);
  std::optional<Algorithm> choose(const Shape& shape) const;

  std::string description_;
  std::unique_ptr<const CublasLtLibrary> library_;  // null: there is none
  void* handle_ = nullptr;
  std::map<Shape, std::optional<Algorithm>> algorithms_;  // of the shapes that they are chosen for
  std::map<Shape, std::unique_ptr<const Plan>> plans_;
};

}  // namespace collimate::cuda
