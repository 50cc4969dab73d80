#include "core/rqvae/trainer.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/failure.h"
#include "core/ops.h"
#include "core/philox.h"

namespace collimate::rqvae {
namespace {

constexpr float kNetworkDecay = 0.01f;
constexpr int64_t kStartIterations = 10;

}  // namespace

Trainer::Trainer(Pool& pool, const Shape& shape, const RowSource& rows, const TrainerOptions& options)
    : pool_(pool),
      shape_(shape),
      rows_(rows),
      options_(options),
      schedule_{.maximum = options.learning_rate, .minimum = 0.0, .warmup_steps = 0, .steps = options.steps},
      order_(
          {.examples = rows.rows, .batch_sequences = std::min(options.batch_items, rows.rows), .seed = options.seed}) {
  state_ = CurveState::starting_with(std::vector<float>(shape.elements()));
  float* at = state_.parameters.data();
  uint64_t matrix = 0;
  const auto draw = [&](int64_t out, int64_t in) {
    const RandomStream stream{.seed = options.seed, .site = RandomSite::parameter_init, .stream = matrix++};
    const float spread = static_cast<float>(1.0 / std::sqrt(static_cast<double>(in)));
    for (int64_t i = 0; i < out * in; ++i) *at++ = spread * random_normal(stream, static_cast<uint64_t>(i));
  };
  draw(2 * shape.hidden, shape.dim);
  draw(shape.latent, shape.hidden);
  draw(2 * shape.hidden, shape.latent);
  draw(shape.dim, shape.hidden);
}

Loss Trainer::run_step() {
  if (state_.step == options_.warmup_steps) start_codebooks();
  const std::vector<int64_t> batch = order_.batch(state_.step);
  std::vector<float> rows(batch.size() * shape_.dim), gradient(state_.parameters.size());
  for (size_t i = 0; i < batch.size(); ++i) rows_.copy(batch[i], 1, &rows[i * shape_.dim]);
  Options options = options_.loss;
  options.quantized = state_.step >= options_.warmup_steps;
  const Loss value = loss(pool_, shape_, options, rows, state_.parameters, gradient);
  if (!std::isfinite(value.total) || !std::isfinite(ops::sum_squares(pool_, gradient)))
    throw JobFailure(
        FailureCause::nan_loss,
        "rqvae: the loss of step " + std::to_string(state_.step) + " or its gradient is not finite; lower learningRate",
        state_.step);
  // The codebooks have no part in the warm-up.
  const DecayedPart parts[] = {{0, shape_.network_elements(), kNetworkDecay},
                               {shape_.network_elements(), shape_.centroid_elements(), 0.0f}};
  update(pool_, state_,
         {.gradient = gradient,
          .learning_rate = schedule_.at(state_.step),
          .loss = value.total,
          .parts = std::span<const DecayedPart>(parts).first(options.quantized ? 2 : 1)});
  return value;
}

void Trainer::start_codebooks() {
  const int64_t items = std::min(rows_.rows, kStartItemsMax);
  std::vector<float> latents(items * shape_.latent), tile(kRowsPerItem * shape_.dim);
  for (int64_t first = 0; first < items; first += kRowsPerItem) {
    const int64_t count = std::min(kRowsPerItem, items - first);
    for (int64_t i = 0; i < count; ++i) rows_.copy((first + i) * rows_.rows / items, 1, &tile[i * shape_.dim]);
    const std::vector<float> made =
        encode(pool_, shape_, std::span<const float>(tile).first(count * shape_.dim), state_.parameters);
    std::copy(made.begin(), made.end(), latents.begin() + first * shape_.latent);
  }
  const ResidualQuantizer quantizer = residual_quantize(
      pool_, RowMatrix(latents.data(), items, shape_.latent),
      {.levels = shape_.levels, .codes = shape_.codes, .iterations = kStartIterations, .seed = options_.seed});
  std::copy(quantizer.centroids.begin(), quantizer.centroids.end(),
            state_.parameters.begin() + shape_.network_elements());
}

}  // namespace collimate::rqvae
