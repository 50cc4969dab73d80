// A forward pass over all groups, a few at a time.
#include "core/jobs/reference_pass.h"

#include "core/model/decoder.h"

namespace collimate {
namespace {

constexpr size_t kGroupsAtOnce = 16;

// Adds what the packed groups' losses say to the sums by sequence.
void add_answers(const PackedBatch& packed, const std::vector<int64_t>& first_sequences,
                 const std::vector<double>& losses, std::vector<double>& reference) {
  for (size_t g = 0; g < packed.groups.size(); ++g) {
    const std::vector<int64_t>& bounds = packed.groups[g].label_bounds;
    for (size_t i = 0; i + 1 < bounds.size(); ++i) {
      double& sum = reference[static_cast<size_t>(first_sequences[g]) + i];
      for (int64_t label = bounds[i]; label < bounds[i + 1]; ++label) sum -= losses[static_cast<size_t>(label)];
    }
  }
}

}  // namespace

std::vector<double> reference_log_probabilities(JobContext& context, const ReferencePass& pass) {
  const TrainingExamples& examples = pass.examples;
  if (examples.sequence_count() == examples.count()) return {};
  context.host().on_log("info", "tune: log-probabilities of the groups' answers under the initial weights");
  const DecoderWeights weights(pass.parameters, context.ops(), pass.precision);
  Decoder decoder(weights, examples.longest());
  std::vector<double> reference(static_cast<size_t>(examples.sequence_count()), 0.0);
  PackedBatch packed;
  std::vector<int64_t> first_sequences;
  for (int64_t example = 0; example < examples.count(); ++example) {
    if (examples.is_group(example)) {
      examples.append_to(packed, example);
      first_sequences.push_back(examples.sequences_of(example).first);
    }
    const bool last = example + 1 == examples.count();
    if (first_sequences.size() < kGroupsAtOnce && !(last && !first_sequences.empty())) continue;
    context.throw_if_interrupted();
    add_answers(packed, first_sequences, decoder.losses(packed), reference);
    packed = {};
    first_sequences.clear();
  }
  return reference;
}

}  // namespace collimate
