// How kernels are started, and what they have in common. Compiles under nvcc and, for tests without a card, under a C++
// compiler with cuda/emulation in place of CUDA's own headers.
//
// 1. Kernels are built without contraction, like everything else: a fused multiply-add is written as one.
// 2. A grid is cut by the shape alone, so results do not depend on the card's size.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/device.h"

namespace collimate::cuda {

// Before a loop over a thread's own values, which only an unrolled loop keeps in registers.
#ifdef __CUDACC__
#define COLLIMATE_UNROLL _Pragma("unroll")
#else
#define COLLIMATE_UNROLL
#endif

constexpr int kWarpSize = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// Throws the JobFailure that a runtime error means.
[[noreturn]] void fail_cuda(int code, const char* what);

struct Launch {
  dim3 grid, block;
  size_t shared_bytes = 0;
};

// `name` is what an error is reported under.
template <typename... Expected, typename... Given>
void launch(Device& device, const char* name, const Launch& shape, void (*kernel)(Expected...), Given&&... given) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return;
  device.make_current();
  constexpr size_t kSharedWithoutAsking = 48 << 10;
  if (shape.shared_bytes > kSharedWithoutAsking) {
    const cudaError_t asked =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared_bytes));
    if (asked != cudaSuccess) fail_cuda(static_cast<int>(asked), name);
  }
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = static_cast<cudaStream_t>(device.stream());
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, static_cast<Expected>(given)...);
  if (error != cudaSuccess) fail_cuda(static_cast<int>(error), name);
#ifndef NDEBUG
  device.synchronize();
#endif
}

inline unsigned blocks_for(int64_t size, int64_t per_block) {
  return static_cast<unsigned>((size + per_block - 1) / per_block);
}

// The block's dynamic shared memory, on a 128-byte line.
template <typename T>
__device__ __forceinline__ T* dynamic_shared() {
#ifdef __CUDACC__
  extern __shared__ __align__(128) unsigned char collimate_shared[];
  return reinterpret_cast<T*>(collimate_shared);
#else
  return static_cast<T*>(simt::dynamic_shared());
#endif
}

__device__ __forceinline__ int lane_of_thread() { return static_cast<int>(threadIdx.x) & (kWarpSize - 1); }
__device__ __forceinline__ int64_t global_thread() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// Sums of a warp's 32 values, every lane gets the same bits: pairs at distance 16, 8, 4, 2, 1. Addition of two is
// commutative, so both partners round alike.
template <typename T>
__device__ __forceinline__ T warp_sum(T value) {
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}

__device__ __forceinline__ float warp_largest(float value) {
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, value, distance);
    value = other > value ? other : value;
  }
  return value;
}

// Sum over a block of `Threads`, the same in every thread. `shared` holds one value a warp and is free again
// afterwards.
template <int Threads, typename T>
__device__ __forceinline__ T block_sum(T value, T* shared) {
  static_assert(Threads % kWarpSize == 0 && Threads / kWarpSize <= kWarpSize);
  value = warp_sum(value);
  if (lane_of_thread() == 0) shared[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  T total = shared[0];
  for (int warp = 1; warp < Threads / kWarpSize; ++warp) total += shared[warp];
  __syncthreads();
  return total;
}

template <int Threads>
__device__ __forceinline__ float block_largest(float value, float* shared) {
  value = warp_largest(value);
  if (lane_of_thread() == 0) shared[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  float largest = shared[0];
  for (int warp = 1; warp < Threads / kWarpSize; ++warp) largest = shared[warp] > largest ? shared[warp] : largest;
  __syncthreads();
  return largest;
}

}  // namespace collimate::cuda
