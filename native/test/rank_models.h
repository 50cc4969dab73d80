// Tiny random decoders with a catalogue, and prompts for them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/model/decoder.h"
#include "core/model/parameters.h"
#include "core/philox.h"
#include "core/rank/ranker.h"
#include "core/rank/trie.h"
#include "test/pool_decoder.h"
#include "test/rank_reference.h"

namespace collimate::rank_test {

struct ModelShape {
  int64_t items = 0, levels = 4, width = 0;  // catalogue: `width` tokens per level
  int64_t layers = 2, dim = 32, heads = 4, kv_heads = 2;
  int64_t vocabulary = 0;  // 0: just enough
  int64_t positions_max = 256;
  bool tied = false;
};

struct Model {
  Parameters parameters;
  reference::Catalogue catalogue;

  ItemTrie trie() const {
    return ItemTrie::build({.item_tokens = catalogue.item_tokens,
                            .items = catalogue.items,
                            .levels = catalogue.levels,
                            .vocabulary = catalogue.vocabulary});
  }
  // Logits after prompt + prefix by a forward pass over the whole sequence, remembered by prefix.
  reference::NextLogits next_logits(std::span<const int32_t> prompt) const {
    auto seen = std::make_shared<std::map<reference::Prefix, std::vector<float>>>();
    auto pool = std::make_shared<Pool>(1);
    auto decoder = std::make_shared<PoolDecoder>(parameters, *pool, 256);
    const std::vector<int32_t> start(prompt.begin(), prompt.end());
    return [seen, pool, decoder, start](const reference::Prefix& prefix) {
      auto at = seen->find(prefix);
      if (at != seen->end()) return at->second;
      std::vector<int32_t> sequence = start;
      sequence.insert(sequence.end(), prefix.begin(), prefix.end());
      std::vector<uint8_t> label_mask(sequence.size() + 1, 0);
      sequence.push_back(0);  // whatever is predicted here: its logits are what is asked for
      label_mask.back() = 1;
      PackedBatch batch;
      batch.add(sequence, label_mask);
      return seen->emplace(prefix, decoder->logits(batch)).first->second;
    };
  }
};

// Weights with enough spread that scores differ clearly.
inline void randomise(Parameters& parameters, uint64_t seed) {
  initialise_scratch(parameters, seed);
  const auto scale = [&](int number, float factor) {
    const int64_t elements = parameters.at(number).elements();
    std::for_each(parameters.data(number), parameters.data(number) + elements, [&](float& v) { v *= factor; });
  };
  for (int number = 0; number < static_cast<int>(parameters.all().size()); ++number) {
    if (parameters.at(number).shape.size() == 2) scale(number, 12.0f);
  }
}

inline Model make_model(const ModelShape& shape, uint64_t seed) {
  uint64_t drawn = 0;
  const auto below = [&](int64_t n) {
    return random_below({.seed = seed, .site = RandomSite::test, .stream = 1}, drawn++, static_cast<uint32_t>(n));
  };
  constexpr int64_t kTextTokens = 11;
  const int64_t least = kTextTokens + shape.levels * shape.width;
  auto catalogue = reference::random_catalogue({.items = shape.items,
                                                .levels = shape.levels,
                                                .width = shape.width,
                                                .first = kTextTokens,
                                                .vocabulary = std::max(least, shape.vocabulary)},
                                               below);
  DecoderConfig config = DecoderConfig::from_shape({.layers = shape.layers,
                                                    .dim = shape.dim,
                                                    .heads = shape.heads,
                                                    .kv_heads = shape.kv_heads,
                                                    .ffn_dim = 2 * shape.dim + 8,
                                                    .rope_theta = 10000.0,
                                                    .norm_eps = 1e-5,
                                                    .tie_embeddings = shape.tied},
                                                   catalogue.vocabulary);
  config.positions_max = shape.positions_max;
  Parameters parameters({.config = config});
  randomise(parameters, seed);
  return {std::move(parameters), std::move(catalogue)};
}

struct Prompts {
  std::vector<int32_t> tokens;
  std::vector<int64_t> offsets{0};
  std::vector<int32_t> users;  // 100, 101, …

  PromptSet set() const { return {tokens, offsets, users}; }
  std::span<const int32_t> prompt(int64_t index) const { return set().prompt(index); }
  void add(std::span<const int32_t> prompt) {
    tokens.insert(tokens.end(), prompt.begin(), prompt.end());
    offsets.push_back(static_cast<int64_t>(tokens.size()));
    users.push_back(static_cast<int32_t>(100 + users.size()));
  }
  // Of the same length.
  void replace(int64_t index, std::span<const int32_t> prompt) {
    std::copy(prompt.begin(), prompt.end(), tokens.begin() + offsets[static_cast<size_t>(index)]);
  }
};

inline Prompts make_prompts(const Model& model, const std::vector<int64_t>& lengths, uint64_t seed) {
  Prompts prompts;
  for (size_t user = 0; user < lengths.size(); ++user) {
    std::vector<int32_t> prompt;
    for (int64_t i = 0; i < lengths[user]; ++i) {
      const RandomStream stream{.seed = seed, .site = RandomSite::test, .stream = user};
      const auto vocabulary = static_cast<uint32_t>(model.catalogue.vocabulary);
      prompt.push_back(static_cast<int32_t>(random_below(stream, static_cast<uint64_t>(i), vocabulary)));
    }
    prompts.add(prompt);
  }
  return prompts;
}

}  // namespace collimate::rank_test
