// Rotary positions: element i of a head turns with element i + D/2.
#include "cuda/launch.h"
#include "cuda/ops.h"
#include "cuda/warp_matrix.h"

namespace collimate::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ float value_of(float x) { return x; }
__device__ __forceinline__ float value_of(uint16_t bits) { return from_bf16_bits(bits); }
__device__ __forceinline__ void put(float* to, float x) { *to = x; }
__device__ __forceinline__ void put(uint16_t* to, float x) { *to = static_cast<uint16_t>(bf16_bits(x)); }

// A block turns a row.
template <typename T>
__global__ void rotate(ops::Rope args, T* x, int64_t stride) {
  const auto half = static_cast<unsigned>(args.head_dim / 2), pairs = static_cast<unsigned>(args.heads) * half;
  const int64_t row = blockIdx.x, angles = static_cast<int64_t>(args.positions[row]) * half;
  for (unsigned pair = threadIdx.x; pair < pairs; pair += kThreads) {
    const unsigned head = pair / half, d = pair - head * half;
    const float c = args.cos[angles + d], s = args.inverse ? -args.sin[angles + d] : args.sin[angles + d];
    T* low = x + row * stride + head * args.head_dim + d;
    const float a = value_of(low[0]), b = value_of(low[half]);
    put(low, a * c - b * s);
    put(low + half, b * c + a * s);
  }
}

}  // namespace

void rope(Device& device, const ops::Rope& args) {
  const Launch shape{static_cast<unsigned>(args.rows), kThreads};
  if (args.x_bf16.values)
    launch(device, "rope", shape, rotate<uint16_t>, args, args.x_bf16.values, args.x_bf16.stride);
  else
    launch(device, "rope", shape, rotate<float>, args, args.x, args.x_stride);
}

}  // namespace collimate::cuda
