// The `logits` job: what a finished model answers at every token of some prompts, to be held against other programs.
//
// 1. Each prompt is a pass of its own, through the decoder that `tune` trains, without dropout.
#include <algorithm>
#include <numeric>

#include "core/failure.h"
#include "core/job.h"
#include "core/model/decoder.h"
#include "core/model/parameters.h"
#include "core/safetensors.h"

namespace collimate {

namespace {

struct Prompts {
  std::span<const int32_t> tokens;
  std::span<const int64_t> offsets;
  int64_t count() const { return static_cast<int64_t>(offsets.size()) - 1; }
  std::span<const int32_t> at(int64_t i) const {
    const int64_t begin = offsets[static_cast<size_t>(i)], end = offsets[static_cast<size_t>(i) + 1];
    return tokens.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
  }
};

Prompts read_prompts(const SafetensorsFile& file, int64_t vocabulary) {
  const Prompts prompts{.tokens = file.i32("tokens", {-1}), .offsets = file.i64("offsets", {-1})};
  const bool fits = !prompts.offsets.empty() && prompts.offsets.front() == 0 &&
                    prompts.offsets.back() == static_cast<int64_t>(prompts.tokens.size()) &&
                    std::is_sorted(prompts.offsets.begin(), prompts.offsets.end());
  if (!fits) {
    fail_bad_input("prompts: expected offsets ascending from 0 to the number of tokens, " +
                   std::to_string(prompts.tokens.size()) + ", got others; render again");
  }
  for (const int32_t token : prompts.tokens) {
    if (token >= 0 && token < vocabulary) continue;
    fail_bad_input("prompts: expected tokens below the model's vocabulary of " + std::to_string(vocabulary) + ", got " +
                   std::to_string(token) + "; use the model and the prompts of one run");
  }
  return prompts;
}

PackedBatch batch_of(std::span<const int32_t> prompt) {
  PackedBatch batch;
  const std::vector<uint8_t> unlabelled(prompt.size(), 0);
  batch.add(prompt, unlabelled);
  // The logits behind every token are wanted; what they are to predict is not.
  batch.label_rows.resize(prompt.size());
  std::iota(batch.label_rows.begin(), batch.label_rows.end(), 0);
  batch.targets.assign(prompt.size(), 0);
  return batch;
}

}  // namespace

JobOutcome run_logits(JobContext& context) {
  const Parameters parameters = load_model(context.input("model"), context.spec().inputs);
  const SafetensorsFile file = SafetensorsFile::open(context.input("prompts"));
  const int64_t vocabulary = parameters.config().vocabulary;
  const Prompts prompts = read_prompts(file, vocabulary);
  size_t longest = 1;
  for (int64_t i = 0; i < prompts.count(); ++i) longest = std::max(longest, prompts.at(i).size());
  const DecoderWeights weights(parameters, context.ops());
  Decoder decoder(weights, static_cast<int64_t>(longest));
  std::vector<float> logits;
  for (int64_t i = 0; i < prompts.count(); ++i) {
    context.throw_if_aborted();
    if (prompts.at(i).empty()) continue;
    const std::vector<float> of_prompt = decoder.logits(batch_of(prompts.at(i)));
    logits.insert(logits.end(), of_prompt.begin(), of_prompt.end());
    context.host().on_step(i + 1, prompts.count(), {{"tokens", static_cast<double>(prompts.at(i).size())}});
  }
  const auto path = context.spec().output_dir / "logits.safetensors";
  SafetensorsWriter writer;
  writer.add_f32("logits", {static_cast<int64_t>(prompts.tokens.size()), vocabulary}, logits);
  writer.write(path);
  return {.step = prompts.count(),
          .outputs = {{"logits", path}},
          .summary = {{"tokens", static_cast<int64_t>(prompts.tokens.size())}}};
}

}  // namespace collimate
