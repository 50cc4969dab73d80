// Gradient lanes and their fixed-order reduction.
//
// 1. The global batch has `lanes` lanes, a power of two; lane i's gradient is computed alone.
// 2. Lanes are summed by the complete binary tree over 0..lanes-1: node = left child + right child, element by element.
// 3. A rank holds a contiguous range of lanes (lane_range), adds what lies in maximal aligned subtrees, and sends
//    those sums. Each fixed-size chunk of the flat gradient is finished by one owner rank and sent to all. So every
//    world size from 1 to `lanes` gives the same bytes.
// 4. Gradients and their sums stay in the backend's memory. Of a device's only what other ranks need passes through
//    the host: the sums of maximal subtrees, and the total.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <vector>

#include "collective/transport.h"
#include "core/ops_backend.h"
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
    OpsBackend* backend = nullptr;  // gradients lie in its memory
  };
  explicit LaneReducer(const Options& options);

  LaneRange range() const { return range_; }
  // One lane's work: fills the zeroed gradient, answers the lane's scalars. `slot` is below `at_once`, and no two calls
  // at the same time have the same one: what a lane needs besides its gradient can be kept per slot.
  struct Lane {
    int number = 0;
    int slot = 0;
    std::span<float> gradient;  // in the backend's memory
  };
  using LaneBody = std::function<std::vector<double>(const Lane& lane)>;
  // Computes all lanes of the range. With `at_once` of 1 one follows the other and each has the whole pool; with more,
  // so many run at a time, each alone on one thread of the pool (lanes are independent, so no thread waits for
  // another's tiles); a device takes one at a time. The bytes do not depend on it. Live gradients: at most at_once +
  // log2(lanes) + 1.
  void compute(int at_once, const LaneBody& body);

  struct Result {
    std::span<const float> gradient;  // in the backend's memory; valid until the next compute
    std::vector<double> scalars;
    uint32_t control = 0;  // OR over the ranks
  };
  // Collective. `step` must be equal on all ranks; a mismatch is JobFailure(internal).
  Result reduce(int64_t step, uint32_t control);

 private:
  struct Block {
    int first = 0;
    int count = 0;
    BackendArray<float> sum;
    std::vector<double> scalars;
  };
  struct Gang;
  Block begin(int lane);
  void finish(Block block);
  void add(const BackendArray<float>& to, const BackendArray<float>& from) const;
  void exchange_headers(Gang& gang, int64_t step, uint32_t control) const;
  uint32_t read_headers(Gang& gang, int64_t step) const;
  void reduce_windows(Gang& gang);
  void bring_blocks_to_host(Gang& gang);

  Options options_;
  LaneRange range_;
  std::mutex mutex_;                          // guards blocks_ and spare_ while lanes are computed
  std::vector<Block> blocks_;                 // aligned subtrees that are summed; ascending once all lanes are in
  std::vector<BackendArray<float>> spare_;    // buffers to reuse
  std::vector<std::vector<float>> received_;  // windows of other ranks' block sums
  BackendArray<float> total_;
  std::vector<std::vector<float>> host_blocks_;  // of a device's blocks_, in a gang
  std::vector<float> host_total_;
};

}  // namespace collimate
