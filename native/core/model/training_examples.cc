// Validation happens once, when the file is opened, so that no step can meet a bad example.
#include "core/model/training_examples.h"

#include <algorithm>

#include "core/failure.h"
#include "core/philox.h"

namespace collimate {

namespace {

constexpr size_t kTasksMax = 16, kTaskNameMax = 24;
constexpr int64_t kGroupMax = 65;

[[noreturn]] void bad_sequence(int64_t sequence, const std::string& expected, const std::string& got) {
  fail_bad_input("train_examples: example " + std::to_string(sequence) + ": expected " + expected + ", got " + got +
                 "; render the examples again");
}

std::vector<std::string> split_names(const std::string& text) {
  std::vector<std::string> names;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    names.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return names;
}

bool is_task_name(const std::string& name) {
  return !name.empty() && name.size() <= kTaskNameMax &&
         std::all_of(name.begin(), name.end(), [](char c) { return (c >= 'a' && c <= 'z') || c == '_'; });
}

}  // namespace

TrainingExamples::TrainingExamples(const std::filesystem::path& path, int64_t vocabulary)
    : file_(SafetensorsFile::open(path)),
      tokens_(file_.i32("tokens", {-1})),
      offsets_(file_.i64("offsets", {-1})),
      label_mask_(file_.u8("label_mask", {static_cast<int64_t>(tokens_.size())})) {
  check_shape();
  if (file_.has("groups")) {
    groups_ = file_.i64("groups", {-1});
    check_groups();
  }
  if (file_.has("tasks")) read_tasks();
  check(vocabulary);
}

void TrainingExamples::check_shape() const {
  if (offsets_.size() < 2)
    fail_bad_input("train_examples: expected at least one example, got none; give users with history");
  if (offsets_.front() != 0 || offsets_.back() != static_cast<int64_t>(tokens_.size())) {
    fail_bad_input("train_examples: expected offsets from 0 to " + std::to_string(tokens_.size()) + ", got " +
                   std::to_string(offsets_.front()) + " to " + std::to_string(offsets_.back()));
  }
}

void TrainingExamples::check_groups() const {
  const auto fails = [](int64_t before, int64_t after) { return after <= before || after - before > kGroupMax; };
  if (groups_.size() < 2 || groups_.front() != 0 || groups_.back() != sequence_count() ||
      std::adjacent_find(groups_.begin(), groups_.end(), fails) != groups_.end()) {
    fail_bad_input("train_examples: expected groups that rise from 0 to " + std::to_string(sequence_count()) +
                   " by 1 to " + std::to_string(kGroupMax) + " sequences, got others; render the examples again");
  }
}

void TrainingExamples::read_tasks() {
  tasks_ = file_.u8("tasks", {count()});
  const auto found = file_.metadata().find("tasks");
  const std::string text = found == file_.metadata().end() ? "" : found->second;
  task_names_ = split_names(text);
  if (task_names_.size() > kTasksMax || !std::all_of(task_names_.begin(), task_names_.end(), is_task_name)) {
    fail_bad_input("train_examples: expected at most " + std::to_string(kTasksMax) +
                   " task names of a-z and _ in __metadata__.tasks, divided by spaces, got \"" + text +
                   "\"; render the examples again");
  }
  const uint8_t last = *std::max_element(tasks_.begin(), tasks_.end());
  if (last >= task_names_.size()) {
    fail_bad_input("train_examples: expected task numbers below " + std::to_string(task_names_.size()) + ", got " +
                   std::to_string(last) + "; render the examples again");
  }
}

void TrainingExamples::check(int64_t vocabulary) {
  for (int64_t sequence = 0; sequence < sequence_count(); ++sequence) {
    const int64_t begin = offsets_[static_cast<size_t>(sequence)], end = offsets_[static_cast<size_t>(sequence) + 1];
    // The end must be checked before the tokens are touched: offsets may fall.
    if (end <= begin || end > static_cast<int64_t>(tokens_.size()))
      bad_sequence(sequence, "at least one token", "offsets " + std::to_string(begin) + ", " + std::to_string(end));
    int64_t labels = 0;
    for (int64_t i = begin; i < end; ++i) {
      const int32_t token = tokens_[static_cast<size_t>(i)];
      if (token < 0 || token >= vocabulary) {
        bad_sequence(sequence, "token ids below " + std::to_string(vocabulary), std::to_string(token));
      }
      labels += i > begin && label_mask_[static_cast<size_t>(i)] != 0 ? 1 : 0;
    }
    if (label_mask_[static_cast<size_t>(begin)] != 0) bad_sequence(sequence, "no label on the first token", "one");
    if (labels == 0) bad_sequence(sequence, "at least one labelled token", "none");
    labels_.push_back(labels);
    longest_ = std::max(longest_, end - begin);
  }
}

TrainingExamples::Sequences TrainingExamples::sequences_of(int64_t example) const {
  if (groups_.empty()) return {example, 1};
  const auto at = static_cast<size_t>(example);
  return {groups_[at], groups_[at + 1] - groups_[at]};
}

int64_t TrainingExamples::tokens_of(int64_t example) const {
  const Sequences sequences = sequences_of(example);
  return offsets_[static_cast<size_t>(sequences.first + sequences.size)] -
         offsets_[static_cast<size_t>(sequences.first)];
}

int64_t TrainingExamples::labels_of(int64_t example) const {
  const Sequences sequences = sequences_of(example);
  int64_t labels = 0;
  for (int64_t i = 0; i < sequences.size; ++i) labels += labels_[static_cast<size_t>(sequences.first + i)];
  return labels;
}

void TrainingExamples::append_to(PackedBatch& batch, int64_t example, std::span<const double> reference) const {
  const Sequences sequences = sequences_of(example);
  PreferenceGroup group{.label_bounds = {batch.labels()}, .reference = {}};
  for (int64_t sequence = sequences.first; sequence < sequences.first + sequences.size; ++sequence) {
    const auto begin = static_cast<size_t>(offsets_[static_cast<size_t>(sequence)]);
    const auto end = static_cast<size_t>(offsets_[static_cast<size_t>(sequence) + 1]);
    batch.add(tokens_.subspan(begin, end - begin), label_mask_.subspan(begin, end - begin));
    group.label_bounds.push_back(batch.labels());
    group.reference.push_back(reference.empty() ? 0.0 : reference[static_cast<size_t>(sequence)]);
  }
  if (sequences.size > 1) batch.groups.push_back(std::move(group));
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
