// Validation happens once, when the file is opened, so that no step can meet a bad example.
#include "core/model/training_examples.h"

#include <algorithm>

#include "core/failure.h"
#include "core/philox.h"

namespace collimate {

namespace {

[[noreturn]] void bad_example(int64_t example, const std::string& expected, const std::string& got) {
  fail_bad_input("train_examples: example " + std::to_string(example) + ": expected " + expected + ", got " + got +
                 "; render the examples again");
}

}  // namespace

TrainingExamples::TrainingExamples(const std::filesystem::path& path, int64_t vocabulary)
    : file_(SafetensorsFile::open(path)),
      tokens_(file_.i32("tokens", {-1})),
      offsets_(file_.i64("offsets", {-1})),
      label_mask_(file_.u8("label_mask", {static_cast<int64_t>(tokens_.size())})) {
  if (file_.has("groups"))
    fail_bad_input("train_examples: expected no groups, got some; set the weight of the ranking task to 0");
  check(vocabulary);
}

void TrainingExamples::check(int64_t vocabulary) {
  if (offsets_.size() < 2)
    fail_bad_input("train_examples: expected at least one example, got none; give users with history");
  if (offsets_.front() != 0 || offsets_.back() != static_cast<int64_t>(tokens_.size())) {
    fail_bad_input("train_examples: expected offsets from 0 to " + std::to_string(tokens_.size()) + ", got " +
                   std::to_string(offsets_.front()) + " to " + std::to_string(offsets_.back()));
  }
  for (int64_t example = 0; example < count(); ++example) {
    const int64_t begin = offsets_[static_cast<size_t>(example)], end = offsets_[static_cast<size_t>(example) + 1];
    // The end must be checked before the tokens are touched: offsets may fall.
    if (end <= begin || end > static_cast<int64_t>(tokens_.size()))
      bad_example(example, "at least one token", "offsets " + std::to_string(begin) + ", " + std::to_string(end));
    int64_t labels = 0;
    for (int64_t i = begin; i < end; ++i) {
      const int32_t token = tokens_[static_cast<size_t>(i)];
      if (token < 0 || token >= vocabulary) {
        bad_example(example, "token ids below " + std::to_string(vocabulary), std::to_string(token));
      }
      labels += i > begin && label_mask_[static_cast<size_t>(i)] != 0 ? 1 : 0;
    }
    if (label_mask_[static_cast<size_t>(begin)] != 0) bad_example(example, "no label on the first token", "one");
    if (labels == 0) bad_example(example, "at least one labelled token", "none");
    labels_.push_back(labels);
    longest_ = std::max(longest_, end - begin);
  }
}

int64_t TrainingExamples::tokens_of(int64_t example) const {
  return offsets_[static_cast<size_t>(example) + 1] - offsets_[static_cast<size_t>(example)];
}

void TrainingExamples::append_to(PackedBatch& batch, int64_t example) const {
  const auto begin = static_cast<size_t>(offsets_[static_cast<size_t>(example)]);
  const auto size = static_cast<size_t>(tokens_of(example));
  batch.add(tokens_.subspan(begin, size), label_mask_.subspan(begin, size));
}

const std::vector<int64_t>& ExampleOrder::epoch(int64_t number) {
  auto found = epochs_.find(number);
  if (found == epochs_.end()) {
    const RandomStream stream{
        .seed = options_.seed, .site = RandomSite::example_order, .stream = static_cast<uint64_t>(number)};
    found = epochs_.emplace(number, random_permutation(stream, options_.examples)).first;
  }
  return found->second;
}

std::vector<int64_t> ExampleOrder::batch(int64_t step) {
  const int64_t first = step * options_.batch_sequences;
  epochs_.erase(epochs_.begin(), epochs_.lower_bound(first / options_.examples));
  std::vector<int64_t> examples;
  for (int64_t sample = first; sample < first + options_.batch_sequences; ++sample) {
    examples.push_back(epoch(sample / options_.examples)[static_cast<size_t>(sample % options_.examples)]);
  }
  return examples;
}

LaneSlice lane_slice(int64_t batch_sequences, int64_t lanes, int64_t lane) {
  // j * lanes / batch >= lane  <=>  j >= ceil(lane * batch / lanes)
  const auto first = [&](int64_t l) { return (l * batch_sequences + lanes - 1) / lanes; };
  return {first(lane), first(lane + 1)};
}

}  // namespace collimate
