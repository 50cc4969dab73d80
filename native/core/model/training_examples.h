// The `train_examples` file, the order in which examples are seen, and their packing into lanes.
//
// 1. Sample number g = step * batch_sequences + j; epoch e holds samples e*n .. e*n + n-1 in a permutation keyed by
//    (seed, e). Batches run on across epochs.
// 2. Example j of a batch belongs to lane floor(j * lanes / batch_sequences).
// 3. An example is one sequence, or a group of several (`groups`) of which the first is preferred to the others. A loss
//    term is a labelled token of the former, and all of the latter.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/model/decoder.h"
#include "core/safetensors.h"

namespace collimate {

class TrainingExamples {
 public:
  // Checks tokens against the vocabulary, and that every sequence has a labelled token that something precedes.
  TrainingExamples(const std::filesystem::path& path, int64_t vocabulary);

  int64_t count() const { return groups_.empty() ? sequence_count() : static_cast<int64_t>(groups_.size()) - 1; }
  int64_t sequence_count() const { return static_cast<int64_t>(offsets_.size()) - 1; }
  int64_t longest() const { return longest_; }  // sequence
  int64_t tokens_of(int64_t example) const;
  int64_t labels_of(int64_t example) const;
  int64_t terms_of(int64_t example) const { return is_group(example) ? 1 : labels_of(example); }
  bool is_group(int64_t example) const { return sequences_of(example).size > 1; }
  // Of names, all short and of lower-case letters and `_`: fit for metrics. No task is known where there are none.
  const std::vector<std::string>& task_names() const { return task_names_; }
  int task_of(int64_t example) const { return tasks_[static_cast<size_t>(example)]; }

  // The sequences of an example, which lie side by side.
  struct Sequences {
    int64_t first = 0, size = 1;
  };
  Sequences sequences_of(int64_t example) const;
  // A group needs its answers' reference log-probabilities, by the number of the sequence.
  void append_to(PackedBatch& batch, int64_t example, std::span<const double> reference = {}) const;

 private:
  void check_shape() const;
  void check_groups() const;
  void read_tasks();
  void check(int64_t vocabulary);
  SafetensorsFile file_;
  std::span<const int32_t> tokens_;
  std::span<const int64_t> offsets_;
  std::span<const uint8_t> label_mask_;
  std::span<const int64_t> groups_;  // empty: every sequence is an example
  std::span<const uint8_t> tasks_;   // by example; empty: not told
  std::vector<std::string> task_names_;
  std::vector<int64_t> labels_;  // by sequence
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

// [first, last) of the batch's examples that belong to a lane.
struct LaneSlice {
  int64_t begin = 0, end = 0;
};
LaneSlice lane_slice(int64_t batch_sequences, int64_t lanes, int64_t lane);

}  // namespace collimate
