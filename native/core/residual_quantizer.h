// Residual quantization: level by level, the nearest code of what the levels before left over.
//
// 1. r_0 = x; at level l: code = argmin_j |r_l - e_(l,j)|^2 (ties to the lowest j), r_(l+1) = r_l - e_(l,code).
// 2. A level's codebook is k-means of the true residuals of all rows.
// 3. The residual of a row is computed from that row alone by the same operations everywhere, so a resumed training and
//    an uninterrupted one see the same bytes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/kmeans.h"

namespace collimate {

struct ResidualCodebooks {
  int64_t levels = 0;
  int64_t codes = 0;
  int64_t dim = 0;
  std::span<const float> centroids;  // [levels, codes, dim]
  std::span<const float> level(int64_t index) const { return centroids.subspan(index * codes * dim, codes * dim); }
};

struct ResidualEncoding {
  std::span<int32_t> codes;           // [rows, levels], or empty
  std::span<float> residuals;         // [rows, dim] behind the last level, or empty; may alias the rows
  std::span<float> squared_distance;  // [rows]: |x - decoded|^2, or empty
};

// Encodes through all levels of `books` (possibly none: then residuals are the rows).
void residual_encode(Pool& pool, const RowMatrix& rows, const ResidualCodebooks& books, const ResidualEncoding& out);

// rows[i] = sum over levels of the row's codes; codes [rows, levels], each in [0, codes).
void residual_decode(Pool& pool, std::span<const int32_t> codes, const ResidualCodebooks& books, std::span<float> rows);

struct ResidualQuantizerOptions {
  int64_t levels = 0;
  int64_t codes = 0;
  int64_t iterations = 20;
  uint64_t seed = 0;
};

struct ResidualQuantizer {
  std::vector<float> centroids;  // [levels, codes, dim]
  std::vector<int32_t> codes;    // [rows, levels], of the training rows
  double relative_error = 0;     // sum |x - decoded|^2 / sum |x|^2
};

// Trains all levels at once; jobs/codebooks.cc does the same step by step.
ResidualQuantizer residual_quantize(Pool& pool, const RowMatrix& rows, const ResidualQuantizerOptions& options);

// sum |x - decoded|^2 / sum |x|^2; 0 when all rows are zero.
double relative_error(Pool& pool, const RowMatrix& rows, std::span<const float> squared_distance);

}  // namespace collimate
