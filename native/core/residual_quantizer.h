// Residual quantization: level by level, the nearest code of what the levels before left over.
//
// 1. r_0 = x; at level l: code = argmin_j |r_l - e_(l,j)|^2 (ties to the lowest j), r_(l+1) = r_l - e_(l,code). With a
//    beam, the best few partial sums go on instead of one (core/residual_beam.h).
// 2. A level's codebook is k-means of the true residuals of all rows, those of a beam of one.
// 3. The residual of a row is computed from that row and its codes alone by the same subtractions everywhere, so a
//    resumed training and an uninterrupted one see the same bytes.
// 4. Residuals are never kept: a row's codes are, 4 bytes a level, and the residual is made again where it is read.
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
  ResidualCodebooks first(int64_t count) const { return {count, codes, dim, centroids.first(count * codes * dim)}; }
};

// What the first levels of given codes leave of each row. Everything it refers to stays the caller's.
class ResidualRows final : public RowSource {
 public:
  struct Codes {
    std::span<const int32_t> values;  // [rows, stride], of which the first `books.levels` count
    int64_t stride = 0;
  };
  ResidualRows(const RowSource& rows, const ResidualCodebooks& books, const Codes& codes);
  const float* read(int64_t first, int64_t count, float* scratch) const override;

 private:
  const RowSource& from_;
  ResidualCodebooks books_;
  Codes codes_;
};

constexpr int64_t kBeamMax = 256;

struct ResidualEncoding {
  int64_t beam = 1;                   // partial sums kept per row
  std::span<int32_t> codes;           // [rows, levels], or empty
  std::span<float> squared_distance;  // [rows]: |x - decoded|^2, or empty
};

// Encodes through all levels of `books` (possibly none).
void residual_encode(Pool& pool, const RowSource& rows, const ResidualCodebooks& books, const ResidualEncoding& out);

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
  std::vector<int32_t> codes;    // [rows, levels], of the training rows, by a beam of one
  double relative_error = 0;     // sum |x - decoded|^2 / sum |x|^2
};

// Trains all levels at once; jobs/codebooks.cc does the same step by step.
ResidualQuantizer residual_quantize(Pool& pool, const RowSource& rows, const ResidualQuantizerOptions& options);

// sum |x - decoded|^2 / sum |x|^2; 0 when all rows are zero.
double relative_error(Pool& pool, const RowSource& rows, std::span<const float> squared_distance);

// JobFailure(bad_input) where books do not fit rows of this width, or are not of the size they say.
void check_books(const ResidualCodebooks& books, int64_t dim);

}  // namespace collimate
