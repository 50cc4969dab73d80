// The loss that moves codebooks towards the space of the item texts, with its gradient.
//
// Of item i: row x_i [D], codes c_l, prefix sums z_(i,l) = sum of its codes of levels 1..l, unit text vector t_i [T],
// and the map W [T, D].
//   L = mean_l mean_i |x_i - z_(i,l)|^2 / S + weight * C(L) + prefixWeight * mean_l C(l)
//   C(l) = mean_i -log softmax_j(cos(W z_(i,l), t_j) / temperature)[i]     over the items j of the batch
// 1. S is the mean squared norm of the rows, so the first term is a relative error and the weights mean the same
//    whatever the scale of the vectors. It has no commitment part: without an encoder nothing else could be pulled.
// 2. Codes are given and not differentiated; gradients reach centroids and W.
// 3. Levels, blocks and batch order fix every sum: any number of threads gives the same bytes.
#pragma once

#include <cstdint>
#include <span>

#include "core/pool.h"

namespace collimate::alignment {

struct Shape {
  int64_t levels = 0, codes = 0, dim = 0, text_dim = 0;
  int64_t level_elements() const { return codes * dim; }
  int64_t centroid_elements() const { return levels * codes * dim; }
  int64_t map_elements() const { return text_dim * dim; }
};

struct Options {
  double weight = 0, prefix_weight = 0;
  float temperature = 0.07f;
  double mean_squared_norm = 1;  // S
};

struct Batch {
  std::span<const float> rows;     // [B, D]
  std::span<const int32_t> codes;  // [B, levels]
  std::span<const float> text;     // [B, T], unit rows
};

struct Loss {
  double total = 0;
  double whole = 0;     // C(L)
  double prefixes = 0;  // mean_l C(l)
  double reconstruction = 0;
};

// `parameters` and `gradient`: centroids [levels, codes, D], then W [T, D]. The gradient accumulates.
Loss loss(Pool& pool, const Shape& shape, const Options& options, const Batch& batch, std::span<const float> parameters,
          std::span<float> gradient);

}  // namespace collimate::alignment
