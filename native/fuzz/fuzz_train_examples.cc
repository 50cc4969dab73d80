// Any bytes as a `train_examples` file: refused with a JobFailure, or every example can be packed and is as promised.
#include "core/failure.h"
#include "core/model/training_examples.h"
#include "fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace collimate;
  constexpr int64_t kVocabulary = 24;
  const fuzz::InputFile input(data, size);
  try {
    const TrainingExamples examples(input.path(), kVocabulary);
    for (int64_t example = 0; example < examples.count(); ++example) {
      PackedBatch batch;
      examples.append_to(batch, example);
      if (batch.rows() != examples.tokens_of(example) || batch.labels() != examples.labels_of(example))
        __builtin_trap();
      if (batch.groups.size() != (examples.is_group(example) ? 1U : 0U)) __builtin_trap();
      if (!examples.task_names().empty() &&
          static_cast<size_t>(examples.task_of(example)) >= examples.task_names().size())
        __builtin_trap();
      for (const int32_t token : batch.tokens)
        if (token < 0 || token >= kVocabulary) __builtin_trap();
    }
  } catch (const JobFailure&) {
  }
  return 0;
}
