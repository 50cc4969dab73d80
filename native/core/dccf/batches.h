// Which edges a step trains on, and the negative item of each: functions of (seed, epoch, step) and the graph.
//
// 1. Epoch e visits every edge once, in a permutation keyed by (seed, e); the last batch of an epoch may be short.
// 2. The negative of an edge is an item that its user has no edge to. It is drawn at most kNegativeTriesMax times; then
//    the next such item above the last draw is taken (around the end). A user with edges to all items keeps the draw.
#pragma once

#include <cstdint>
#include <vector>

#include "core/dccf/graph.h"
#include "core/dccf/losses.h"

namespace collimate::dccf {

constexpr int64_t kNegativeTriesMax = 16;

class Batches {
 public:
  Batches(const Graph& graph, int64_t batch_size, uint64_t seed);
  int64_t steps_per_epoch() const { return (graph_.edges() + batch_size_ - 1) / batch_size_; }
  // Step counts from 0 over all epochs. Any order of calls gives the same batches.
  Batch at(int64_t step);

 private:
  int32_t draw_negative(int64_t epoch, int64_t edge, int32_t user) const;

  const Graph& graph_;
  int64_t batch_size_;
  uint64_t seed_;
  int64_t epoch_ = -1;  // of order_
  std::vector<int64_t> order_;
};

}  // namespace collimate::dccf
