// The loss is log(1 + sum exp(z)) of z_i = beta (D_i - D_0): one more log-sum-exp, with a zero beside the z.
#include "core/model/preference_loss.h"

#include <algorithm>
#include <cmath>

#include "core/math.h"

namespace collimate {

PreferenceLoss preference_loss(std::span<const double> ratios, double beta) {
  PreferenceLoss result{.gradient = std::vector<double>(ratios.size(), 0.0)};
  double top = 0.0;
  for (const double ratio : ratios) {
    if (!std::isfinite(ratio)) return {.loss = NAN, .gradient = std::vector<double>(ratios.size(), NAN)};
    top = std::max(top, beta * (ratio - ratios[0]));
  }
  double total = exp_f64(-top);
  for (size_t i = 1; i < ratios.size(); ++i) {
    result.gradient[i] = exp_f64(beta * (ratios[i] - ratios[0]) - top);
    total += result.gradient[i];
  }
  result.loss = top + log_f64(total);
  for (size_t i = 1; i < ratios.size(); ++i) {
    result.gradient[i] *= beta / total;
    result.gradient[0] -= result.gradient[i];
  }
  return result;
}

}  // namespace collimate
