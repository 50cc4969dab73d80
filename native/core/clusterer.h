// Residual k-means of one set of rows, step by step: on the processor, or on an accelerator that gives the same bytes.
//
// 1. Levels are trained one after the other. `codes()` holds those of the finished ones; assign() finishes a level.
// 2. What comes out does not depend on where it was computed.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/kmeans.h"
#include "core/pool.h"
#include "core/residual_quantizer.h"

namespace collimate {

class Clusterer {
 public:
  virtual ~Clusterer() = default;
  // One Lloyd iteration on `centroids` [K, D] in place, of the level behind those of `before`.
  virtual LloydStep lloyd_step(const ResidualCodebooks& before, std::span<float> centroids) = 0;
  // Gives the rows their nearest codes of that level.
  virtual void assign(const ResidualCodebooks& before, std::span<const float> centroids) = 0;
  // Through all levels of `books`, as residual_encode does.
  virtual void encode(const ResidualCodebooks& books, const ResidualEncoding& out) = 0;
  // Takes the nearest codes of these levels for finished ones.
  void resume(const ResidualCodebooks& books);

  std::span<const int32_t> codes() const { return codes_; }  // [N, levels]
  int64_t levels() const { return levels_; }

 protected:
  Clusterer(const RowSource& rows, int64_t levels);
  virtual void codes_changed() {}  // by resume()
  void set_codes(int64_t level, std::span<const int32_t> of_level);

  const RowSource& rows_;
  int64_t levels_;
  std::vector<int32_t> codes_;
};

// On the pool. `rows` stay the caller's.
std::unique_ptr<Clusterer> cluster_on_processor(Pool& pool, const RowSource& rows, int64_t levels);

}  // namespace collimate
