// Stands in for CUDA's header of this name, so that the kernels of cuda/ run on a processor: for tests without a card.
//
// 1. Only what the kernels use is here, with CUDA's meaning: blocks run one after the other, the threads of a block as
//    fibers that change over at barriers and warp exchanges (simt.h).
// 2. Device memory is the process's own. Memory from cudaMalloc is filled with rubbish, so that a kernel that reads
//    what it has not written shows.
// 3. Sums come out as on the card: the same order of the same IEEE operations. Speed means nothing here.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "cuda/emulation/simt.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __shared__ static thread_local  // a host thread runs one block at a time
#define __align__(n) __attribute__((aligned(n)))

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3() = default;
  dim3(unsigned x_, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }

// The built-in indices: each component is read when it is used.
template <collimate::simt::Index (*Get)(), unsigned collimate::simt::Index::* Part>
struct IndexPart {
  operator unsigned() const { return Get().*Part; }
};
template <collimate::simt::Index (*Get)()>
struct BuiltInIndex {
  IndexPart<Get, &collimate::simt::Index::x> x;
  IndexPart<Get, &collimate::simt::Index::y> y;
  IndexPart<Get, &collimate::simt::Index::z> z;
};
inline constexpr BuiltInIndex<collimate::simt::thread_index> threadIdx;
inline constexpr BuiltInIndex<collimate::simt::block_index> blockIdx;
inline constexpr BuiltInIndex<collimate::simt::block_size> blockDim;
inline constexpr BuiltInIndex<collimate::simt::grid_size> gridDim;

inline void __syncthreads() { collimate::simt::block_barrier(); }
inline void __syncwarp(unsigned = ~0u) { collimate::simt::warp_barrier(); }

template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
  return collimate::simt::exchange(value, [&](int) { return lane & 31; });
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return collimate::simt::exchange(value, [&](int own) { return own ^ mask; });
}
template <typename T>
T __shfl_down_sync(unsigned, T value, int by) {
  return collimate::simt::exchange(value, [&](int own) { return own + by > 31 ? own : own + by; });
}
template <typename T>
T __shfl_up_sync(unsigned, T value, int by) {
  return collimate::simt::exchange(value, [&](int own) { return own - by < 0 ? own : own - by; });
}
inline unsigned __ballot_sync(unsigned, int predicate) { return collimate::simt::ballot(predicate != 0); }
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }

// Lanes that hold the same value.
inline unsigned __match_any_sync(unsigned, int value) {
  unsigned same = 0;
  for (int lane = 0; lane < collimate::simt::lanes_of_warp(); ++lane)
    if (__shfl_sync(~0u, value, lane) == value) same |= 1u << lane;
  return same;
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
template <typename T>
T __ldg(const T* at) {
  return *at;
}
inline unsigned __float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
template <typename T>
T atomicAdd(T* at, T value) {
  const T before = *at;
  *at += value;
  return before;
}
inline int atomicMax(int* at, int value) {
  const int before = *at;
  if (value > before) *at = value;
  return before;
}
inline int atomicMin(int* at, int value) {
  const int before = *at;
  if (value < before) *at = value;
  return before;
}

// ---- the part of the runtime that cuda/device.cc calls -------------------------------------------------------------
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorECCUncorrectable = 214,
  cudaErrorNvlinkUncorrectable = 220,
  cudaErrorDevicesUnavailable = 46,
  cudaErrorNotReady = 600,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorIllegalAddress = 700,
  cudaErrorLaunchTimeout = 702,
  cudaErrorAssert = 710,
  cudaErrorHardwareStackError = 714,
  cudaErrorIllegalInstruction = 715,
  cudaErrorMisalignedAddress = 716,
  cudaErrorInvalidAddressSpace = 717,
  cudaErrorInvalidPc = 718,
  cudaErrorLaunchFailure = 719,
  cudaErrorExternalDevice = 911,
  cudaErrorUnknown = 999
};
using cudaStream_t = void*;
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
struct cudaDeviceProp {
  char name[256] = "emulated";
  int major = 9, minor = 0, multiProcessorCount = 2;
  size_t totalGlobalMem = size_t{1} << 30;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  void* attrs = nullptr;
  unsigned numAttrs = 0;
};
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int index);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int index);
cudaError_t cudaDeviceGetPCIBusId(char* id, int length, int index);
cudaError_t cudaStreamCreate(cudaStream_t* stream);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaMalloc(void** memory, size_t bytes);
cudaError_t cudaFree(void* memory);
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaGetLastError();
struct EmulatedGraph;
using cudaGraph_t = EmulatedGraph*;
using cudaGraphExec_t = EmulatedGraph*;
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph);
const char* cudaGetErrorName(cudaError_t error);
const char* cudaGetErrorString(cudaError_t error);
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int) {
  return cudaSuccess;
}
template <typename... Expected, typename... Given>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Expected...), Given&&... given) {
  const auto run = [shape = *config, kernel](const Expected&... values) {
    collimate::simt::run_grid({.grid = {shape.gridDim.x, shape.gridDim.y, shape.gridDim.z},
                               .block = {shape.blockDim.x, shape.blockDim.y, shape.blockDim.z},
                               .shared_bytes = shape.dynamicSmemBytes},
                              [&] { kernel(values...); });
  };
  if (collimate::simt::is_recording())
    collimate::simt::record([run, ... values = static_cast<Expected>(given)] { run(values...); });
  else
    run(static_cast<Expected>(given)...);
  return cudaSuccess;
}
