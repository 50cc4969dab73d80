#include "core/dense/sequences.h"

#include <algorithm>

#include "core/failure.h"

namespace collimate::dense {

void append_sequence(PackedBatch& batch, std::span<const int32_t> inputs, std::span<const int32_t> targets) {
  const size_t first_labelled = inputs.size() - targets.size();
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (i >= first_labelled) {
      batch.label_rows.push_back(static_cast<int32_t>(batch.rows()));
      batch.targets.push_back(targets[i - first_labelled]);
    }
    batch.tokens.push_back(inputs[i]);
    batch.positions.push_back(static_cast<int32_t>(i));
  }
  batch.offsets.push_back(batch.rows());
}

Sequences::Sequences(const UserLog& log, int64_t items_max) {
  for (int64_t user = 0; user < log.users(); ++user) {
    const std::span<const int32_t> events = log.training_events(user);
    if (events.size() < 2) continue;
    events_.push_back(events.last(std::min(events.size(), static_cast<size_t>(items_max) + 1)));
  }
  if (events_.empty())
    fail_bad_input("dataset: expected a user with two training events, got none; give users with longer histories");
}

void Sequences::append_to(PackedBatch& batch, int64_t example) const {
  const std::span<const int32_t> events = events_[static_cast<size_t>(example)];
  append_sequence(batch, events.first(events.size() - 1), events.subspan(1));
}

}  // namespace collimate::dense
