// Schedules and updates in double precision scalars; only the element loop is fp32.
#include "core/model/optimizer.h"

#include <algorithm>
#include <numbers>

#include "core/math.h"
#include "core/ops.h"

namespace collimate {

namespace {

// PyTorch's guard against division by zero in clip_grad_norm_.
constexpr double kClipEpsilon = 1e-6;

}  // namespace

double LearningRateSchedule::at(int64_t step) const {
  if (step < warmup_steps) return maximum * static_cast<double>(step + 1) / static_cast<double>(warmup_steps);
  const int64_t span = std::max<int64_t>(steps - warmup_steps, 1);
  const double progress = static_cast<double>(step - warmup_steps) / static_cast<double>(span);
  return minimum + (maximum - minimum) * 0.5 * (1.0 + cos_f64(std::numbers::pi * progress));
}

Optimizer::Optimizer(Parameters& parameters, OpsBackend& backend, const Options& options)
    : parameters_(parameters),
      backend_(backend),
      options_(options),
      first_moment_(static_cast<size_t>(parameters.trained_elements()), 0.0f),
      second_moment_(static_cast<size_t>(parameters.trained_elements()), 0.0f) {
  if (backend.is_host()) return;
  const int64_t elements = parameters.trained_elements();
  for (auto* array : {&device_.values, &device_.first_moment, &device_.second_moment})
    *array = BackendArray<float>(backend, elements);
  to_backend();
}

void Optimizer::to_host() {
  if (host_is_current_) return;
  std::vector<float> values(first_moment_.size());
  device_.values.download(values);
  device_.first_moment.download(first_moment_);
  device_.second_moment.download(second_moment_);
  scatter_trained(parameters_, values);
  host_is_current_ = true;
}

void Optimizer::to_backend() {
  if (backend_.is_host()) return;
  device_.values.upload(gather_trained(parameters_));
  device_.first_moment.upload(first_moment_);
  device_.second_moment.upload(second_moment_);
  host_is_current_ = true;
}

// What is updated alike and lies side by side: on the host each parameter, on a device as many as share their decay.
std::vector<Optimizer::Part> Optimizer::parts() {
  std::vector<Part> parts;
  for (int number = 0; number < static_cast<int>(parameters_.all().size()); ++number) {
    const Parameter& parameter = parameters_.at(number);
    if (parameter.train_rows == 0) continue;
    const int64_t offset = parameter.gradient_offset, elements = parameter.trained_elements();
    if (backend_.is_host()) {
      parts.push_back({offset, elements,
                       parameters_.data(number) + parameter.train_first_row * parameter.row_elements(),
                       first_moment_.data() + offset, second_moment_.data() + offset, parameter.decay});
    } else if (!parts.empty() && parts.back().decay == parameter.decay) {
      parts.back().elements += elements;
    } else {
      parts.push_back({offset, elements, device_.values.data() + offset, device_.first_moment.data() + offset,
                       device_.second_moment.data() + offset, parameter.decay});
    }
  }
  return parts;
}

void Optimizer::apply(const Update& update) {
  const double clip = options_.clip_norm > 0.0 && update.gradient_norm > options_.clip_norm
                          ? options_.clip_norm / (update.gradient_norm + kClipEpsilon)
                          : 1.0;
  for (const Part& part : parts()) {
    backend_.adamw({.elements = part.elements,
                    .parameter = part.values,
                    .first_moment = part.first_moment,
                    .second_moment = part.second_moment,
                    .gradient = update.gradient.data() + part.offset,
                    .gradient_scale = static_cast<float>(clip),
                    .learning_rate = static_cast<float>(update.learning_rate),
                    .beta1 = static_cast<float>(options_.beta1),
                    .beta2 = static_cast<float>(options_.beta2),
                    .epsilon = static_cast<float>(options_.epsilon),
                    .weight_decay = part.decay ? static_cast<float>(options_.weight_decay) : 0.0f,
                    .bias_correction1 = static_cast<float>(1.0 - power_f64(options_.beta1, update.step + 1)),
                    .bias_correction2 = static_cast<float>(1.0 - power_f64(options_.beta2, update.step + 1))});
  }
  host_is_current_ = backend_.is_host();
}

std::vector<float> gather_trained(const Parameters& parameters) {
  std::vector<float> trained;
  trained.reserve(static_cast<size_t>(parameters.trained_elements()));
  for (int number = 0; number < static_cast<int>(parameters.all().size()); ++number) {
    const Parameter& parameter = parameters.at(number);
    const float* from = parameters.data(number) + parameter.train_first_row * parameter.row_elements();
    trained.insert(trained.end(), from, from + parameter.trained_elements());
  }
  return trained;
}

void scatter_trained(Parameters& parameters, std::span<const float> trained) {
  for (int number = 0; number < static_cast<int>(parameters.all().size()); ++number) {
    const Parameter& parameter = parameters.at(number);
    if (parameter.train_rows == 0) continue;
    std::copy_n(trained.data() + parameter.gradient_offset, parameter.trained_elements(),
                parameters.data(number) + parameter.train_first_row * parameter.row_elements());
  }
}

}  // namespace collimate
