// core/math.h for kernels: the same operations in the same order, so that a device and a processor round alike.
#pragma once

#include <cuda_runtime.h>

#include "core/math.h"
#include "core/philox.h"

namespace collimate::cuda {

// 2^x by the card's own unit, to 2 units in the last place; 0 far below.
__device__ __forceinline__ float exp2_approximate(float x) {
#ifdef __CUDACC__
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#else
  return std::exp2(x);
#endif
}

}  // namespace collimate::cuda
