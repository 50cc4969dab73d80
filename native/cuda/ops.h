// The backend interface on a CUDA device: the argument structs of core/ops.h and core/rank/decode_ops.h, with pointers
// into device memory.
//
// 1. Every byte of a result is a function of the arguments: no atomics in sums, no split of a sum by the card's size.
// 2. Host values among the arguments (offsets, the rope table) are copied to the device where an op says so.
// 3. Token ids and indices are taken as checked: a device cannot fail with a message, so whoever uploads them checks.
#pragma once

#include <cstdint>

#include "core/ops.h"
#include "core/rank/decode_ops.h"
#include "cuda/device.h"

namespace collimate::cuda {

void embedding_forward(Device& device, const ops::EmbeddingForward& args);
void embedding_backward(Device& device, const ops::EmbeddingBackward& args);
void rmsnorm_forward(Device& device, const ops::RmsNormForward& args);
void rmsnorm_backward(Device& device, const ops::RmsNormBackward& args);
void head_norm_forward(Device& device, const ops::HeadNormForward& args);
void head_norm_backward(Device& device, const ops::HeadNormBackward& args);
void unit_rows_forward(Device& device, const ops::UnitRowsForward& args);
void unit_rows_backward(Device& device, const ops::UnitRowsBackward& args);

// ops::Rope, with the table [positions, D/2] on the device.
struct Rope {
  int64_t rows = 0, heads = 0, head_dim = 0;
  const int32_t* positions = nullptr;
  const float* cos = nullptr;
  const float* sin = nullptr;
  float* x = nullptr;
  int64_t x_stride = 0;
  bool inverse = false;
};
void rope(Device& device, const Rope& args);

// Packed sequences as attention sees them: made once for a batch, used by every layer.
struct PackedRows {
  int64_t rows = 0, longest = 0;
  const int32_t* first_row = nullptr;  // [T]: where the row's sequence begins
  const int32_t* end_row = nullptr;    // [T]: where it ends
};
struct AttentionForward {
  ops::AttentionForward args;  // `offsets` is not read
  PackedRows packed;
};
void attention_forward(Device& device, const AttentionForward& args);
struct AttentionBackward {
  AttentionForward forward;
  const float* dout = nullptr;
  float* dq = nullptr;
  float* dk = nullptr;
  float* dv = nullptr;
};
void attention_backward(Device& device, const AttentionBackward& args);

void swiglu_forward(Device& device, const ops::SwiGluForward& args);
void swiglu_backward(Device& device, const ops::SwiGluBackward& args);
void linear_forward(Device& device, const ops::LinearForward& args);
void linear_backward(Device& device, const ops::LinearBackward& args);
void add_bias(Device& device, const ops::Bias& args);
void bias_backward(Device& device, const ops::BiasBackward& args);
void lora_forward(Device& device, const ops::LoraForward& args);
void lora_backward(Device& device, const ops::LoraBackward& args);
void lora_gradient(Device& device, const ops::LoraGradient& args);
void cross_entropy(Device& device, const ops::CrossEntropy& args);
void gather_rows(Device& device, const ops::RowMove& args);
void scatter_rows(Device& device, const ops::RowMove& args);
void dropout(Device& device, const ops::Dropout& args);
// One double on the device.
void sum_squares(Device& device, const float* x, int64_t elements, double* sum);
void adamw(Device& device, const ops::AdamW& args);

// log(sum(exp(row))) of each row.
struct LogSumExp {
  int64_t rows = 0, width = 0;
  const float* x = nullptr;  // [rows, width]
  float* y = nullptr;        // [rows]
};
void log_sum_exp(Device& device, const LogSumExp& args);
// `step_k`, `step_v`: pointers into device memory, in device memory.
void decode_attention(Device& device, const ops::DecodeAttention& args);

}  // namespace collimate::cuda
