// Trains the autoencoder and its codebooks together. One step = one batch of items.
//
// 1. Batches are cut from a permutation of the trained items, keyed by (seed, epoch).
// 2. The first `warmup_steps` steps leave the quantizer out; then the codebooks begin as residual k-means of the
//    latents of at most kStartItemsMax trained items, evenly spaced, and take part from that step on.
// 3. AdamW with the learning rate falling to 0 along a cosine; weight decay touches the network only, a code that is
//    not used must not drift to the origin.
// 4. The state after a step is parameters, moments and the loss curve: nothing else.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/curve_state.h"
#include "core/model/optimizer.h"
#include "core/model/training_examples.h"
#include "core/row_source.h"
#include "core/rqvae/loss.h"

namespace collimate::rqvae {

constexpr int64_t kStartItemsMax = 1 << 16;

struct TrainerOptions {
  Options loss;
  int64_t steps = 0, warmup_steps = 0, batch_items = 0;
  double learning_rate = 0;
  uint64_t seed = 0;
};

class Trainer {
 public:
  using State = CurveState;  // parameters as loss.h lays them out; the curve is the total loss
  // `rows` are those trained on, and stay the caller's. Starts with drawn weights.
  Trainer(Pool& pool, const Shape& shape, const RowSource& rows, const TrainerOptions& options);

  void set_state(State state) { state_ = std::move(state); }
  const State& state() const { return state_; }
  bool done() const { return state_.step == options_.steps; }
  double learning_rate() const { return schedule_.at(state_.step); }
  // JobFailure(nan_loss) where the loss is not finite.
  Loss run_step();

 private:
  void start_codebooks();

  Pool& pool_;
  Shape shape_;
  const RowSource& rows_;
  TrainerOptions options_;
  LearningRateSchedule schedule_;
  ExampleOrder order_;
  State state_;
};

}  // namespace collimate::rqvae
