// The `dataset` file as the dense model reads it: who chose what, oldest first, and the leave-one-out parts.
//
// 1. Everything is checked when the file is opened: no step can meet a bad index.
// 2. A user with at least three events has the last as test and the one before as validation; others only train.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "core/safetensors.h"

namespace collimate::dense {

// What is to be predicted, from all events before it. `publish`: what comes after the last event.
enum class Part { validation, test, publish };
// "validation", "test" or "publish"; JobFailure(bad_input) for anything else.
Part parse_part(const std::string& name);

class UserLog {
 public:
  explicit UserLog(const std::filesystem::path& path);

  int64_t users() const { return static_cast<int64_t>(offsets_.size()) - 1; }
  int64_t items() const { return item_count_; }  // the largest index + 1
  std::span<const int32_t> training_events(int64_t user) const;
  // Whether there is something to predict.
  bool has_target(int64_t user, Part part) const;
  std::span<const int32_t> known_events(int64_t user, Part part) const;

 private:
  std::span<const int32_t> events(int64_t user) const;

  SafetensorsFile file_;
  std::span<const int64_t> offsets_;
  std::span<const int32_t> items_;
  int64_t item_count_ = 0;
};

}  // namespace collimate::dense
