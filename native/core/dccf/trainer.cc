#include "core/dccf/trainer.h"

#include <cmath>
#include <string>
#include <utility>

#include "core/failure.h"
#include "core/math.h"
#include "core/ops.h"

namespace collimate::dccf {
namespace {

constexpr double kBeta1 = 0.9;
constexpr double kBeta2 = 0.999;
constexpr float kEpsilon = 1e-8f;

}  // namespace

Trainer::Trainer(Pool& pool, const Graph& graph, const TrainerOptions& options, std::unique_ptr<Passes> passes)
    : pool_(pool),
      options_(options),
      batches_(graph, options.batch_size, options.model.seed),
      passes_(std::move(passes)),
      model_(*passes_, graph, options.model) {
  state_.parameters = model_.initial_parameters();
  state_.first_moment.assign(state_.parameters.size(), 0.0f);
  state_.second_moment.assign(state_.parameters.size(), 0.0f);
  gradient_.resize(state_.parameters.size());
}

void Trainer::set_state(TrainerState state) {
  const size_t size = state_.parameters.size();
  if (state.parameters.size() != size || state.first_moment.size() != size || state.second_moment.size() != size ||
      state.step < 0 || state.step > steps_total())
    fail_bad_input("dccf: expected a state of " + std::to_string(size) + " parameters and at most " +
                   std::to_string(steps_total()) + " steps, got " + std::to_string(state.parameters.size()) +
                   " parameters at step " + std::to_string(state.step) + "; resume the job the checkpoint belongs to");
  state_ = std::move(state);
}

LossValue Trainer::run_step() {
  const LossValue loss = model_.loss_and_gradient(state_.parameters, batches_.at(state_.step), gradient_);
  if (!std::isfinite(loss.total))
    throw JobFailure(FailureCause::nan_loss, "dccf: the loss of step " + std::to_string(state_.step + 1) +
                                                 " is not finite; lower learningRate or raise temperature");
  ++state_.step;
  ops::adamw(pool_, {.elements = static_cast<int64_t>(gradient_.size()),
                     .parameter = state_.parameters.data(),
                     .first_moment = state_.first_moment.data(),
                     .second_moment = state_.second_moment.data(),
                     .gradient = gradient_.data(),
                     .learning_rate = options_.learning_rate,
                     .beta1 = static_cast<float>(kBeta1),
                     .beta2 = static_cast<float>(kBeta2),
                     .epsilon = kEpsilon,
                     .bias_correction1 = static_cast<float>(1.0 - power_f64(kBeta1, state_.step)),
                     .bias_correction2 = static_cast<float>(1.0 - power_f64(kBeta2, state_.step))});
  return loss;
}

}  // namespace collimate::dccf
