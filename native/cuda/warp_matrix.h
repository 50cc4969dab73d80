// The warp-wide matrix instructions and bf16 conversions, each as one function: PTX on the card, the same data movement
// in plain code where the kernels are emulated.
//
// The emulated product adds its 16 terms in order in fp32; the card's order inside one instruction is its own. So what
// comes out of tensor cores is held to tolerances, never to bits, between the two.
#pragma once

#include "cuda/launch.h"

namespace collimate::cuda {

// Bits of the nearest bf16, ties to even; a NaN stays one.
__device__ __forceinline__ unsigned bf16_bits(float x) {
  const unsigned bits = __float_as_uint(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (bits >> 16) | 0x40u;
  return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}
__device__ __forceinline__ float from_bf16_bits(unsigned bits) { return __uint_as_float(bits << 16); }
// Two of them in a register, `low` in the lower half.
__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
#ifdef __CUDACC__
  unsigned packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
#else
  return bf16_bits(low) | bf16_bits(high) << 16;
#endif
}

// Four 8 x 8 matrices of 16-bit values from shared memory. Lane l names row l % 8 of matrix l / 8; it gets elements
// (l / 4, 2 (l % 4)) and the next one of each matrix, or, transposed, (2 (l % 4), l / 4) and the one below.
struct MatrixFragments {
  unsigned part[4];
};
template <bool kTransposed>
__device__ __forceinline__ MatrixFragments load_matrices(const uint16_t* row) {
  MatrixFragments f;
#ifdef __CUDACC__
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  if constexpr (kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(f.part[0]), "=r"(f.part[1]), "=r"(f.part[2]), "=r"(f.part[3])
                 : "r"(address));
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(f.part[0]), "=r"(f.part[1]), "=r"(f.part[2]), "=r"(f.part[3])
                 : "r"(address));
#else
  const int lane = lane_of_thread();
  for (int m = 0; m < 4; ++m) {
    const auto value = [&](int at_row, int column) {
      const uint16_t* at = nullptr;
      std::memcpy(&at, simt::lane_slot(8 * m + at_row), sizeof at);
      return static_cast<unsigned>(at[column]);
    };
    std::memcpy(simt::lane_slot(lane), &row, sizeof row);
    simt::warp_barrier();
    const int major = lane / 4, minor = 2 * (lane % 4);
    f.part[m] = kTransposed ? value(minor, major) | value(minor + 1, major) << 16
                            : value(major, minor) | value(major, minor + 1) << 16;
    simt::warp_barrier();
  }
#endif
  return f;
}

// sum[16, 8] += a[16, 16] b[16, 8] in bf16 with fp32 sums. With g = lane / 4 and t = 2 (lane % 4) a lane holds
// a: (g, t), (g + 8, t), (g, t + 8), (g + 8, t + 8), each with its right neighbour; b: rows t and t + 8, each with the
// row below, of column g; sum: (g, t), (g, t + 1), (g + 8, t), (g + 8, t + 1).
__device__ __forceinline__ void multiply_add(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
#ifdef __CUDACC__
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  struct Held {
    unsigned a[4], b[2];
  };
  const int lane = lane_of_thread();
  const Held own{{a[0], a[1], a[2], a[3]}, {b0, b1}};
  std::memcpy(simt::lane_slot(lane), &own, sizeof own);
  simt::warp_barrier();
  const auto held = [](int of) {
    Held value;
    std::memcpy(&value, simt::lane_slot(of), sizeof value);
    return value;
  };
  const auto half = [](unsigned pair, int index) { return from_bf16_bits(index ? pair >> 16 : pair & 0xffffu); };
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
    for (int k = 0; k < 16; ++k) {
      const unsigned left = held(4 * (row % 8) + k % 8 / 2).a[row / 8 + 2 * (k / 8)];
      const unsigned right = held(4 * column + k % 8 / 2).b[k / 8];
      sum[i] += half(left, k % 2) * half(right, k % 2);
    }
  }
  simt::warp_barrier();
#endif
}

}  // namespace collimate::cuda
