#include "core/curve_state.h"

#include <utility>

#include "core/math.h"
#include "core/ops.h"

namespace collimate {
namespace {

constexpr double kBeta1 = 0.9, kBeta2 = 0.999;
constexpr float kEpsilon = 1e-8f;

}  // namespace

CurveState CurveState::starting_with(std::vector<float> parameters) {
  CurveState state{.parameters = std::move(parameters)};
  state.first_moment.assign(state.parameters.size(), 0.0f);
  state.second_moment.assign(state.parameters.size(), 0.0f);
  return state;
}

void update(Pool& pool, CurveState& state, const CurveUpdate& update) {
  ops::AdamW args{.learning_rate = static_cast<float>(update.learning_rate),
                  .beta1 = static_cast<float>(kBeta1),
                  .beta2 = static_cast<float>(kBeta2),
                  .epsilon = kEpsilon,
                  .bias_correction1 = static_cast<float>(1.0 - power_f64(kBeta1, state.step + 1)),
                  .bias_correction2 = static_cast<float>(1.0 - power_f64(kBeta2, state.step + 1))};
  for (const DecayedPart& part : update.parts) {
    args.elements = part.count;
    args.parameter = &state.parameters[part.first];
    args.first_moment = &state.first_moment[part.first];
    args.second_moment = &state.second_moment[part.first];
    args.gradient = &update.gradient[part.first];
    args.weight_decay = part.decay;
    ops::adamw(pool, args);
  }
  ++state.step;
  state.curve.push_back(static_cast<float>(update.loss));
}

}  // namespace collimate
