// The softmax-over-negatives form of direct preference optimisation (S-DPO, Chen et al. 2024).
//
// With ratios D_i = log p(answer i) - log p_reference(answer i), the first answer preferred:
//   loss = -log sigmoid(-log sum_{i > 0} exp(beta (D_i - D_0)))
#pragma once

#include <span>
#include <vector>

namespace collimate {

struct PreferenceLoss {
  double loss = 0.0;
  std::vector<double> gradient;  // d loss / d D_i, of as many as there are ratios
};

// At least two ratios. A ratio that is no number gives a loss that is none.
PreferenceLoss preference_loss(std::span<const double> ratios, double beta);

}  // namespace collimate
