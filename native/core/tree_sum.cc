// Pairwise summation with the split fixed by the count.
#include "core/tree_sum.h"

#include <bit>

namespace collimate {

double tree_sum(std::span<const double> terms) {
  if (terms.empty()) return 0.0;
  if (terms.size() == 1) return terms[0];
  const size_t left = std::bit_floor(terms.size() - 1);
  return tree_sum(terms.first(left)) + tree_sum(terms.subspan(left));
}

}  // namespace collimate
