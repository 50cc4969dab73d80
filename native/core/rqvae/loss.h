// The autoencoder with residual codebooks between its halves (RQ-VAE), and its loss with gradient.
//
//   z = unit(V2 swiglu(V1 x))     encoder: x [D] to the unit sphere in [d]
//   q = sum_l e_(l, c_l)          the nearest codes of z, level by level (core/residual_quantizer.h)
//   y = U2 swiglu(U1 q)           decoder
//   L = mean_i |y_i - x_i|^2 / S + mean_i mean_l (|sg(r_l) - e_l|^2 + commitment |r_l - sg(e_l)|^2)
// with r_l what the levels before l left of z, and sg: not differentiated.
// 1. The decoder's gradient at q is taken for that at z (straight through): codes are not differentiated.
// 2. S is the mean squared norm of the rows, so that weights mean the same whatever the scale of the vectors.
// 3. Blocks and batch order fix every sum: any number of threads gives the same bytes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/pool.h"
#include "core/residual_quantizer.h"

namespace collimate::rqvae {

struct Shape {
  int64_t dim = 0, hidden = 0, latent = 0;
  int64_t levels = 0, codes = 0;
  // Of the flat parameters: encoder V1 [2H, D], V2 [d, H]; decoder U1 [2H, d], U2 [D, H]; centroids [levels, codes, d].
  int64_t encoder_elements() const { return 2 * hidden * dim + latent * hidden; }
  int64_t network_elements() const { return encoder_elements() + 2 * hidden * latent + dim * hidden; }
  int64_t centroid_elements() const { return levels * codes * latent; }
  int64_t elements() const { return network_elements() + centroid_elements(); }
};

struct Options {
  double commitment = 0.25;
  double mean_squared_norm = 1;  // S
  // Off: the decoder sees z itself, and the centroids have no part in the loss.
  bool quantized = true;
};

struct Loss {
  double total = 0;
  double reconstruction = 0;
  double distance = 0;  // mean_i mean_l |r_l - e_l|^2
};

// rows [B, D]; the gradient accumulates.
Loss loss(Pool& pool, const Shape& shape, const Options& options, std::span<const float> rows,
          std::span<const float> parameters, std::span<float> gradient);

// z of rows [B, D]: [B, d].
std::vector<float> encode(Pool& pool, const Shape& shape, std::span<const float> rows,
                          std::span<const float> parameters);
// y of q [B, d]: [B, D].
std::vector<float> decode(Pool& pool, const Shape& shape, std::span<const float> sums,
                          std::span<const float> parameters);

inline ResidualCodebooks codebooks(const Shape& shape, std::span<const float> parameters) {
  return {shape.levels, shape.codes, shape.latent, parameters.last(shape.centroid_elements())};
}

}  // namespace collimate::rqvae
