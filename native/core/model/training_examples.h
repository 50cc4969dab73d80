// The `train_examples` file, the order in which examples are seen, and their packing into lanes.
//
// 1. Sample number g = step * batch_sequences + j; epoch e holds samples e*n .. e*n + n-1 in a permutation keyed by
//    (seed, e). Batches run on across epochs.
// 2. Sequence j of a batch belongs to lane floor(j * lanes / batch_sequences).
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <vector>

#include "core/model/decoder.h"
#include "core/safetensors.h"

namespace collimate {

class TrainingExamples {
 public:
  // Checks tokens against the vocabulary, and that every example has a labelled token that something precedes.
  TrainingExamples(const std::filesystem::path& path, int64_t vocabulary);

  int64_t count() const { return static_cast<int64_t>(offsets_.size()) - 1; }
  int64_t longest() const { return longest_; }
  int64_t tokens_of(int64_t example) const;
  int64_t labels_of(int64_t example) const { return labels_[static_cast<size_t>(example)]; }
  void append_to(PackedBatch& batch, int64_t example) const;

 private:
  void check(int64_t vocabulary);
  SafetensorsFile file_;
  std::span<const int32_t> tokens_;
  std::span<const int64_t> offsets_;
  std::span<const uint8_t> label_mask_;
  std::vector<int64_t> labels_;
  int64_t longest_ = 0;
};

class ExampleOrder {
 public:
  struct Options {
    int64_t examples = 0, batch_sequences = 0;
    uint64_t seed = 0;
  };
  explicit ExampleOrder(const Options& options) : options_(options) {}
  // Example numbers of the batch of this step.
  std::vector<int64_t> batch(int64_t step);

 private:
  const std::vector<int64_t>& epoch(int64_t number);
  Options options_;
  std::map<int64_t, std::vector<int64_t>> epochs_;  // those that the newest batch touches
};

// [first, last) of the batch's sequences that belong to a lane.
struct LaneSlice {
  int64_t begin = 0, end = 0;
};
LaneSlice lane_slice(int64_t batch_sequences, int64_t lanes, int64_t lane);

}  // namespace collimate
