// Parameters that are trained by AdamW in one piece, and what their training needs beside them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/pool.h"

namespace collimate {

struct CurveState {
  int64_t step = 0;
  std::vector<float> parameters, first_moment, second_moment;
  std::vector<float> curve;  // the loss of every step

  // Moments of zero, no step.
  static CurveState starting_with(std::vector<float> parameters);
};

// Elements [first, first + count) with a weight decay of their own.
struct DecayedPart {
  int64_t first = 0, count = 0;
  float decay = 0.0f;
};
// AdamW (beta 0.9 and 0.999) of these parts by the gradient of all; counts the step and appends its loss.
struct CurveUpdate {
  std::span<const float> gradient;
  double learning_rate = 0.0, loss = 0.0;
  std::span<const DecayedPart> parts;
};
void update(Pool& pool, CurveState& state, const CurveUpdate& args);

}  // namespace collimate
