// What DCCF's model asks of the machine that computes it: memory, and the passes of propagate.h, intents.h and
// losses.h.
//
// 1. Pointers among the arguments are what allocate(), resident() and target() gave; batches and node lists lie on the
// host.
// 2. Calls take effect in order.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "core/dccf/graph.h"
#include "core/dccf/intents.h"
#include "core/dccf/losses.h"
#include "core/dccf/propagate.h"
#include "core/pool.h"

namespace collimate::dccf {

class Passes {
 public:
  virtual ~Passes() = default;

  // Floats that live as long as this; without a value until written.
  virtual float* allocate(int64_t count) = 0;
  // Where passes read host values; valid until the next call for a list of this length.
  virtual const float* resident(std::span<const float> host) = 0;
  // Where passes write what collect() then brings to the host; zero.
  virtual float* target(std::span<float> host) = 0;
  virtual void collect(std::span<float> host) = 0;
  virtual std::span<const float> on_host(const float* x, int64_t count) = 0;

  virtual void zero(float* x, int64_t count) = 0;
  virtual void copy(float* to, const float* from, int64_t count) = 0;
  // to = a + b; a may be `to`.
  virtual void add(float* to, const float* a, const float* b, int64_t count) = 0;
  // to += factor * x
  virtual void add_scaled(float* to, const float* x, float factor, int64_t count) = 0;
  virtual double sum_squares(const float* x, int64_t count) = 0;
  // next = (((z + r) + hz) + hr) + e; final += next
  struct LayerSum {
    const float *z, *r, *hz, *hr, *e;
    float *next, *final;
    int64_t count;
  };
  virtual void sum_layer(const LayerSum& args) = 0;

  virtual void spread(const Spread& args) = 0;
  virtual void inverse_norms(const float* x, int64_t dim, float* result) = 0;
  virtual void masked_forward(const MaskedForward& args) = 0;
  virtual void masked_backward(const MaskedBackward& args) = 0;
  virtual void intents_forward(const IntentsForward& args) = 0;
  virtual void intents_backward(const IntentsBackward& args) = 0;
  virtual RankLossValue rank_loss(const Batch& batch, const RankLoss& args) = 0;
  virtual double contrast_loss(const ContrastLoss& args) = 0;
};

// On the pool. The graph stays the caller's.
std::unique_ptr<Passes> passes_on_processor(Pool& pool, const Graph& graph);

}  // namespace collimate::dccf
