// Decoder inference for a group of users: prompts once, then a few tokens for every hypothesis of every user.
//
// 1. Keys and values of a prompt are kept once per layer and user; hypotheses add one row per step and find the rows of
//    their ancestors by index. Choosing other hypotheses copies no keys or values.
// 2. Prompts are prefilled alone on the processor, several together on a device, where each begins at a multiple of
//    kPromptAlignment rows; the last layer is run for their last positions only. Decoding products always have users x
//    rows rows, missing ones padded: no shape depends on what the users are, and a row's result never depends on
//    another row. So a user's hidden states are a function of its prompt, its hypotheses and its slot.
// 3. The weights' parameters hold merged matrices (load_model); adapters are not applied here.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "core/model/decoder_weights.h"
#include "core/ops_backend.h"
#include "core/rank/beam.h"

namespace collimate {

// What attention on a device cuts keys into: prompts that begin at such rows are summed alike wherever they lie.
inline constexpr int64_t kPromptAlignment = 32;

class GroupDecoder {
 public:
  struct Options {
    const DecoderWeights* weights = nullptr;
    // Of at least prompt_max + steps_max positions, where the weights' backend reads them.
    const float *rope_cos = nullptr, *rope_sin = nullptr;
    int64_t users = 0;         // slots of the group
    int64_t rows_max = 0;      // hypotheses per user and step
    int64_t steps_max = 0;     // tokens after the prompt that are fed back
    int64_t prompt_max = 0;    // tokens
    int64_t prefill_rows = 0;  // of prompts that are prefilled together; at least prompt_max
  };
  explicit GroupDecoder(const Options& options);

  // Forgets all users; every slot is empty.
  void reset();
  struct Prompt {
    int64_t slot = 0;
    std::span<const int32_t> tokens;  // 1..prompt_max
  };
  // Runs prompts up to the last layer's keys and values. Alone, or aligned together no more than prefill_rows.
  void prefill(std::span<const Prompt> prompts);
  // Hidden state after the final norm at each prompt's last position: [users, C]; of no meaning for an empty slot. In
  // the backend's memory, until the next call.
  const float* finish_prompts();

  // One token for each hypothesis: live[slot] (at most `rows` each; none for an empty slot) with `parent` the index
  // among the hypotheses of the step before. Hidden states [users * rows, C]; row slot * rows + i belongs to
  // live[slot][i].
  const float* step(int64_t rows, std::span<const std::span<const Hypothesis>> live);

 private:
  struct LayerRows {
    int64_t layer = 0;
    int64_t rows = 0;
  };
  // Host integers and where ops read them.
  class Indices {
   public:
    void bind(OpsBackend& backend, int64_t most);
    std::vector<int32_t> host;
    const int32_t* place();  // those of `host`
    const int32_t* placed() const { return backend_->is_host() ? host.data() : there_.data(); }

   private:
    OpsBackend* backend_ = nullptr;
    BackendArray<int32_t> there_;
  };
  using Activations = ops::Activations;
  // In bf16 where weights read them so.
  class ActivationArray {
   public:
    ActivationArray() = default;
    ActivationArray(const DecoderWeights& weights, int64_t rows, int64_t width);
    operator Activations() const { return {fp32_.data(), {bf16_.data(), stride_}}; }

   private:
    BackendArray<float> fp32_;
    BackendArray<uint16_t> bf16_;
    int64_t stride_ = 0;
  };
  const float* weight(int number) const { return weights_.data(number); }
  const LayerNumbers& numbers(int64_t layer) const { return parameters_.layers()[static_cast<size_t>(layer)]; }
  void embed(int64_t rows, const int32_t* tokens);
  void norm(int64_t rows, int weight_number, bool add_delta, const Activations& to);
  struct Projection {
    LinearNumbers linear;  // the first of those that are projected as one matrix
    int64_t in = 0, out = 0;
    Activations x{}, y{};
  };
  void project(int64_t rows, const Projection& projection);
  void project_qkv(const LayerRows& at);
  struct Heads {
    float* x = nullptr;
    int64_t count = 0, stride = 0;
  };
  void norm_heads(int64_t rows, int weight_number, const Heads& heads);
  void rotate(float* x, int64_t rows, int64_t heads, int64_t stride);
  struct KeysAndValues {
    const float *k = nullptr, *v = nullptr;
    int64_t stride = 0;
  };
  void keep_prompt_kv(int64_t layer, int64_t rows, const KeysAndValues& from);
  int64_t lay_out_prompts(std::span<const Prompt> prompts);
  void finish_layer(const LayerRows& at, const Activations& attention);
  const float* final_hidden(int64_t rows);
  void trace_ancestors(int64_t rows, std::span<const std::span<const Hypothesis>> live);
  void keep_step_kv(const LayerRows& at);
  void attend(int64_t layer, int64_t rows, const float* q, int64_t q_stride);

  float* prompt_kv(int64_t layer, bool value);
  float* step_kv(int64_t layer, int64_t step, bool value);

  Options options_;
  const DecoderWeights& weights_;
  const Parameters& parameters_;
  const DecoderConfig& config_;
  OpsBackend& backend_;
  float scale_;
  int64_t steps_ = 0;                    // taken since reset()
  std::vector<int64_t> prompt_lengths_;  // [users]; 0: empty
  BackendArray<float> prompt_kv_;        // [layers, users, 2, prompt_max, kv_dim]
  BackendArray<float> step_kv_;          // [layers, steps_max, 2, users * rows_max, kv_dim]
  std::vector<int32_t> ancestors_before_;
  BackendArray<float> last_x_;  // [users, C]: input of the last layer
  // Of the prompts being prefilled: offsets of sequences and gaps, bounds, and where keys and values go.
  std::vector<int64_t> offsets_;
  Indices first_row_, end_row_, kept_at_;
  // Of the step: tokens and positions; rows live and prompt rows of each user, rows a user of each step; ancestors
  // [users, rows_max, steps_max], rows packed by steps_.
  Indices tokens_, positions_, live_, prompt_rows_, step_rows_, ancestors_;
  const int32_t *positions_there_ = nullptr, *live_there_ = nullptr, *prompt_rows_there_ = nullptr,
                *step_rows_there_ = nullptr, *ancestors_there_ = nullptr;
  // Scratch, for max(prefill_rows, users * rows_max) rows.
  BackendArray<float> x_, delta_, final_, qkv_, attention_, scores_;
  ActivationArray h_, gate_up_, act_, prompt_attention_;
  // Of the ops of a step, by its number and the rows of a user.
  std::map<std::pair<int64_t, int64_t>, std::unique_ptr<OpsBackend::Recording>> step_recordings_;
};

}  // namespace collimate
