// The recipe of `tune`, checked field by field. Resolved: there are no defaults.
#pragma once

#include <cstdint>
#include <optional>

#include "core/json.h"
#include "core/model/decoder_config.h"
#include "core/model/decoder_weights.h"
#include "core/model/optimizer.h"
#include "core/model/parameters.h"

namespace collimate {

struct TuneRecipe {
  std::optional<DecoderConfig::Shape> scratch;  // absent: a Hugging Face base
  Trainable trainable;
  int64_t steps = 0, batch_sequences = 0;
  int lanes = 0;
  LearningRateSchedule schedule;
  Optimizer::Options optimizer;
  double dropout = 0.0;
  double preference_beta = 0.0;  // of groups of sequences
  Precision precision = Precision::fp32;
  uint64_t seed = 0;

  static TuneRecipe parse(const Json& recipe);
};

}  // namespace collimate
