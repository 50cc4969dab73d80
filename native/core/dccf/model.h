// DCCF's parameters, forward pass and backward pass (arXiv 2305.02759).
//
// E_(l+1) = Z + R + H_Z + H_R + E_l for `layers` layers; the final embedding is the sum of E_0 .. E_layers.
// Without intents nothing but the graph is left: E_(l+1) = Z, which is LightGCN (arXiv 2002.02126), whose mean over the
// layers is this sum but for a factor.
// 1. Parameters, gradients and Adam's moments are flat arrays of one layout: E_0 [V, d], user prototypes [d, K], item
//    prototypes [d, K].
// 2. forward() keeps per layer what backward() needs: 5 V d + 4 V floats a layer, nothing per edge.
// 3. Where it is computed is the passes' matter (passes.h): parameters and gradients come and go as host memory.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/dccf/graph.h"
#include "core/dccf/losses.h"
#include "core/dccf/passes.h"

namespace collimate::dccf {

struct ModelOptions {
  int64_t dim = 32;
  int64_t layers = 2;
  int64_t intents = 128;  // 0: LightGCN
  float weight_decay = 2.5e-5f;
  float intent_weight = 5e-3f;
  float contrast_weight = 0.1f;
  float temperature = 1.0f;
  int64_t contrast_rows_max = 1024;
  uint64_t seed = 0;
};

struct LossValue {
  double total = 0;
  double rank = 0;
  double contrast = 0;  // unweighted: sum over layers, views and the two sides
  double decay = 0;     // weighted: layer-0 rows and intents
};

class Model {
 public:
  Model(Passes& passes, const Graph& graph, const ModelOptions& options);

  int64_t parameter_count() const;
  // Xavier-normal.
  std::vector<float> initial_parameters() const;
  // Final embedding F [V, d], valid until the next call.
  std::span<const float> forward(std::span<const float> parameters);
  // The whole loss on a batch, and its gradient (overwritten).
  LossValue loss_and_gradient(std::span<const float> parameters, const Batch& batch, std::span<float> gradient);

 private:
  struct Layer {
    float *e, *z, *r, *hz, *hr;                              // [V, d]
    float *norm_z, *norm_r, *inverse_sum_z, *inverse_sum_r;  // [V]
  };
  struct Parts;  // the flat array's three parts
  const float* run_forward(const Parts& parts);
  void forward_layer(const Parts& parts, const Layer& layer, float* next);
  void backward_plain_layer();
  double backward_layer(const Parts& parts, const Layer& layer, float* dprototypes);
  double contrast_layer(const Layer& layer);
  MaskedForward masked_args(const Layer& layer) const;
  Parts parts_of(const float* parameters) const;

  Passes& passes_;
  const Graph& graph_;
  ModelOptions options_;
  int64_t size_;  // V d
  std::vector<Layer> layers_;
  float *final_ = nullptr, *last_ = nullptr;
  // Backward scratch, [V, d]: gradients of F, of a layer's output and input, and of its four summands. Made when the
  // first gradient is asked for.
  float *dfinal_ = nullptr, *dnext_ = nullptr, *de_ = nullptr, *dz_ = nullptr, *dr_ = nullptr, *dhz_ = nullptr,
        *dhr_ = nullptr;
  std::vector<int32_t> contrast_users_, contrast_items_;
};

// The first `limit` different values, in order of appearance.
std::vector<int32_t> first_distinct(std::span<const int32_t> values, int64_t limit);

}  // namespace collimate::dccf
