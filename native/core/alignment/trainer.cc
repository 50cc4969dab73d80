#include "core/alignment/trainer.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "core/failure.h"
#include "core/ops.h"
#include "core/residual_quantizer.h"

namespace collimate::alignment {
namespace {

constexpr float kMapDecay = 0.01f;

}  // namespace

Trainer::Trainer(Pool& pool, const Shape& shape, const Data& data, const TrainerOptions& options)
    : pool_(pool),
      shape_(shape),
      data_(data),
      options_(options),
      schedule_{.maximum = options.learning_rate, .minimum = 0.0, .warmup_steps = 0, .steps = options.steps},
      order_({.examples = static_cast<int64_t>(data.items.size()),
              .batch_sequences = std::min(options.batch_items, static_cast<int64_t>(data.items.size())),
              .seed = options.seed}) {}

void Trainer::start(std::span<const float> centroids, std::span<const float> map) {
  std::vector<float> parameters(centroids.begin(), centroids.end());
  parameters.insert(parameters.end(), map.begin(), map.end());
  state_ = CurveState::starting_with(std::move(parameters));
}

Loss Trainer::run_step() {
  const std::vector<int64_t> batch = order_.batch(state_.step);
  const int64_t items = static_cast<int64_t>(batch.size());
  std::vector<float> rows(items * shape_.dim), text(items * shape_.text_dim);
  for (int64_t i = 0; i < items; ++i) {
    data_.rows.copy(data_.items[batch[i]], 1, &rows[i * shape_.dim]);
    data_.text.copy(data_.items[batch[i]], 1, &text[i * shape_.text_dim]);
  }
  std::vector<int32_t> codes(items * shape_.levels);
  residual_encode(pool_, RowMatrix(rows.data(), items, shape_.dim),
                  {shape_.levels, shape_.codes, shape_.dim, centroids()}, {.codes = codes});
  std::vector<float> gradient(state_.parameters.size());
  const Loss value =
      loss(pool_, shape_, options_.loss, {.rows = rows, .codes = codes, .text = text}, state_.parameters, gradient);
  if (!std::isfinite(value.total) || !std::isfinite(ops::sum_squares(pool_, gradient)))
    throw JobFailure(FailureCause::nan_loss,
                     "align_codes: the loss of step " + std::to_string(state_.step) +
                         " or its gradient is not finite; lower learningRate or raise temperature",
                     state_.step);
  const DecayedPart parts[] = {{0, shape_.centroid_elements(), 0.0f},
                               {shape_.centroid_elements(), shape_.map_elements(), kMapDecay}};
  update(pool_, state_,
         {.gradient = gradient,
          .learning_rate = schedule_.at(state_.step),
          .loss = options_.loss.weight > 0 ? value.whole : value.prefixes,
          .parts = parts});
  return value;
}

}  // namespace collimate::alignment
