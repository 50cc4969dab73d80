// The nearest centroid of each row: matrix products find the few that can be nearest, one defined sum decides.
//
// 1. score(i, j) = |c_j|^2 / 2 - x_i . c_j, in fp32 by wide_dot (core/row_ops.h). The nearest has the least score;
//    equal scores go to the lowest j.
// 2. A product, in bf16 where the processor has it and in fp32 otherwise, gives every score up to a bound on its
//    rounding; only centroids that the bound cannot rule out are scored by the definition. So the answer is a function
//    of the values alone, the same on every instruction set.
// 3. No rows x centroids matrix exists: a tile of rows meets all centroids and is done.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/gemm_bf16.h"
#include "core/pool.h"

namespace collimate {

class CentroidTable {
 public:
  static constexpr int64_t kRowsPerTile = 128;  // that meet the centroids in one matrix product

  // `centroids` [clusters, dim], row-major, stay the caller's.
  CentroidTable(Pool& pool, std::span<const float> centroids, int64_t dim);
  int64_t clusters() const { return static_cast<int64_t>(half_norms_.size()); }
  int64_t dim() const { return dim_; }
  const float* row(int64_t index) const { return values_.data() + index * dim_; }

  // What one thread needs beside the table.
  struct Scratch {
    std::vector<float> scores;
    Bf16Rows rows;
  };
  // Nearest centroids of `count` <= kRowsPerTile contiguous rows.
  void nearest(const float* rows, int64_t count, Scratch& scratch, int32_t* result) const;

  // --- pieces of that, for core/residual_beam.h ---

  float score(const float* row, int64_t centroid) const;  // by the definition
  // scratch.scores [count, clusters]: the scores up to the products' rounding.
  void products(const float* rows, int64_t count, Scratch& scratch) const;
  // Of the operands of a product, as a share of |x| |c|; that of its sums comes on top.
  double product_rounding() const { return product_rounding_; }
  const float* norms() const { return norms_.data(); }  // [clusters]: |c|

 private:
  int32_t decide(const float* row, const float* scores) const;

  std::span<const float> values_;
  std::vector<float> half_norms_;
  int64_t dim_ = 0;
  Bf16Panels panels_;  // the negated centroids; empty without a bf16 unit
  std::vector<float> norms_;
  double product_rounding_ = 0;
  std::vector<float> relative_errors_;  // of a centroid's product, in units of a row's norm
  float absolute_error_ = 0;
};

}  // namespace collimate
