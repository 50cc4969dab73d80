// The losses of DCCF, each with its gradient.
//
// 1. Loss sums run over fixed blocks in tree order, in double; gradients are added in the order of the batch.
// 2. Rows of the final embedding F and of the layer-0 embedding are numbered as nodes: users, then items.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/pool.h"

namespace collimate::dccf {

// One training batch, as node numbers.
struct Batch {
  std::vector<int32_t> users;
  std::vector<int32_t> positives;
  std::vector<int32_t> negatives;
  int64_t size() const { return static_cast<int64_t>(users.size()); }
};

// mean softplus(F_u . F_j - F_u . F_i) and weight * sum(|E0_u|^2 + |E0_i|^2 + |E0_j|^2) over the batch's triples.
struct RankLoss {
  int64_t dim = 0;
  float weight_decay = 0.0f;
  const float* final = nullptr;      // F [V, d]
  const float* embedding = nullptr;  // E0 [V, d]
  float* dfinal = nullptr;           // accumulates
  float* dembedding = nullptr;       // accumulates
};
struct RankLossValue {
  double rank = 0;
  double decay = 0;
};
RankLossValue rank_loss(Pool& pool, const Batch& batch, const RankLoss& args);

// scale * InfoNCE(anchor, view) over `nodes` (all different): rows L2-normalised, the other rows of the list are the
// negatives, mean over rows. Returns the unscaled loss; gradients carry the scale.
struct ContrastLoss {
  std::span<const int32_t> nodes;
  int64_t dim = 0;
  float temperature = 1.0f;
  float scale = 1.0f;
  const float* anchor = nullptr;  // [V, d]
  const float* view = nullptr;    // [V, d]
  float* danchor = nullptr;       // [V, d], accumulates
  float* dview = nullptr;         // [V, d], accumulates
};
double contrast_loss(Pool& pool, const ContrastLoss& args);

}  // namespace collimate::dccf
