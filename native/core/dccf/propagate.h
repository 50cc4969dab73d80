// The passes over edges of one DCCF layer (arXiv 2305.02759), forward and backward.
//
// Notation per layer: E input, Z = G E, R intents; for X in {Z, R} the adaptive mask of pair (h, t) is
// a_X = (cos(X_h, X_t) + 1) / 2, s_X(h) = sum over t of a_X(h, t), and H_X[h] = sum over t of a_X(h, t) / s_X(h) *
// E[t].
// 1. Every pass goes row by row over a node's neighbours and writes that row only: no scatter, no per-edge storage
//    (masks are recomputed in the backward), O(V d) memory, one order of additions.
// 2. A node without neighbours has Z = H_Z = H_R = 0 and gives nothing to others.
// 3. A row whose norm is below 1e-12 counts as having cosine 0 with everything and gets no gradient through it.
// All matrices are [V, d], row-major.
#pragma once

#include <cstdint>
#include <vector>

#include "core/dccf/graph.h"
#include "core/pool.h"

namespace collimate::dccf {

// y[h] = sum over t of G(h, t) x[t] (added to y when `accumulate`). G is symmetric, so this is its own transpose.
struct Spread {
  const float* x = nullptr;
  float* y = nullptr;
  int64_t dim = 0;
  bool accumulate = false;
};
void spread(Pool& pool, const Graph& graph, const Spread& args);

// inverse_norms[h] = 1 / |x[h]|, 0 by invariant 3.
void inverse_norms(Pool& pool, const Graph& graph, const float* x, int64_t dim, float* result);

// One of the two adaptive views of a layer.
struct MaskedView {
  const float* x = nullptr;             // Z or R
  const float* inverse_norm = nullptr;  // [V]
  float* h = nullptr;                   // H_X
  float* inverse_sum = nullptr;         // [V]: 1 / s_X, 0 without neighbours
};
struct MaskedForward {
  const float* e = nullptr;
  MaskedView views[2];
  int64_t dim = 0;
};
void masked_forward(Pool& pool, const Graph& graph, const MaskedForward& args);

struct MaskedBackward {
  MaskedForward forward;                    // as the forward left it
  const float* dh[2] = {nullptr, nullptr};  // gradients of H_Z, H_R
  float* dx[2] = {nullptr, nullptr};        // gradients of Z, R; accumulates
  float* de = nullptr;                      // gradient of E; accumulates
};
void masked_backward(Pool& pool, const Graph& graph, const MaskedBackward& args);

}  // namespace collimate::dccf
