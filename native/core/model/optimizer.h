// AdamW over the trained elements of a decoder, with global-norm clipping and the learning-rate schedule.
//
// 1. Weight decay touches linear matrices and adapters only: never norms, embeddings, the head or frozen rows.
// 2. Moments share the numbering of the flat gradient.
// 3. Updates happen where the backend is. On a device trained values and moments live there; those of the parameters
//    and the moments here are copies, current after to_host().
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/model/parameters.h"
#include "core/ops_backend.h"

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
  // Begins with moments of zero. Parameters and backend must outlive this.
  Optimizer(Parameters& parameters, OpsBackend& backend, const Options& options);

  // Applies update number `step` (from 0). `gradient` lies in the backend's memory, its norm is that of all of it.
  struct Update {
    int64_t step = 0;
    double learning_rate = 0.0;
    std::span<const float> gradient;
    double gradient_norm = 0.0;
  };
  void apply(const Update& update);

  // Makes parameters and moments on the host those that the updates led to.
  void to_host();
  // To be called when parameters or moments on the host were changed.
  void to_backend();
  // The trained values in the order of the flat gradient, in a device's memory. Null on the host, where they are the
  // parameters.
  const float* trained() const { return device_.values.data(); }

  std::vector<float>& first_moment() { return first_moment_; }
  std::vector<float>& second_moment() { return second_moment_; }

 private:
  // A run of the flat gradient.
  struct Part {
    int64_t offset = 0, elements = 0;
    float *values = nullptr, *first_moment = nullptr, *second_moment = nullptr;
    bool decay = false;
  };
  std::vector<Part> parts();

  Parameters& parameters_;
  OpsBackend& backend_;
  Options options_;
  std::vector<float> first_moment_, second_moment_;
  struct OnDevice {
    BackendArray<float> values, first_moment, second_moment;
  };
  OnDevice device_;
  bool host_is_current_ = true;
};

// The trained values in the order of the flat gradient, out of and into the parameters.
std::vector<float> gather_trained(const Parameters& parameters);
void scatter_trained(Parameters& parameters, std::span<const float> trained);

}  // namespace collimate
