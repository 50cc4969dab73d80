// Matrix products of bf16 values with fp32 sums, on the processor's own bf16 unit.
//
// 1. Operands are rounded to bf16 (nearest even, denormals to zero) when they are packed; products are exact, and sums
//    are fp32 in the unit's own order: `amx` and `avx512` may differ in the last bits.
// 2. Rows and columns are cut by shape alone, and k is never split; so bytes do not depend on the pool.
// 3. There is no emulation: where bf16_unit() is `none`, a product is JobFailure(bad_input).
#pragma once

#include <cstdint>

#include "core/large_buffer.h"
#include "core/pool.h"

namespace collimate {

enum class Bf16Unit { none, avx512, amx };

const char* bf16_unit_name(Bf16Unit unit);  // "none", "avx512", "amx"
// The best that the processor, the kernel and COLLIMATE_ISA allow; COLLIMATE_BF16 (none, avx512, amx) pins it lower.
Bf16Unit bf16_unit();

// A as the units read it: [rows / 16][k / 32][16][32], zero beyond rows and k.
class Bf16Rows {
 public:
  static constexpr int64_t kRows = 16;  // of one block
  static constexpr int64_t kDepth = 32;

  struct Source {
    const float* values = nullptr;  // [rows, k]
    int64_t rows = 0, k = 0, stride = 0;
  };
  // Sizes the buffer; pack_block fills it.
  void resize(int64_t rows, int64_t k);
  int64_t blocks() const { return blocks_; }
  // Rounds rows [16 * block, 16 * (block + 1)) of the source.
  void pack_block(const Source& source, int64_t block);
  void pack(const Source& source);
  const uint16_t* block(int64_t index) const { return values_.data() + index * block_size_; }
  int64_t block_size() const { return block_size_; }
  int64_t k_padded() const { return block_size_ / kRows; }

 private:
  LargeBuffer<uint16_t> values_;
  int64_t blocks_ = 0, block_size_ = 0;
};

// B as the units read it: panels of 32 columns, [n / 32][k / 2][32][2], zero beyond n and k.
class Bf16Panels {
 public:
  static constexpr int64_t kColumns = 32;

  struct Source {
    const float* values = nullptr;  // B[k, n], or B transposed [n, k]
    bool transposed = false;
    int64_t k = 0, n = 0, stride = 0;
    float factor = 1.0f;  // applied before rounding
  };
  void pack(Pool& pool, const Source& source);
  // The same for a source of the same shape of which only B[k >= first_k] and B[:, n >= first_n] have changed.
  void pack_again(Pool& pool, const Source& source, int64_t first_k, int64_t first_n);
  int64_t k() const { return k_; }
  int64_t n() const { return n_; }
  int64_t panels() const { return (n_ + kColumns - 1) / kColumns; }
  int64_t k_padded() const { return k_padded_; }
  const uint16_t* panel(int64_t index) const { return values_.data() + index * k_padded_ * kColumns; }
  bool empty() const { return values_.empty(); }
  int64_t bytes() const { return static_cast<int64_t>(values_.size() * sizeof(uint16_t)); }

 private:
  void pack_panel(const Source& source, int64_t index, int64_t first_k);
  LargeBuffer<uint16_t> values_;
  int64_t k_ = 0, n_ = 0, k_padded_ = 0;
};

// C[m, n] = A B, plus C itself when `accumulate`.
struct Bf16GemmArgs {
  int64_t m = 0;
  const float* a = nullptr;  // [m, b->k()], rounded to bf16 here
  int64_t lda = 0;
  const Bf16Panels* b = nullptr;
  bool accumulate = false;
  float* c = nullptr;
  int64_t ldc = 0;
};
void gemm_bf16(Pool& pool, const Bf16GemmArgs& args);

// Rows that are packed already, on the calling thread: blocks [first, first + blocks) of A against panels
// [panel, panel + panels), of which `rows` rows are written.
struct Bf16Tile {
  const Bf16Rows* a = nullptr;
  int64_t first_block = 0, rows = 0;
  int64_t first_k = 0;  // of A, a multiple of 32: B's k begins there
  const Bf16Panels* b = nullptr;
  int64_t first_panel = 0, panels = 0;
  const float* bias = nullptr;  // by column of B, from the first panel's first: C starts there, not at 0
  bool accumulate = false;
  float* c = nullptr;  // of the first row and the first panel's first column
  int64_t ldc = 0;
};
void gemm_bf16_tile(const Bf16Tile& tile);

}  // namespace collimate
