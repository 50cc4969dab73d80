// A beam search written for reading, and exhaustive scoring, in double precision over plain token lists: what core/rank
// is held against. Shares nothing with it but the item tokens.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <numeric>
#include <set>
#include <span>
#include <vector>

namespace collimate::reference {

using Prefix = std::vector<int32_t>;
// Logits over the vocabulary after a prefix of item tokens.
using NextLogits = std::function<std::vector<float>(const Prefix&)>;

struct Catalogue {
  std::vector<int32_t> item_tokens;  // [items, levels]
  int64_t items = 0, levels = 0, vocabulary = 0;
  Prefix id(int64_t item) const {
    return {item_tokens.begin() + item * levels, item_tokens.begin() + (item + 1) * levels};
  }
};

struct Scored {
  int32_t item;
  double score;
};

// Distinct ids; the tokens of level l come from [first + l * width, first + (l + 1) * width).
struct CatalogueShape {
  int64_t items = 0, levels = 0, width = 0, first = 0, vocabulary = 0;
};
template <typename Below>  // below(n): an integer in [0, n)
Catalogue random_catalogue(const CatalogueShape& shape, const Below& below) {
  Catalogue catalogue{.item_tokens = {}, .items = shape.items, .levels = shape.levels, .vocabulary = shape.vocabulary};
  std::set<Prefix> taken;
  while (static_cast<int64_t>(taken.size()) < shape.items) {
    Prefix id;
    for (int64_t level = 0; level < shape.levels; ++level) {
      id.push_back(static_cast<int32_t>(shape.first + level * shape.width + below(shape.width)));
    }
    if (!taken.insert(id).second) continue;
    catalogue.item_tokens.insert(catalogue.item_tokens.end(), id.begin(), id.end());
  }
  return catalogue;
}

inline std::set<int32_t> valid_next(const Catalogue& catalogue, const Prefix& prefix) {
  std::set<int32_t> next;
  for (int64_t item = 0; item < catalogue.items; ++item) {
    const Prefix id = catalogue.id(item);
    if (std::equal(prefix.begin(), prefix.end(), id.begin())) next.insert(id[prefix.size()]);
  }
  return next;
}

inline double log_normaliser(const Catalogue& catalogue, const std::vector<float>& logits,
                             const std::set<int32_t>& valid, bool full) {
  double sum = 0.0;
  for (int32_t token = 0; token < catalogue.vocabulary; ++token) {
    if (full || valid.count(token)) sum += std::exp(static_cast<double>(logits[static_cast<size_t>(token)]));
  }
  return std::log(sum);
}

inline bool better(const Scored& a, const Scored& b) {
  return a.score != b.score ? a.score > b.score : a.item < b.item;
}

// Hypotheses kept after each level; the last is the length of the result.
using Widths = std::vector<int64_t>;

// All hypotheses are recomputed from their prefixes at each level.
inline std::vector<Scored> beam_search(const Catalogue& catalogue, const Widths& widths, bool full,
                                       const NextLogits& next) {
  std::vector<std::pair<Prefix, double>> live = {{{}, 0.0}};
  for (int64_t level = 0; level < catalogue.levels; ++level) {
    std::vector<std::pair<Prefix, double>> candidates;
    for (const auto& [prefix, score] : live) {
      const auto logits = next(prefix);
      const auto valid = valid_next(catalogue, prefix);
      const double normaliser = log_normaliser(catalogue, logits, valid, full);
      for (const int32_t token : valid) {
        Prefix longer = prefix;
        longer.push_back(token);
        candidates.emplace_back(longer, score + static_cast<double>(logits[static_cast<size_t>(token)]) - normaliser);
      }
    }
    std::sort(candidates.begin(), candidates.end(), [](const auto& a, const auto& b) {
      return a.second != b.second ? a.second > b.second : a.first < b.first;
    });
    const bool last = level + 1 == catalogue.levels;  // cut below, by item
    const auto width = static_cast<size_t>(widths[static_cast<size_t>(level)]);
    if (!last && candidates.size() > width) candidates.resize(width);
    live = std::move(candidates);
  }
  std::map<Prefix, int32_t> item_of;
  for (int64_t item = 0; item < catalogue.items; ++item) item_of[catalogue.id(item)] = static_cast<int32_t>(item);
  std::vector<Scored> result;
  for (const auto& [id, score] : live) result.push_back({item_of.at(id), score});
  std::sort(result.begin(), result.end(), better);
  if (static_cast<int64_t>(result.size()) > widths.back()) result.resize(static_cast<size_t>(widths.back()));
  return result;
}

inline std::vector<Scored> beam_search(const Catalogue& catalogue, int64_t beams, bool full, const NextLogits& next) {
  return beam_search(catalogue, Widths(static_cast<size_t>(catalogue.levels), beams), full, next);
}

// What pruning costs a list, by brute force.
struct Loss {
  bool missed = false;
  double gap = 0.0, overlap = 0.0;
};
inline Loss search_loss(const std::vector<Scored>& list, const std::vector<Scored>& truth, int64_t top_k) {
  const auto has = [&](const Scored& scored) {
    return std::any_of(list.begin(), list.end(), [&](const Scored& found) { return found.item == scored.item; });
  };
  const int64_t wanted = std::min(top_k, static_cast<int64_t>(truth.size()));
  Loss loss{.missed = !has(truth[0])};
  if (loss.missed) loss.gap = truth[0].score - list[0].score;
  const auto found = std::count_if(truth.begin(), truth.begin() + wanted, has);
  loss.overlap = static_cast<double>(found) / static_cast<double>(wanted);
  return loss;
}

// Every item's score, best first.
inline std::vector<Scored> exhaustive(const Catalogue& catalogue, bool full, const NextLogits& next) {
  std::vector<Scored> result;
  std::map<Prefix, std::pair<std::vector<float>, double>> seen;
  for (int64_t item = 0; item < catalogue.items; ++item) {
    const Prefix id = catalogue.id(item);
    double score = 0.0;
    Prefix prefix;
    for (const int32_t token : id) {
      auto at = seen.find(prefix);
      if (at == seen.end()) {
        const auto logits = next(prefix);
        const double normaliser = log_normaliser(catalogue, logits, valid_next(catalogue, prefix), full);
        at = seen.emplace(prefix, std::pair{logits, normaliser}).first;
      }
      score += static_cast<double>(at->second.first[static_cast<size_t>(token)]) - at->second.second;
      prefix.push_back(token);
    }
    result.push_back({static_cast<int32_t>(item), score});
  }
  std::sort(result.begin(), result.end(), better);
  return result;
}

}  // namespace collimate::reference
