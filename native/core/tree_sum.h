// Sums whose order is fixed by the number of terms alone.
#pragma once

#include <cstdint>
#include <span>

namespace collimate {

// Pairwise sum: split at the largest power of two below n, left + right. Deterministic, error O(log n).
double tree_sum(std::span<const double> terms);

}  // namespace collimate
