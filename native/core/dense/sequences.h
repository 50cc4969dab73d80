// What the dense model is trained on: of each user the newest training events, every one predicted from those before.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/dense/user_log.h"
#include "core/model/decoder.h"

namespace collimate::dense {

// Appends the inputs of a sequence; `targets` (as many) are what each is to be followed by, or one for the last alone.
void append_sequence(PackedBatch& batch, std::span<const int32_t> inputs, std::span<const int32_t> targets);

class Sequences {
 public:
  // At most `items_max` inputs each; users with one training event have nothing to predict and are left out.
  Sequences(const UserLog& log, int64_t items_max);

  int64_t count() const { return static_cast<int64_t>(events_.size()); }
  int64_t rows_of(int64_t example) const {
    return static_cast<int64_t>(events_[static_cast<size_t>(example)].size()) - 1;
  }
  void append_to(PackedBatch& batch, int64_t example) const;

 private:
  std::vector<std::span<const int32_t>> events_;  // inputs and the last target
};

}  // namespace collimate::dense
