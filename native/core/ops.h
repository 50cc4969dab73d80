// The ops that models are made of: the backend interface. Implemented once per backend, one op per file (cpu/).
//
// Shapes: T packed tokens, C model width, H query heads, K key/value heads, D head width, F feed-forward width,
// V vocabulary, N labelled rows, R adapter rank. All matrices are row-major fp32; `*_stride` counts floats between
// rows.
// 1. Every output byte is a function of the arguments alone: work is cut by shape, reductions run over fixed blocks in
//    tree order, so 1, 2 or 3 threads give the same bytes.
// 2. "accumulates" means +=, everything else overwrites. Outputs never alias inputs unless said.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/philox.h"
#include "core/pool.h"

namespace collimate::ops {

// ---- embedding -------------------------------------------------------------------------------------------------
struct EmbeddingForward {
  int64_t rows = 0, dim = 0, vocabulary = 0;
  const float* table = nullptr;     // [V, C]
  const int32_t* tokens = nullptr;  // [T], each in [0, V)
  float* y = nullptr;               // [T, C]
};
void embedding_forward(Pool& pool, const EmbeddingForward& args);

struct EmbeddingBackward {
  int64_t rows = 0, dim = 0;
  int64_t first_row = 0, table_rows = 0;  // trained rows of the table; tokens outside are skipped
  const int32_t* tokens = nullptr;        // [T]
  const float* dy = nullptr;              // [T, C]
  float* dtable = nullptr;                // [table_rows, C], accumulates in token order
};
void embedding_backward(Pool& pool, const EmbeddingBackward& args);

// ---- RMSNorm, fused with the residual addition before it --------------------------------------------------------
// Rows of bf16 values, as a device's products read them (core/ops_bf16.h). Only on a device: the processor's ops do not
// look at arguments of this kind.
struct RowsOfBf16 {
  uint16_t* values = nullptr;
  int64_t stride = 0;
};
// Rows of activations: in fp32, or in bf16 where what reads them takes them so.
struct Activations {
  float* fp32 = nullptr;
  RowsOfBf16 bf16{};
};

struct RmsNormForward {
  int64_t rows = 0, dim = 0;
  float eps = 0.0f;
  const float* x = nullptr;       // [T, C]
  const float* delta = nullptr;   // [T, C] or null: normalises x + delta
  float* sum = nullptr;           // [T, C]: x + delta; required with delta, may alias x
  const float* weight = nullptr;  // [C]
  float* y = nullptr;             // [T, C]
  RowsOfBf16 y_bf16{};            // [T, C], in place of y where it is given
  float* inverse_rms = nullptr;   // [T] or null
};
void rmsnorm_forward(Pool& pool, const RmsNormForward& args);

struct RmsNormBackward {
  int64_t rows = 0, dim = 0;
  const float* x = nullptr;            // [T, C]: what was normalised (the sum)
  const float* weight = nullptr;       // [C]
  const float* inverse_rms = nullptr;  // [T]
  const float* dy = nullptr;           // [T, C]
  float* dx = nullptr;                 // [T, C], accumulates
  RowsOfBf16 dx_bf16{};                // [T, C]: what dx is then, where it is given
  float* dweight = nullptr;            // [C], accumulates; null when frozen
};
void rmsnorm_backward(Pool& pool, const RmsNormBackward& args);

// ---- RMSNorm of each head of q or k, in place ---------------------------------------------------------------------
struct HeadNormForward {
  int64_t rows = 0, heads = 0, head_dim = 0;
  float eps = 0.0f;
  const float* weight = nullptr;  // [D]
  float* x = nullptr;             // [T, heads * D]
  int64_t x_stride = 0;
  float* raw = nullptr;          // [T, heads * D]: what x was, for the backward, or null
  float* inverse_rms = nullptr;  // [T, heads], or null
};
void head_norm_forward(Pool& pool, const HeadNormForward& args);

struct HeadNormBackward {
  int64_t rows = 0, heads = 0, head_dim = 0;
  const float* weight = nullptr;       // [D]
  const float* raw = nullptr;          // [T, heads * D], contiguous
  const float* inverse_rms = nullptr;  // [T, heads]
  float* dx = nullptr;                 // [T, heads * D]: the output's gradient becomes the input's
  int64_t dx_stride = 0;
  float* dweight = nullptr;  // [D], accumulates; null when frozen
};
void head_norm_backward(Pool& pool, const HeadNormBackward& args);

// ---- rows scaled to one length, for cosines ------------------------------------------------------------------------
struct UnitRowsForward {
  int64_t rows = 0, dim = 0;
  float length = 1.0f;
  const float* x = nullptr;         // [T, C]
  float* y = nullptr;               // [T, C]: x length / |x|, a row without length stays zero; may alias x
  float* inverse_length = nullptr;  // [T]: 1 / |x|, 0 for such a row
};
void unit_rows_forward(Pool& pool, const UnitRowsForward& args);

struct UnitRowsBackward {
  int64_t rows = 0, dim = 0;
  float length = 1.0f;
  const float* y = nullptr;               // [T, C]: the output
  const float* inverse_length = nullptr;  // [T]
  const float* dy = nullptr;              // [T, C]
  float* dx = nullptr;                    // [T, C], may alias dy
};
void unit_rows_backward(Pool& pool, const UnitRowsBackward& args);

// ---- rotary positions (Hugging Face's half rotation: element i pairs with i + D/2) --------------------------------
struct RopeTable {
  int64_t positions = 0, half_dim = 0;
  std::vector<float> cos, sin;  // [positions, D/2]
};
// inverse_frequency: [D/2]
RopeTable make_rope_table(std::span<const double> inverse_frequency, int64_t positions);

struct Rope {
  int64_t rows = 0, heads = 0, head_dim = 0;
  const int32_t* positions = nullptr;          // [T]
  const float *cos = nullptr, *sin = nullptr;  // of a RopeTable
  float* x = nullptr;                          // [T, heads * D], rotated in place
  int64_t x_stride = 0;
  RowsOfBf16 x_bf16{};   // in place of x where it is given
  bool inverse = false;  // the backward
};
void rope(Pool& pool, const Rope& args);

// ---- causal attention, block-diagonal over packed sequences -------------------------------------------------------
struct AttentionForward {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  std::span<const int64_t> offsets;  // [n + 1], on the host: sequence s is rows offsets[s] .. offsets[s + 1]
  // Where the sequence of each row begins and ends, [T]: what a device reads in place of offsets.
  const int32_t *first_row = nullptr, *end_row = nullptr;
  float scale = 0.0f;
  int64_t window = 0;        // a row sees itself and so many less one before it; 0: all before it
  const float* q = nullptr;  // [T, H * D]
  const float* k = nullptr;  // [T, K * D]
  const float* v = nullptr;  // [T, K * D]
  int64_t q_stride = 0, k_stride = 0, v_stride = 0;
  // In place of q, k and v where they are given: all three, with bf16_products, where attention_reads_bf16(D).
  RowsOfBf16 q_bf16{}, k_bf16{}, v_bf16{};
  float* out = nullptr;          // [T, H * D], contiguous
  RowsOfBf16 out_bf16{};         // [T, H * D], in place of out where it is given; D is even
  float* log_sum_exp = nullptr;  // [T, H], for the backward, or null
  // A device may round to bf16 what it multiplies; sums and the softmax stay fp32. The processor never does.
  bool bf16_products = false;
};
void attention_forward(Pool& pool, const AttentionForward& args);
inline bool attention_reads_bf16(int64_t head_dim) { return head_dim % 8 == 0 && head_dim <= 128; }

struct AttentionBackward {
  AttentionForward forward;     // with out and log_sum_exp as the forward left them
  const float* dout = nullptr;  // [T, H * D], contiguous
  float* dq = nullptr;          // same shapes and strides as q, k, v
  float* dk = nullptr;
  float* dv = nullptr;
  // In place of dout, dq, dk and dv where they are given: all four, where the forward has q_bf16.
  RowsOfBf16 dout_bf16{}, dq_bf16{}, dk_bf16{}, dv_bf16{};
};
void attention_backward(Pool& pool, const AttentionBackward& args);

// ---- SwiGLU: act = silu(gate) * up -------------------------------------------------------------------------------
struct SwiGluForward {
  int64_t rows = 0, ffn_dim = 0;
  const float* gate_up = nullptr;  // [T, 2F]: gate, then up
  RowsOfBf16 gate_up_bf16{};       // in place of gate_up where it is given
  float* act = nullptr;            // [T, F]
  RowsOfBf16 act_bf16{};           // [T, F], in place of act where it is given
};
void swiglu_forward(Pool& pool, const SwiGluForward& args);

struct SwiGluBackward {
  int64_t rows = 0, ffn_dim = 0;
  const float* gate_up = nullptr;  // [T, 2F]
  RowsOfBf16 gate_up_bf16{};       // in place of gate_up where it is given
  const float* dact = nullptr;     // [T, F]
  RowsOfBf16 dact_bf16{};          // in place of dact where it is given
  float* dgate_up = nullptr;       // [T, 2F], may alias gate_up
  RowsOfBf16 dgate_up_bf16{};      // [T, 2F], in place of dgate_up where it is given
};
void swiglu_backward(Pool& pool, const SwiGluBackward& args);

// ---- linear layers: y = x Wᵀ, W [out, in] ------------------------------------------------------------------------
struct LinearForward {
  int64_t rows = 0, in = 0, out = 0;
  const float* x = nullptr;  // [T, in]
  int64_t x_stride = 0;
  const float* weight = nullptr;  // [out, in]
  float* y = nullptr;             // [T, out]
  int64_t y_stride = 0;
};
void linear_forward(Pool& pool, const LinearForward& args);

struct LinearBackward {
  int64_t rows = 0, in = 0, out = 0;
  const float* x = nullptr;  // [T, in]; only for dweight
  int64_t x_stride = 0;
  const float* weight = nullptr;  // [out, in]; only for dx
  const float* dy = nullptr;      // [T, out]
  int64_t dy_stride = 0;
  float* dx = nullptr;  // [T, in] or null
  int64_t dx_stride = 0;
  bool accumulate_dx = false;
  float* dweight = nullptr;  // [out, in], accumulates; null when frozen
};
void linear_backward(Pool& pool, const LinearBackward& args);

struct Bias {
  int64_t rows = 0, width = 0;
  const float* bias = nullptr;  // [width]
  float* y = nullptr;           // [T, width], accumulates
};
void add_bias(Pool& pool, const Bias& args);

struct BiasBackward {
  int64_t rows = 0, width = 0;
  const float* dy = nullptr;  // [T, width]
  float* dbias = nullptr;     // [width], accumulates; null when frozen
};
void bias_backward(Pool& pool, const BiasBackward& args);

// Low-rank part of a linear layer: y += scale (x Aᵀ) Bᵀ with A [R, in], B [out, R].
struct LoraForward {
  int64_t rows = 0, in = 0, out = 0, rank = 0;
  float scale = 0.0f;
  const float* x = nullptr;  // [T, in]
  int64_t x_stride = 0;
  const float* a = nullptr;
  const float* b = nullptr;
  float* xa = nullptr;  // [T, R], kept for the backward
  float* y = nullptr;   // [T, out], accumulates
  int64_t y_stride = 0;
};
void lora_forward(Pool& pool, const LoraForward& args);

struct LoraBackward {
  int64_t rows = 0, in = 0, out = 0, rank = 0;
  float scale = 0.0f;
  const float* x = nullptr;
  int64_t x_stride = 0;
  const float* a = nullptr;
  const float* b = nullptr;
  const float* xa = nullptr;  // [T, R] from the forward
  const float* dy = nullptr;  // [T, out]
  int64_t dy_stride = 0;
  float* dxa = nullptr;  // [T, R], scratch
  float* dx = nullptr;   // [T, in], accumulates; may be null
  int64_t dx_stride = 0;
  float* da = nullptr;  // [R, in], accumulates
  float* db = nullptr;  // [out, R], accumulates
};
void lora_backward(Pool& pool, const LoraBackward& args);

// The part of it that is the adapter's own: dB += scale dyᵀ (x Aᵀ), dA += d(x Aᵀ)ᵀ x.
struct LoraGradient {
  int64_t rows = 0, in = 0, out = 0, rank = 0;
  float scale = 0.0f;
  const float* x = nullptr;  // [T, in]
  int64_t x_stride = 0;
  const float* xa = nullptr;  // [T, R]
  const float* dy = nullptr;  // [T, out]
  int64_t dy_stride = 0;
  const float* dxa = nullptr;  // [T, R], scale included
  float* da = nullptr;         // [R, in], accumulates
  float* db = nullptr;         // [out, R], accumulates
};
void lora_gradient(Pool& pool, const LoraGradient& args);

// ---- cross-entropy -----------------------------------------------------------------------------------------------
struct CrossEntropy {
  int64_t rows = 0, vocabulary = 0;
  float* logits = nullptr;           // [N, V]; replaced by scale * dloss/dlogits
  RowsOfBf16 dlogits_bf16{};         // [N, V]: that goes here instead, where it is given
  const int32_t* targets = nullptr;  // [N]
  float scale = 1.0f;
  const float* row_scales = nullptr;  // [N], in place of `scale`; null: one for all
  double* losses = nullptr;           // [N]: -log softmax(logits)[target], not scaled
};
void cross_entropy(Pool& pool, const CrossEntropy& args);

// ---- rows, dropout, optimizer ------------------------------------------------------------------------------------
struct RowMove {
  int64_t rows = 0, dim = 0;
  const int32_t* index = nullptr;  // [rows], distinct
  const float* from = nullptr;
  float* to = nullptr;
};
void gather_rows(Pool& pool, const RowMove& args);   // to[i] = from[index[i]]
void scatter_rows(Pool& pool, const RowMove& args);  // to[index[i]] = from[i]

// Rows of one stride to rows of another.
struct RowCopy {
  int64_t rows = 0, dim = 0;
  const float* from = nullptr;
  int64_t from_stride = 0;
  const int32_t* to_row = nullptr;  // [rows]: which row of `to`, below 0 for none; null: in order
  float* to = nullptr;
  int64_t to_stride = 0;
};
void copy_rows(Pool& pool, const RowCopy& args);

// to += from, but for the rows that are left out.
struct RowSum {
  int64_t rows = 0, dim = 0;
  const int32_t* left_out = nullptr;  // [rows], 0 or 1; null: none is
  const float* from = nullptr;        // [rows, dim]
  float* to = nullptr;
};
void add_rows(Pool& pool, const RowSum& args);

// Zeroes each element with `probability` and scales the rest by 1 / (1 - probability). The mask is a function of the
// stream and the element's number, so the backward is the same call on the gradient.
struct Dropout {
  int64_t elements = 0;
  float probability = 0.0f;
  RandomStream stream;
  float* x = nullptr;  // in place
};
void dropout(Pool& pool, const Dropout& args);

// Sum of squares in fixed blocks, tree order, double.
double sum_squares(Pool& pool, std::span<const float> x);

struct AdamW {
  int64_t elements = 0;
  float* parameter = nullptr;
  float* first_moment = nullptr;
  float* second_moment = nullptr;
  const float* gradient = nullptr;
  float gradient_scale = 1.0f;  // clipping
  float learning_rate = 0.0f, beta1 = 0.0f, beta2 = 0.0f, epsilon = 0.0f;
  float weight_decay = 0.0f;                               // decoupled
  float bias_correction1 = 1.0f, bias_correction2 = 1.0f;  // 1 - beta^t
};
void adamw(Pool& pool, const AdamW& args);

}  // namespace collimate::ops
