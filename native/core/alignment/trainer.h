// Trains codebooks and the map W towards the item texts (core/alignment/loss.h). One step = one batch of items.
//
// 1. Batches are cut from a permutation of the items that have a text, keyed by (seed, epoch); a row's codes are the
//    nearest ones of the codebooks as they are at that step.
// 2. AdamW with the learning rate falling to 0 along a cosine; weight decay touches W only, a code that is not used
//    must not drift to the origin.
// 3. The state after a step is parameters, moments and the loss curve: nothing else.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/alignment/loss.h"
#include "core/curve_state.h"
#include "core/model/optimizer.h"
#include "core/model/training_examples.h"
#include "core/row_source.h"

namespace collimate::alignment {

struct TrainerOptions {
  Options loss;
  int64_t steps = 0, batch_items = 0;
  double learning_rate = 0;
  uint64_t seed = 0;
};

// What is trained on; stays the caller's.
struct Data {
  const RowSource& rows;           // [items, D]
  const RowSource& text;           // [items, T], unit rows
  std::span<const int64_t> items;  // those with a text, at least two
};

class Trainer {
 public:
  // Parameters: centroids [levels, codes, D], then W [T, D]. Curve: C(L) of every step, or the prefixes' mean where
  // only they are weighed.
  using State = CurveState;
  Trainer(Pool& pool, const Shape& shape, const Data& data, const TrainerOptions& options);

  void start(std::span<const float> centroids, std::span<const float> map);
  void set_state(State state) { state_ = std::move(state); }
  const State& state() const { return state_; }
  bool done() const { return state_.step == options_.steps; }
  double learning_rate() const { return schedule_.at(state_.step); }
  // JobFailure(nan_loss) where the loss is not finite.
  Loss run_step();
  std::span<const float> centroids() const {
    return std::span<const float>(state_.parameters).first(shape_.centroid_elements());
  }
  std::span<const float> map() const { return std::span<const float>(state_.parameters).last(shape_.map_elements()); }

 private:
  Pool& pool_;
  Shape shape_;
  Data data_;
  TrainerOptions options_;
  LearningRateSchedule schedule_;
  ExampleOrder order_;
  State state_;
};

}  // namespace collimate::alignment
