// What the attention kernels have in common: the ops' arguments as a kernel can read them, and which keys a row sees.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

#include "core/failure.h"
#include "cuda/launch.h"
#include "cuda/ops.h"

namespace collimate::cuda {

constexpr float kMaskedScore = -1e30f;

// The ops' arguments, with the number of rows beside them: a kernel cannot read the host's offsets.
struct AttentionForward {
  ops::AttentionForward args;
  int64_t rows = 0;
};
struct AttentionBackward {
  AttentionForward forward;
  const float* dout = nullptr;
  float* dq = nullptr;
  float* dk = nullptr;
  float* dv = nullptr;
  ops::RowsOfBf16 dout_bf16{}, dq_bf16{}, dk_bf16{}, dv_bf16{};
};

inline AttentionForward for_kernels(const ops::AttentionForward& args) { return {args, args.offsets.back()}; }
inline AttentionBackward for_kernels(const ops::AttentionBackward& args) {
  return {for_kernels(args.forward),
          args.dout,
          args.dq,
          args.dk,
          args.dv,
          args.dout_bf16,
          args.dq_bf16,
          args.dk_bf16,
          args.dv_bf16};
}

// Rows of the key side that query row `row` may see: [first, row].
__device__ __forceinline__ int64_t first_key(const AttentionForward& f, int64_t row) {
  const int64_t begin = f.args.first_row[row];
  const int64_t by_window = f.args.window > 0 ? row - f.args.window + 1 : begin;
  return by_window > begin ? by_window : begin;
}
__device__ __forceinline__ bool sees(const AttentionForward& f, int64_t row, int64_t key) {
  return key <= row && key >= first_key(f, row);
}

// The last row that sees a key, and one more.
__device__ __forceinline__ int64_t end_of_queries(const AttentionForward& f, int64_t key) {
  const int64_t end = f.args.end_row[key];
  const int64_t by_window = f.args.window > 0 ? key + f.args.window : end;
  return by_window < end ? by_window : end;
}

// Calls body with an integral constant: the columns of a head that a lane owns.
template <typename Body>
void with_lane_columns(int64_t head_dim, const Body& body) {
  if (head_dim <= 32) return body(std::integral_constant<int, 1>{});
  if (head_dim <= 64) return body(std::integral_constant<int, 2>{});
  if (head_dim <= 128) return body(std::integral_constant<int, 4>{});
  if (head_dim <= 256) return body(std::integral_constant<int, 8>{});
  fail_bad_input("attention on a device: expected heads of at most 256 columns, got " + std::to_string(head_dim));
}

// delta[row, head] = dout . out
void output_projections(Device& device, const AttentionBackward& args, float* delta);

// On the tensor cores, where is_for_tensor_cores(); products of bf16 values.
constexpr int64_t kTensorCoreHeadMax = 128;
inline bool is_for_tensor_cores(const ops::AttentionForward& args) {
  return args.bf16_products && args.head_dim <= kTensorCoreHeadMax;
}
void attention_forward_bf16(Device& device, const ops::AttentionForward& args);
void attention_backward_bf16(Device& device, const ops::AttentionBackward& args);

}  // namespace collimate::cuda
