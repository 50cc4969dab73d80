// What one forward (and backward) keeps. Internal to decoder_*.cc.
//
// Shapes: T packed rows, C width, Q = heads * head width, K = key/value heads * head width, F feed-forward width, R
// rank. The residual stream is not one buffer but one per norm (its input, kept for the backward); a branch's output is
// added inside the next norm.
#pragma once

#include <array>
#include <vector>

#include "core/model/decoder.h"

namespace collimate {

// What the backward of a norm of heads needs.
struct Decoder::HeadNorm {
  float *raw = nullptr, *inverse_rms = nullptr;  // [T, Q] or [T, K]; [T, heads]
};

// q, k and v in rows of all three.
struct Decoder::HeadColumns {
  HeadColumns(const DecoderConfig& config, const ops::Activations& qkv);
  float *q = nullptr, *k = nullptr, *v = nullptr;
  ops::RowsOfBf16 q_bf16{}, k_bf16{}, v_bf16{};
};

// With recompute all but attention_in, mlp_in and xa are shared by all layers.
struct Decoder::Layer {
  float *attention_in, *attention_rms;  // [T, C], [T]
  ops::Activations attention_normed;    // [T, C]
  ops::Activations qkv;                 // [T, Q + 2K]
  float* log_sum_exp;                   // [T, H]
  ops::Activations attended;            // [T, Q]
  HeadNorm q_norm, k_norm;              // only with norms of heads
  float *mlp_in, *mlp_rms;              // [T, C], [T]
  ops::Activations mlp_normed;          // [T, C]
  ops::Activations gate_up;             // [T, 2F]
  ops::Activations act;                 // [T, F]
  std::array<float*, 7> xa;             // [T, R] for q, k, v, o, gate, up, down
};

struct Decoder::Pass {
  const PackedBatch& batch;
  const GradientArgs* args = nullptr;  // null: no backward follows
  // The batch's arrays where ops read them; [T], but of labels [N].
  const int32_t *tokens = nullptr, *positions = nullptr, *label_rows = nullptr, *targets = nullptr;
  const int32_t *first_row = nullptr, *end_row = nullptr;  // of the row's sequence; only on a device
  int32_t* uploaded = nullptr;                             // room for all of these on a device
  std::vector<Layer> layers{};
  float* embedded = nullptr;  // [T, C], the first layer's input
  float *final_in = nullptr, *final_normed = nullptr, *final_rms = nullptr;
  float *hidden = nullptr, *dhidden = nullptr;  // [N, C], at the labelled rows
  float* inverse_length = nullptr;              // [N], of the hidden rows, where they are scaled
  float* logits = nullptr;                      // [as many rows as the pass makes at once, V]
  ops::RowsOfBf16 dlogits{};                    // the same rows, their gradient; in fp32 it takes the place of logits
  double* losses = nullptr;                     // [N]
  float* row_scales = nullptr;                  // [N], with groups
  const float* stream = nullptr;                // residual stream so far, without `branch`
  float* branch = nullptr;                      // [T, C], output of the newest branch, still to be added
  bool branch_pending = false;
  float* dstream = nullptr;        // [T, C], gradient of the residual stream
  ops::RowsOfBf16 dstream_bf16{};  // [T, C]: the same, as products read it
  float* dnormed = nullptr;        // [T, C], gradient of a norm's output
  float* dbranch = nullptr;        // [T, C], gradient of a branch's output behind its dropout
  ops::Activations dact;           // [T, F]
  ops::Activations dattended;      // [T, Q]; in fp32 the same memory as dact
  ops::Activations dqkv;           // [T, Q + 2K]
  ops::RowsOfBf16 dgate_up{};      // [T, 2F]; in fp32 it takes the place of gate_up
  float* dxa = nullptr;            // [3, T, R]: for each part of a site
};

// One matrix in use, with the adapters of its parts (q, k and v are parts of one matrix, so are gate and up).
struct Decoder::Site {
  struct Part {
    LinearNumbers numbers;
    int64_t column = 0, width = 0;  // of the output
    float* xa = nullptr;
  };
  int64_t in = 0, out = 0;
  ops::Activations x;
  std::vector<Part> parts;
  ops::Activations y;   // forward: the output
  ops::Activations dy;  // backward: its gradient; in bf16 it may be there in fp32 too
  ops::Activations dx;  // backward: overwritten
};

// A chunk of labelled rows at the head.
struct Decoder::HeadRows {
  int64_t rows = 0;
  const float* hidden = nullptr;  // [rows, C]
  float* logits = nullptr;        // [rows, V], or their gradient
  ops::RowsOfBf16 dlogits{};      // [rows, V], where the gradient is not in logits
  float* dhidden = nullptr;       // [rows, C]
};

struct Decoder::LabelRange {
  int64_t begin = 0, end = 0;
};

}  // namespace collimate
