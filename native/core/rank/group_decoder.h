// Decoder inference for a group of users: prompts once, then a few tokens for every hypothesis of every user.
//
// 1. Keys and values of a prompt are kept once per layer and user; hypotheses add one row per step and find the rows of
// their
//    ancestors by index. Choosing other hypotheses copies no keys or values.
// 2. A prompt is prefilled alone; its last layer is run for its last position only. Decoding products always have
//    users x rows rows, missing ones padded: no shape depends on what the users are, and a row's result never
//    depends on another row. So a user's hidden states are a function of its prompt, its hypotheses and its slot.
// 3. `parameters` hold merged matrices (load_model); adapters are not applied here.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/large_buffer.h"
#include "core/model/parameters.h"
#include "core/ops.h"
#include "core/pool.h"
#include "core/rank/beam.h"

namespace collimate {

class GroupDecoder {
 public:
  struct Options {
    const Parameters* parameters = nullptr;
    const ops::RopeTable* rope = nullptr;  // of at least prompt_max + steps_max positions
    Pool* pool = nullptr;
    int64_t users = 0;       // slots of the group
    int64_t rows_max = 0;    // hypotheses per user and step
    int64_t steps_max = 0;   // tokens after the prompt that are fed back
    int64_t prompt_max = 0;  // tokens
  };
  explicit GroupDecoder(const Options& options);

  // Forgets all users; every slot is empty.
  void reset();
  // Runs a prompt of 1..prompt_max tokens up to the last layer's keys and values.
  void prefill(int64_t slot, std::span<const int32_t> prompt);
  // Hidden state after the final norm at each prompt's last position: [users, C]; of no meaning for an empty slot.
  std::span<const float> finish_prompts();

  // One token for each hypothesis: live[slot] (at most `rows` each; none for an empty slot) with `parent` the index
  // among the hypotheses of the step before. Hidden states [users * rows, C]; row slot * rows + i belongs to
  // live[slot][i].
  std::span<const float> step(int64_t rows, std::span<const std::span<const Hypothesis>> live);

 private:
  struct LayerRows {
    int64_t layer = 0;
    int64_t rows = 0;
  };
  const float* weight(int number) const { return options_.parameters->data(number); }
  const LayerNumbers& numbers(int64_t layer) const { return options_.parameters->layers()[static_cast<size_t>(layer)]; }
  void embed(std::span<const int32_t> tokens);
  void norm(int64_t rows, int weight_number, bool add_delta);
  // `linear` is the first of those that are projected as one matrix, `out_dim` wide together.
  void project(int64_t rows, const LinearNumbers& linear, int64_t out_dim, float* y);
  void project_qkv(const LayerRows& at);
  struct Heads {
    float* x = nullptr;
    int64_t count = 0, stride = 0;
  };
  void norm_heads(int64_t rows, int weight_number, const Heads& heads);
  void rotate(float* x, int64_t rows, int64_t heads, int64_t stride);
  void keep_prompt_kv(int64_t layer, int64_t slot, const float* k, const float* v, int64_t stride);
  void finish_layer(const LayerRows& at);
  std::span<const float> final_hidden(int64_t rows);
  void trace_ancestors(int64_t rows, std::span<const std::span<const Hypothesis>> live);
  void keep_step_kv(const LayerRows& at);
  void attend(int64_t layer, int64_t slot, int64_t rows, int64_t rows_live, const float* q, int64_t q_stride);

  float* prompt_kv(int64_t layer, int64_t slot, bool value);
  float* step_kv(int64_t layer, int64_t step, bool value);

  Options options_;
  const DecoderConfig& config_;
  float scale_;
  int64_t steps_ = 0;                    // taken since reset()
  std::vector<int64_t> step_rows_;       // [steps_]: rows per user of each
  std::vector<int64_t> prompt_lengths_;  // [users]; 0: empty
  LargeBuffer<float> prompt_kv_;         // [layers, users, 2, prompt_max, kv_dim]
  LargeBuffer<float> step_kv_;           // [layers, steps_max, 2, users * rows_max, kv_dim]
  std::vector<int32_t> ancestors_;       // [users, rows_max, steps_max], rows packed by steps_
  std::vector<int32_t> ancestors_before_;
  std::vector<float> last_x_, last_h_;  // [users, C]: input and normed input of the last layer
  // Scratch, for max(prompt_max, users * rows_max) rows.
  std::vector<int32_t> tokens_, positions_;
  LargeBuffer<float> x_, delta_, h_, qkv_, attention_, gate_up_, act_, scores_;
};

}  // namespace collimate
