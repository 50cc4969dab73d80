// AdamW over the trained elements of a decoder, with global-norm clipping and the learning-rate schedule.
//
// 1. Weight decay touches linear matrices and adapters only: never norms, embeddings, the head or frozen rows.
// 2. Moments share the numbering of the flat gradient.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/model/parameters.h"
#include "core/pool.h"

namespace collimate {

// Linear warm-up from 0, then a cosine from `maximum` at `warmup_steps` to `minimum` at `steps`.
struct LearningRateSchedule {
  double maximum = 0.0, minimum = 0.0;
  int64_t warmup_steps = 0, steps = 0;
  double at(int64_t step) const;  // step counts from 0
};

class Optimizer {
 public:
  struct Options {
    double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0.0;
    double clip_norm = 0.0;  // 0: never clips
  };
  Optimizer(Parameters& parameters, const Options& options);

  // Applies update number `step` (from 0). `gradient_norm` is that of the whole flat gradient.
  struct Update {
    int64_t step = 0;
    double learning_rate = 0.0;
    std::span<const float> gradient;
    double gradient_norm = 0.0;
  };
  void apply(Pool& pool, const Update& update);

  std::vector<float>& first_moment() { return first_moment_; }
  std::vector<float>& second_moment() { return second_moment_; }

 private:
  Parameters& parameters_;
  Options options_;
  std::vector<float> first_moment_, second_moment_;
};

// The trained values in the order of the flat gradient, out of and into the parameters.
std::vector<float> gather_trained(const Parameters& parameters);
void scatter_trained(Parameters& parameters, std::span<const float> trained);

}  // namespace collimate
