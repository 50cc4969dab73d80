// Rounding to eight bits.
#include "cuda/fp8.h"
#include "cuda/launch.h"
#include "cuda/warp_matrix.h"

namespace collimate::cuda {
namespace {

constexpr int kThreads = 256;

// Sign, exponent, mantissa; e4m3 has no infinity, and rounding never reaches that of e5m2.
template <int kMantissaBits>
struct Format {
  static constexpr int kBias = kMantissaBits == 3 ? 7 : 15;
  static constexpr unsigned kLargest = kMantissaBits == 3 ? 0x7e : 0x7b, kNan = 0x7f;
  // The largest magnitude is scaled to [2^k, 2^(k + 1)).
  static constexpr int kLargestExponent = kMantissaBits == 3 ? 7 : 14;
};

__device__ __forceinline__ float power_of_two(int exponent) {
  return __uint_as_float(static_cast<unsigned>(exponent + 127) << 23);
}

// Nearest, ties to even; beyond the largest value the largest.
template <int kMantissaBits>
__device__ __forceinline__ unsigned code_of(float x) {
  using F = Format<kMantissaBits>;
  const unsigned bits = __float_as_uint(x), sign = bits >> 24 & 0x80u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | F::kNan;
  constexpr int kShift = 23 - kMantissaBits;
  if (magnitude < static_cast<unsigned>(127 + 1 - F::kBias) << 23) {
    // Below the smallest normal value: multiples of the smallest one. 1.5 * 2^23 leaves no room for fractions.
    const float scaled = __uint_as_float(magnitude) * power_of_two(F::kBias - 1 + kMantissaBits);
    return sign | (__float_as_uint(scaled + 12582912.0f) & 0xffu);
  }
  const unsigned rounded = magnitude + (1u << (kShift - 1)) - 1 + (magnitude >> kShift & 1u);
  const unsigned code = (rounded >> kShift) - (static_cast<unsigned>(127 - F::kBias) << kMantissaBits);
  return sign | (code > F::kLargest ? F::kLargest : code);
}

template <int kMantissaBits>
__device__ __forceinline__ float value_of(unsigned code) {
  using F = Format<kMantissaBits>;
  const unsigned magnitude = code & 0x7fu, exponent = magnitude >> kMantissaBits;
  const auto mantissa = static_cast<float>(magnitude & ((1u << kMantissaBits) - 1));
  constexpr float kOne = 1 << kMantissaBits;
  float value = exponent == 0 ? mantissa * power_of_two(1 - F::kBias - kMantissaBits)
                              : (kOne + mantissa) * power_of_two(static_cast<int>(exponent) - F::kBias - kMantissaBits);
  if (magnitude == F::kNan) value = NAN;
  return code & 0x80u ? -value : value;
}

// The scale's exponent; none where nothing is to be scaled, or nothing can be.
template <int kMantissaBits>
__device__ __forceinline__ int scale_exponent(float largest) {
  const int exponent = static_cast<int>(__float_as_uint(largest) >> 23) - 127;
  if (exponent == -127 || exponent == 128) return 0;
  const int scale = Format<kMantissaBits>::kLargestExponent - exponent;
  return scale > 100 ? 100 : scale < -100 ? -100 : scale;  // so that its inverse is a number too
}

// The value of an element in the order of rows of `width`.
struct Element {
  int64_t row, column;
  __device__ Element(int64_t number, int64_t width) : row(number / width), column(number - row * width) {}
  __device__ __forceinline__ float of(const RowsToRound& x) const {
    const int64_t at = row * x.stride + column;
    return x.bf16 ? from_bf16_bits(x.bf16[at]) : x.fp32[at];
  }
};

__global__ void find_largest(Magnitudes m) {
  unsigned largest = 0;
  const int64_t count = m.rows * m.width, step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t e = global_thread(); e < count; e += step) {
    const unsigned bits = __float_as_uint(Element(e, m.width).of(m.x)) & 0x7fffffffu;
    largest = bits > largest ? bits : largest;
  }
  // A magnitude's bits are ordered as it is, and NaN's are above all.
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    const unsigned other = __shfl_xor_sync(kAllLanes, largest, distance);
    largest = other > largest ? other : largest;
  }
  if (lane_of_thread() == 0) atomicMax(reinterpret_cast<int*>(m.largest), static_cast<int>(largest));
}

template <int kMantissaBits>
__global__ void round_values(Fp8Rows g) {
  const int64_t element = global_thread();
  const int exponent = scale_exponent<kMantissaBits>(*g.largest);
  if (element == 0 && g.inverse_scale != nullptr) *g.inverse_scale = power_of_two(-exponent);
  if (element >= g.rows * g.width) return;
  const Element place(element, g.width);
  const int64_t row = place.row, column = place.column;
  const unsigned code = code_of<kMantissaBits>(place.of(g.from) * power_of_two(exponent));
  if (g.codes != nullptr) g.codes[element] = static_cast<uint8_t>(code);
  if (g.codes_across != nullptr) g.codes_across[column * g.rows + row] = static_cast<uint8_t>(code);
  if (g.values != nullptr)
    g.values[row * g.values_stride + column] =
        static_cast<uint16_t>(bf16_bits(value_of<kMantissaBits>(code) * power_of_two(-exponent)));
}

}  // namespace

void largest_magnitude(Device& device, const Magnitudes& args) {
  constexpr unsigned kBlocksMax = 1024;
  device.zero(args.largest, sizeof(float));
  const unsigned blocks = blocks_for(args.rows * args.width, kThreads);
  launch(device, "largest_magnitude", {blocks < kBlocksMax ? blocks : kBlocksMax, kThreads}, find_largest, args);
}

void round_to_fp8(Device& device, const Fp8Rows& args) {
  const Launch shape{blocks_for(args.rows * args.width, kThreads), kThreads};
  launch(device, "round_to_fp8", shape, args.format == Fp8Format::e4m3 ? round_values<3> : round_values<2>, args);
}

}  // namespace collimate::cuda
