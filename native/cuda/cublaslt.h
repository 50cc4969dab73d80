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

#include "cuda/gemm.h"

namespace collimate::cuda {

struct CublasLtLibrary;  // its functions

class CublasLt {
 public:
  // To be made with the device current. JobFailure(bad_input) where it is asked for and cannot be had.
  CublasLt();
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  // False, with nothing done, where the product is not cuBLASLt's.
  bool multiply(Device& device, const Bf16Product& product);
  bool is_used() const { return library_ != nullptr; }
  // "cuBLASLt 13.0.2", or why there is none.
  const std::string& description() const { return description_; }

 private:
  // What a product looks like to the library, without its addresses.
  struct Shape {
    bool transpose_a, transpose_b, accumulate;
    int64_t m, n, k, lda, ldb, ldc;
    int64_t alignment_a, alignment_b, alignment_c;  // bytes, at most 16
    auto operator<=>(const Shape&) const = default;
  };
  using Algorithm = std::array<uint64_t, 8>;
  struct Descriptors;
  struct Plan;
  const Plan& plan_for(const Shape& shape);
  std::optional<Algorithm> choose(const Shape& shape) const;

  std::string description_;
  std::unique_ptr<const CublasLtLibrary> library_;  // null: there is none
  void* handle_ = nullptr;
  std::map<Shape, std::optional<Algorithm>> algorithms_;  // of the shapes that they are chosen for
  std::map<Shape, std::unique_ptr<const Plan>> plans_;
};

}  // namespace collimate::cuda
