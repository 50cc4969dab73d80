// The recipe of `dense`, checked field by field. Resolved: there are no defaults.
#pragma once

#include <cstdint>

#include "core/json.h"
#include "core/model/decoder_config.h"
#include "core/model/optimizer.h"

namespace collimate::dense {

struct DenseRecipe {
  DecoderConfig::Shape shape;
  int64_t items_max = 0;    // of the history that the model sees
  int64_t text_hidden = 0;  // width of the network that reads text vectors
  double temperature = 0.0;
  double dropout = 0.0, id_dropout = 0.0;
  int64_t epochs = 0, batch_sequences = 0;
  int lanes = 0;
  LearningRateSchedule schedule;  // without its steps, which follow from the data
  Optimizer::Options optimizer;
  uint64_t seed = 0;

  static DenseRecipe parse(const Json& recipe);
};

}  // namespace collimate::dense
