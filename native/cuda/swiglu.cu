// SwiGLU: act = silu(gate) * up.
#include "cuda/launch.h"
#include "cuda/math.h"
#include "cuda/ops.h"
#include "cuda/warp_matrix.h"

namespace collimate::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kColumns = 4;  // of one thread

struct Columns {
  float at[kColumns];
};

// A thread's columns [first, first + count) of one row; `whole` where all threads have kColumns.
struct Place {
  int64_t row = 0, first = 0;
  int count = 0;
  bool whole = false;
};
__device__ __forceinline__ Place place_of_thread(int64_t rows, int64_t width) {
  const int64_t across = (width + kColumns - 1) / kColumns;
  const int64_t item = global_thread(), row = item / across, first = (item - row * across) * kColumns;
  if (row >= rows) return {};
  const int64_t left = width - first;
  return {row, first, left < kColumns ? static_cast<int>(left) : kColumns, width % kColumns == 0};
}

template <typename T>
__device__ __forceinline__ bool is_one_access(const Place& place, const T* memory) {
  return place.whole && reinterpret_cast<uintptr_t>(memory) % (kColumns * sizeof(T)) == 0;
}

__device__ __forceinline__ Columns load(const float* from, const Place& place) {
  if (is_one_access(place, from)) {
    const float4 all = *reinterpret_cast<const float4*>(from);
    return {{all.x, all.y, all.z, all.w}};
  }
  Columns result{};
  COLLIMATE_UNROLL
  for (int i = 0; i < kColumns; ++i)
    if (i < place.count) result.at[i] = from[i];
  return result;
}

__device__ __forceinline__ Columns load(const uint16_t* from, const Place& place) {
  if (is_one_access(place, from)) {
    const uint2 all = *reinterpret_cast<const uint2*>(from);
    return {{from_bf16_bits(all.x & 0xffffu), from_bf16_bits(all.x >> 16), from_bf16_bits(all.y & 0xffffu),
             from_bf16_bits(all.y >> 16)}};
  }
  Columns result{};
  COLLIMATE_UNROLL
  for (int i = 0; i < kColumns; ++i)
    if (i < place.count) result.at[i] = from_bf16_bits(from[i]);
  return result;
}

// Of rows [rows, width] in one of two forms, from `column` on.
__device__ __forceinline__ Columns load(const float* fp32, const ops::RowsOfBf16& bf16, int64_t width, int64_t column,
                                        const Place& place) {
  if (bf16.values) return load(bf16.values + place.row * bf16.stride + column + place.first, place);
  return load(fp32 + place.row * width + column + place.first, place);
}

__device__ __forceinline__ void store(const Columns& values, const Place& place, float* to) {
  if (is_one_access(place, to)) {
    *reinterpret_cast<float4*>(to) = {values.at[0], values.at[1], values.at[2], values.at[3]};
    return;
  }
  COLLIMATE_UNROLL
  for (int i = 0; i < kColumns; ++i)
    if (i < place.count) to[i] = values.at[i];
}

__device__ __forceinline__ void store(const Columns& values, const Place& place, uint16_t* to) {
  if (is_one_access(place, to)) {
    *reinterpret_cast<uint2*>(to) = {pack_bf16(values.at[0], values.at[1]), pack_bf16(values.at[2], values.at[3])};
    return;
  }
  COLLIMATE_UNROLL
  for (int i = 0; i < kColumns; ++i)
    if (i < place.count) to[i] = static_cast<uint16_t>(bf16_bits(values.at[i]));
}

__global__ void forward(ops::SwiGluForward args) {
  const Place place = place_of_thread(args.rows, args.ffn_dim);
  if (place.count == 0) return;
  const Columns gate = load(args.gate_up, args.gate_up_bf16, 2 * args.ffn_dim, 0, place);
  const Columns up = load(args.gate_up, args.gate_up_bf16, 2 * args.ffn_dim, args.ffn_dim, place);
  Columns act;
  COLLIMATE_UNROLL
  for (int i = 0; i < kColumns; ++i) act.at[i] = gate.at[i] * sigmoid_f32(gate.at[i]) * up.at[i];
  if (args.act_bf16.values)
    store(act, place, args.act_bf16.values + place.row * args.act_bf16.stride + place.first);
  else
    store(act, place, args.act + place.row * args.ffn_dim + place.first);
}

__global__ void backward(ops::SwiGluBackward args) {
  const Place place = place_of_thread(args.rows, args.ffn_dim);
  if (place.count == 0) return;
  const Columns gate = load(args.gate_up, args.gate_up_bf16, 2 * args.ffn_dim, 0, place);
  const Columns up = load(args.gate_up, args.gate_up_bf16, 2 * args.ffn_dim, args.ffn_dim, place);
  const Columns d = load(args.dact, args.dact_bf16, args.ffn_dim, 0, place);
  Columns dgate, dup;
  COLLIMATE_UNROLL
  for (int i = 0; i < kColumns; ++i) {
    const float s = sigmoid_f32(gate.at[i]);
    const float silu = gate.at[i] * s;
    dgate.at[i] = d.at[i] * up.at[i] * (s + silu * (1.0f - s));
    dup.at[i] = d.at[i] * silu;
  }
  if (args.dgate_up_bf16.values) {
    uint16_t* to = args.dgate_up_bf16.values + place.row * args.dgate_up_bf16.stride + place.first;
    store(dgate, place, to);
    store(dup, place, to + args.ffn_dim);
  } else {
    float* to = args.dgate_up + place.row * 2 * args.ffn_dim + place.first;
    store(dgate, place, to);
    store(dup, place, to + args.ffn_dim);
  }
}

Launch columns(int64_t rows, int64_t width) {
  return {blocks_for(rows * ((width + kColumns - 1) / kColumns), kThreads), kThreads};
}

}  // namespace

void swiglu_forward(Device& device, const ops::SwiGluForward& args) {
  launch(device, "swiglu_forward", columns(args.rows, args.ffn_dim), forward, args);
}

void swiglu_backward(Device& device, const ops::SwiGluBackward& args) {
  launch(device, "swiglu_backward", columns(args.rows, args.ffn_dim), backward, args);
}

}  // namespace collimate::cuda
