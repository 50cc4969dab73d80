// The backend interface on a CUDA device: the argument structs of core/ops.h and core/rank/decode_ops.h, with pointers
// into device memory.
//
// 1. Every byte of a result is a function of the arguments: no atomics in sums, no split of a sum by the card's size.
// 2. Of attention's `offsets`, which lie on the host, only the number of rows is read.
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

void rope(Device& device, const ops::Rope& args);
void attention_forward(Device& device, const ops::AttentionForward& args);
void attention_backward(Device& device, const ops::AttentionBackward& args);

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
void copy_rows(Device& device, const ops::RowCopy& args);
void add_rows(Device& device, const ops::RowSum& args);
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
void decode_attention(Device& device, const ops::GroupAttention& args);
void choose_columns(Device& device, const ops::ColumnChoice& args);

}  // namespace collimate::cuda
