// Gradient lanes and their fixed-order reduction.
//
// 1. The global batch has `lanes` lanes, a power of two; lane i's gradient is computed alone.
// 2. Lanes are summed by the complete binary tree over 0..lanes-1: node = left child + right child, element by element.
// 3. A rank holds a contiguous range of lanes (lane_range), adds what lies in maximal aligned subtrees, and sends those
// sums.
//    Each fixed-size chunk of the flat gradient is finished by one owner rank and sent to all. So every world size from
//    1 to `lanes` gives the same bytes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "collective/transport.h"
#include "core/pool.h"

namespace collimate {

struct LaneRange {
  int first = 0;
  int count = 0;
};

// Contiguous, in rank order, sizes differing by at most one (larger first).
LaneRange lane_range(int lanes, int rank, int world);

class LaneReducer {
 public:
  struct Options {
    int lanes = 1;
    int64_t elements = 0;  // of the flat gradient
    int scalars = 0;       // doubles per lane that are summed by the same tree (loss sums)
    Transport* transport = nullptr;
    Pool* pool = nullptr;
  };
  explicit LaneReducer(const Options& options);

  LaneRange range() const { return range_; }
  // A zeroed buffer for the gradient of the next lane of the range (ascending).
  std::span<float> begin_lane();
  void end_lane(std::span<const double> scalars);

  struct Result {
    std::span<const float> gradient;  // valid until the next begin_lane
    std::vector<double> scalars;
    uint32_t control = 0;  // OR over the ranks
  };
  // Collective. `step` must be equal on all ranks; a mismatch is JobFailure(internal).
  Result reduce(int64_t step, uint32_t control);

 private:
  struct Block {
    int first = 0;
    int count = 0;
    std::vector<float> sum;
    std::vector<double> scalars;
  };
  struct Gang;
  void exchange_headers(Gang& gang, int64_t step, uint32_t control) const;
  uint32_t read_headers(Gang& gang, int64_t step) const;
  void reduce_windows(Gang& gang);

  Options options_;
  LaneRange range_;
  std::vector<Block> blocks_;                 // maximal aligned subtrees so far, ascending
  std::vector<std::vector<float>> spare_;     // buffers to reuse
  std::vector<std::vector<float>> received_;  // windows of other ranks' block sums
  std::vector<float> total_;
};

}  // namespace collimate
