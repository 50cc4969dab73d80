#include "core/jobs/held_out.h"

#include "core/unique_ids.h"

namespace collimate {

HeldOut HeldOut::choose(int64_t items, double share) {
  HeldOut result;
  // 53 bits, which a double holds exactly.
  const double bound = share * 9007199254740992.0;
  for (int64_t item = 0; item < items; ++item) {
    const bool held = static_cast<double>(split_mix64(static_cast<uint64_t>(item)) >> 11) < bound;
    (held ? result.held : result.trained).push_back(item);
  }
  return result;
}

}  // namespace collimate
