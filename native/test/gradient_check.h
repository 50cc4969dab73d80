// Finite-difference checks of hand-written gradients.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/philox.h"

namespace collimate {

inline std::vector<float> random_values(int64_t count, uint64_t number, float spread = 1.0f) {
  const RandomStream stream{.seed = 7, .site = RandomSite::test, .stream = number};
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = spread * random_normal(stream, i);
  return values;
}

inline double weighted_sum(std::span<const float> x, std::span<const float> weights) {
  double sum = 0.0;
  for (size_t i = 0; i < x.size(); ++i) sum += static_cast<double>(x[i]) * static_cast<double>(weights[i]);
  return sum;
}

// Largest difference relative to the largest value of the reference.
inline double largest_difference(std::span<const float> a, std::span<const double> b) {
  double worst = 0.0, largest = 1e-12;
  for (size_t i = 0; i < a.size(); ++i) {
    worst = std::max(worst, std::fabs(static_cast<double>(a[i]) - b[i]));
    largest = std::max(largest, std::fabs(b[i]));
  }
  return worst / largest;
}

// Largest |analytic - numeric| over (at most 64, evenly spread) elements, relative to the largest numeric gradient.
// `loss` must read `values`. Central differences: the truncation error is O(step^2), the rounding error
// O(float epsilon * |loss| / step).
struct GradientCheck {
  std::span<float> values;
  std::span<const float> analytic;
  std::function<double()> loss;
  float step = 1e-2f;
};
inline double gradient_error(const GradientCheck& check) {
  const size_t stride = std::max<size_t>(1, check.values.size() / 64);
  double worst = 0.0, largest = 1e-12;
  for (size_t i = 0; i < check.values.size(); i += stride) {
    const float kept = check.values[i];
    check.values[i] = kept + check.step;
    const double above = check.loss();
    check.values[i] = kept - check.step;
    const double below = check.loss();
    check.values[i] = kept;
    // The step that was really taken, after rounding.
    const double width = static_cast<double>(kept + check.step) - static_cast<double>(kept - check.step);
    const double numeric = (above - below) / width;
    worst = std::max(worst, std::fabs(numeric - static_cast<double>(check.analytic[i])));
    largest = std::max(largest, std::fabs(numeric));
  }
  return worst / largest;
}

}  // namespace collimate
