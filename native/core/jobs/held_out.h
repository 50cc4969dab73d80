// Items that clustering does not see, so that what the codebooks lose on unknown items can be measured.
//
// 1. Whether an item is held out is a function of its index and the share: SplitMix64 of the index below the share of
//    2^64. An item added later moves none of the others.
// 2. Held-out items get codes and ids like all others; only the centroids know nothing of them.
#pragma once

#include <cstdint>
#include <vector>

#include "core/row_source.h"

namespace collimate {

struct HeldOut {
  std::vector<int64_t> trained, held;  // item indices, ascending
  static HeldOut choose(int64_t items, double share);
};

// Some rows of a source, in the order of `index`. Both stay the caller's.
class SelectedRows final : public RowSource {
 public:
  SelectedRows(const RowSource& from, const std::vector<int64_t>& index)
      : RowSource(static_cast<int64_t>(index.size()), from.dim), from_(from), index_(index) {}
  const float* read(int64_t first, int64_t count, float* scratch) const override {
    for (int64_t i = 0; i < count; ++i) from_.copy(index_[first + i], 1, scratch + i * dim);
    return scratch;
  }

 private:
  const RowSource& from_;
  const std::vector<int64_t>& index_;
};

}  // namespace collimate
