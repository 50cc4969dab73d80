// Bump allocation in one block, which is replaced when a pass needs more.
#include "core/model/arena.h"

#include <new>
#include <string>

#include "core/failure.h"

namespace collimate {

void Arena::reset(int64_t elements) {
  used_ = 0;
  if (elements <= memory_.size()) return;
  memory_ = {};  // before the new one comes: nothing in it is wanted
  try {
    memory_ = BackendArray<float>(*backend_, elements);
  } catch (const std::bad_alloc&) {
    throw JobFailure(
        FailureCause::out_of_memory,
        "activations need " + std::to_string(elements * 4) +
            " bytes, more than there are; set COLLIMATE_RECOMPUTE=on, use more lanes or shorter sequences");
  }
}

float* Arena::take(int64_t elements) {
  const int64_t begin = used_;
  used_ += rounded(elements);
  if (used_ > memory_.size()) {
    throw JobFailure(FailureCause::internal, "a pass takes more activations than it was laid out with");
  }
  return memory_.data() + begin;
}

int64_t Arena::rounded(int64_t elements) {
  constexpr int64_t kLineFloats = 16;
  return (elements + kLineFloats - 1) / kLineFloats * kLineFloats;
}

}  // namespace collimate
