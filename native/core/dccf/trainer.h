// Adam on DCCF's loss, one batch a step, with everything a checkpoint needs.
//
// The state after step n is (parameters, both moments, n): batches and negatives are functions of n.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "core/dccf/batches.h"
#include "core/dccf/model.h"

namespace collimate::dccf {

struct TrainerOptions {
  ModelOptions model;
  int64_t epochs = 0;
  int64_t batch_size = 0;
  float learning_rate = 0;
};

struct TrainerState {
  int64_t step = 0;
  std::vector<float> parameters, first_moment, second_moment;  // layout of Model
};

class Trainer {
 public:
  // `passes`: where the model is computed; the update is the pool's.
  Trainer(Pool& pool, const Graph& graph, const TrainerOptions& options, std::unique_ptr<Passes> passes);
  Trainer(Pool& pool, const Graph& graph, const TrainerOptions& options)
      : Trainer(pool, graph, options, passes_on_processor(pool, graph)) {}

  int64_t steps_total() const { return options_.epochs * batches_.steps_per_epoch(); }
  int64_t step() const { return state_.step; }
  bool done() const { return step() >= steps_total(); }
  // JobFailure(nan_loss) when the loss is not finite; the state is then that before the step.
  LossValue run_step();
  // [V, d]: users, then items.
  std::span<const float> embeddings() { return model_.forward(state_.parameters); }

  const TrainerState& state() const { return state_; }
  void set_state(TrainerState state);

 private:
  Pool& pool_;
  TrainerOptions options_;
  Batches batches_;
  std::unique_ptr<Passes> passes_;
  Model model_;
  TrainerState state_;
  std::vector<float> gradient_;
};

}  // namespace collimate::dccf
