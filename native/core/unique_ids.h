// Unique semantic ids: collisions of residual codes are resolved on the last level by first-fit.
//
// 1. A bucket is the set of items that share all codes but the last. Buckets are independent of each other.
// 2. Within a bucket items come in hash order (SplitMix64 of the item index), each takes the nearest last code that is
//    still free (ties to the lowest code). Exact duplicates need no special case: they take different last codes.
// 3. Published ids stay: their items take them before all others, and ids of items that are gone are not given again.
// 4. A bucket with more items than codes cannot be resolved: JobFailure(bad_input) naming the sizes to raise.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/residual_quantizer.h"

namespace collimate {

struct UniqueIds {
  std::vector<int32_t> codes;         // [items, levels], all rows different
  double unique_rate_before_fit = 0;  // different rows of `nearest` / items
  int64_t largest_bucket = 0;         // items
};

// Ids that were given earlier; empty spans where there are none.
struct PublishedIds {
  std::span<const int32_t> codes;    // [items, levels]; -1 throughout where an item has none
  std::span<const int32_t> retired;  // [n, levels]: of items that are gone
};

uint64_t split_mix64(uint64_t value);

// nearest [items, levels]: the residual codes of `rows`, of any beam: only the last level's are moved, by what the
// codes before it leave of the row. Of an item with a published id it is that id.
UniqueIds fit_unique_ids(Pool& pool, const RowSource& rows, const ResidualCodebooks& books,
                         std::span<const int32_t> nearest, const PublishedIds& published = {});

}  // namespace collimate
