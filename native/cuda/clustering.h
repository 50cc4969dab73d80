// k-means and residual encoding on a device: the same codes, centroids and sums, to the last bit, as core/kmeans.h and
// core/residual_quantizer.h give.
//
// 1. Tensor cores find which centroids can be nearest; only those are scored by the definition
// (core/nearest_centroids.h),
//    in fp32 and in its order of additions. So a device decides as a processor does, ties and all.
// 2. Residuals are never stored: a row and its codes are, and what is left of it is made where it is read.
// 3. Members of a cluster are added in row order, in double, in the chunks and the tree of core/member_sums.h.
// Shapes: N rows, D columns, L levels, K codes a level.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/kmeans.h"
#include "core/residual_quantizer.h"
#include "cuda/device.h"
#include "cuda/exact_rows_view.h"

namespace collimate::cuda {

// Rows on a device and, as levels are trained, their codes.
class ClusteredRows {
 public:
  // Room for the codes of `levels`. JobFailure(bad_input) where rows are not finite or levels too many, out_of_memory
  // where they do not fit.
  ClusteredRows(Device& device, const RowSource& rows, int64_t levels);

  int64_t rows() const { return rows_; }
  int64_t dim() const { return dim_; }

  // One Lloyd iteration on `centroids` [K, D] in place, of the level after those of `before`, whose codes are known.
  LloydStep lloyd_step(const ResidualCodebooks& before, std::span<float> centroids);
  // Nearest codes of that level, which are then known; squared distances [N] if wanted. Returns their sum.
  double assign(const ResidualCodebooks& before, std::span<const float> centroids, std::span<float> squared_distance);
  // Codes of all levels, which are then known; squared distances [N] if wanted.
  void encode(const ResidualCodebooks& books, std::span<float> squared_distance);

  // [N, levels]: those of the first levels that are known.
  void set_codes(std::span<const int32_t> codes, int64_t levels);
  void download_codes(std::span<int32_t> codes, int64_t levels) const;

 private:
  struct Members;  // rows by cluster
  void upload_books(const ResidualCodebooks& before, std::span<const float> more);
  void find_nearest(int64_t first_level);
  ResidualView view() const;
  double find_distances(int64_t levels);
  Members group_by_code(int64_t level, int64_t clusters);

  Device& device_;
  int64_t rows_, dim_, levels_max_;
  DeviceArray<float> values_;
  DeviceArray<int32_t> codes_;   // [N, levels_max]
  DeviceArray<float> distance_;  // [N]
  int64_t levels_ = 0, per_level_ = 0;
  DeviceArray<float> centroids_, half_norms_, norms_, products_;  // of the books at hand
  DeviceArray<uint16_t> rounded_;
  float absolute_error_ = 0;
};

// rows[i] = sum over levels of the row's codes; codes [N, L], each in [0, K); all on the device.
struct ResidualDecode {
  int64_t rows = 0;
  const int32_t* codes = nullptr;
  ResidualView books;  // values are not read
  int64_t levels = 0;
  float* to = nullptr;  // [N, D]
};
void residual_decode(Device& device, const ResidualDecode& args);

}  // namespace collimate::cuda
