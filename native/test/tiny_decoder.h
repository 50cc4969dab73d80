// Tiny decoders and batches for tests.
#pragma once

#include <string>
#include <vector>

#include "core/model/decoder.h"
#include "core/model/parameters.h"
#include "gradient_check.h"

namespace collimate {

inline DecoderConfig tiny_config(bool tie, int64_t dim = 16) {
  return DecoderConfig::from_shape(
      {.layers = 2, .dim = dim, .heads = 4, .kv_heads = 2, .ffn_dim = 20, .rope_theta = 100.0, .tie_embeddings = tie},
      23);
}

// Every value random and of order one, norms and adapter B included, so that no gradient is zero by construction.
inline Parameters tiny_parameters(bool tie, bool lora, int64_t dim = 16) {
  Parameters::Options options{.config = tiny_config(tie, dim)};
  if (lora) {
    options.trainable = {
        .lora = true, .rank = 3, .alpha = 6.0, .targets = {"q_proj", "v_proj", "o_proj", "up_proj", "down_proj"}};
    options.first_trained_rows = {15, 15};
  }
  Parameters parameters(options);
  const auto values = random_values(static_cast<int64_t>(parameters.values().size()), 11, 0.4f);
  std::copy(values.begin(), values.end(), parameters.values().begin());
  return parameters;
}

// Three sequences; the middle one has a single labelled token, as answer-only training has.
inline PackedBatch tiny_batch() {
  PackedBatch batch;
  const std::vector<int32_t> first{3, 17, 4, 22, 17, 1, 0}, second{5, 18, 19}, third{20, 2, 16, 21, 9};
  batch.add(first, std::vector<uint8_t>{0, 1, 1, 1, 1, 0, 1});
  batch.add(second, std::vector<uint8_t>{0, 0, 1});
  batch.add(third, std::vector<uint8_t>{0, 1, 1, 1, 1});
  return batch;
}

// A group of three answers behind one prompt, a plain sequence, and a group of two.
inline PackedBatch grouped_batch(std::span<const double> reference) {
  PackedBatch batch;
  const auto group = [&](const std::vector<std::vector<int32_t>>& sequences, size_t first) {
    PreferenceGroup made{.label_bounds = {batch.labels()}, .reference = {}};
    for (size_t i = 0; i < sequences.size(); ++i) {
      std::vector<uint8_t> mask(sequences[i].size(), 0);
      mask.end()[-1] = mask.end()[-2] = 1;
      batch.add(sequences[i], mask);
      made.label_bounds.push_back(batch.labels());
      made.reference.push_back(reference[first + i]);
    }
    batch.groups.push_back(made);
  };
  group({{3, 17, 4, 22}, {3, 17, 5, 21}, {3, 17, 6, 20}}, 0);
  batch.add(std::vector<int32_t>{5, 18, 19, 20}, std::vector<uint8_t>{0, 1, 0, 1});
  group({{9, 2, 16}, {9, 21, 9}}, 3);
  return batch;
}

inline const std::vector<double> kGroupReference{-7.5, -6.0, -8.0, -5.0, -9.0};

}  // namespace collimate
