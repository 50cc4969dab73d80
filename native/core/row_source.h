// Rows of floats that need not lie in memory: what k-means and the residual quantizer read.
//
// 1. A row's values are a function of its index alone: whoever reads it, however often and in whatever blocks, sees the
//    same bytes.
// 2. Reading is safe from any number of threads at once.
// 3. A source that holds its rows hands them out in place; the others write to the reader's scratch and keep nothing.
//    So a computation over a source needs the memory of the blocks that it reads, not that of the rows.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "core/pool.h"
#include "core/safetensors.h"

namespace collimate {

class RowSource {
 public:
  int64_t rows = 0;
  int64_t dim = 0;

  virtual ~RowSource() = default;
  // Rows [first, first + count), row-major: in `scratch` [count, dim], or where the source has them.
  virtual const float* read(int64_t first, int64_t count, float* scratch) const = 0;
  // The same, always in `to`.
  void copy(int64_t first, int64_t count, float* to) const;

 protected:
  RowSource() = default;
  RowSource(int64_t row_count, int64_t row_dim) : rows(row_count), dim(row_dim) {}
  RowSource(const RowSource&) = default;
  RowSource& operator=(const RowSource&) = default;
};

// A matrix in memory, which stays the caller's.
class RowMatrix final : public RowSource {
 public:
  const float* data = nullptr;  // [rows, dim], row-major

  RowMatrix() = default;
  RowMatrix(const float* values, int64_t row_count, int64_t row_dim) : RowSource(row_count, row_dim), data(values) {}
  const float* row(int64_t index) const { return data + index * dim; }
  const float* read(int64_t first, int64_t, float*) const override { return row(first); }
};

// A tensor [rows, dim] of a mapped safetensors file, f32, f16 or bf16, widened as it is read. Its pages are the
// system's to drop.
class TensorRows final : public RowSource {
 public:
  TensorRows(const std::filesystem::path& path, const std::string& tensor);
  const float* read(int64_t first, int64_t count, float* scratch) const override;

 private:
  SafetensorsFile file_;
  std::string name_;
  const TensorView* view_;
};

constexpr int64_t kRowsPerItem = 1024;  // of one pool item, and of one term of a sum over rows

// Calls body(first, count, values) for tiles of at most `tile_rows` rows of each pool item, in order within an item.
// `tile_rows` divides kRowsPerItem.
using TileBody = std::function<void(int64_t first, int64_t count, const float* values)>;
void for_row_tiles(Pool& pool, const RowSource& rows, int64_t tile_rows, const TileBody& body);

// Notes rows that are not finite or whose squared norm overflows, from any thread; rows of one item from one thread.
class FiniteRows {
 public:
  explicit FiniteRows(const RowSource& rows);
  // False when one of these rows is bad.
  bool check(int64_t first, int64_t count, const float* values);
  // JobFailure(bad_input) naming the first bad row.
  void fail_if_bad(const char* what) const;

 private:
  int64_t dim_;
  std::vector<int64_t> first_bad_;  // of each item of kRowsPerItem rows
};
// All rows at once.
void check_rows(Pool& pool, const RowSource& rows, const char* what);

}  // namespace collimate
