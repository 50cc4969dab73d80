// Products in eight bits: rounding by the definition of the formats, layers near those in bf16, and the library's
// products those of our kernel.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/philox.h"
#include "cuda/cublaslt.h"
#include "cuda/fp8.h"
#include "cuda/linear_bf16.h"
#include "test/environment_variable.h"

namespace collimate {
namespace {

using cuda::Device;
using cuda::DeviceArray;
using cuda::Fp8Format;

#ifdef COLLIMATE_CUDA_EMULATED
const char* const kLibrary = COLLIMATE_CUBLASLT_STAND_IN;
#else
const char* const kLibrary = "auto";
#endif

// Of a code, by the standard's words: sign, exponent with its bias, mantissa; no infinity in e4m3.
double value_of(int code, Fp8Format format) {
  const int mantissa_bits = format == Fp8Format::e4m3 ? 3 : 2, bias = format == Fp8Format::e4m3 ? 7 : 15;
  const int exponent = (code & 0x7f) >> mantissa_bits, mantissa = code & ((1 << mantissa_bits) - 1);
  const double fraction = static_cast<double>(mantissa) / (1 << mantissa_bits);
  const double magnitude = exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1.0 + fraction, exponent - bias);
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}
int codes_of(Fp8Format format) { return format == Fp8Format::e4m3 ? 0x7f : 0x7c; }  // finite, of one sign

struct Rounded {
  std::vector<uint8_t> codes, across;
  std::vector<float> values;
  float inverse_scale = 0.0f;
};
Rounded rounded(Device& device, const std::vector<float>& x, int64_t rows, Fp8Format format) {
  const int64_t width = static_cast<int64_t>(x.size()) / rows;
  const DeviceArray<float> there(device, std::span<const float>(x));
  DeviceArray<float> scales(device, 2);
  DeviceArray<uint8_t> codes(device, there.size()), across(device, there.size());
  DeviceArray<uint16_t> values(device, there.size());
  cuda::largest_magnitude(device, {rows, width, {.fp32 = there.data(), .stride = width}, scales.data()});
  cuda::round_to_fp8(device, {.format = format,
                              .rows = rows,
                              .width = width,
                              .from = {.fp32 = there.data(), .stride = width},
                              .largest = scales.data(),
                              .codes = codes.data(),
                              .codes_across = across.data(),
                              .inverse_scale = scales.data() + 1,
                              .values = values.data(),
                              .values_stride = width});
  Rounded result{std::vector<uint8_t>(x.size()), std::vector<uint8_t>(x.size()), {}, 0.0f};
  codes.download(result.codes);
  across.download(result.across);
  std::vector<uint16_t> bits(x.size());
  values.download(bits);
  for (const uint16_t half : bits) {
    const uint32_t wide = static_cast<uint32_t>(half) << 16;
    float value = 0.0f;
    std::memcpy(&value, &wide, sizeof value);
    result.values.push_back(value);
  }
  std::vector<float> both(2);
  scales.download(both);
  result.inverse_scale = both[1];
  return result;
}

std::vector<float> normal_values(int64_t count, uint64_t stream, float spread) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = spread * random_normal({.seed = 11, .site = RandomSite::test, .stream = stream}, i);
  return values;
}

double distance(const std::vector<float>& got, const std::vector<float>& expected) {
  double apart = 0.0, length = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    if (!std::isfinite(got[i])) return INFINITY;
    apart += std::pow(static_cast<double>(got[i]) - static_cast<double>(expected[i]), 2);
    length += std::pow(static_cast<double>(expected[i]), 2);
  }
  return std::sqrt(apart / length);
}

struct Layer {
  std::vector<float> y, dx, da, db;
};
// A layer of 48 from 32 with two adapters, on 64 rows.
Layer layer(const char* library, bool fp8, int64_t rows = 64) {
  const EnvironmentVariable chosen("COLLIMATE_CUBLASLT", library);
  Device device;
  constexpr int64_t kIn = 32, kOut = 48, kRank = 8, kWidth = 24;
  const auto there = [&](int64_t count, uint64_t stream, float spread) {
    return DeviceArray<float>(device, std::span<const float>(normal_values(count, stream, spread)));
  };
  const auto w = there(kOut * kIn, 1, 0.1f), a0 = there(kRank * kIn, 2, 0.1f), a1 = there(kRank * kIn, 3, 0.1f),
             b0 = there(kWidth * kRank, 4, 0.1f), b1 = there(kWidth * kRank, 5, 0.1f);
  const auto x = there(rows * kIn, 6, 1.0f), dy = there(rows * kOut, 7, 1e-5f);
  using cuda::Bf16Matrix;
  const Bf16Matrix weight(device, {.values = w.data(), .out = kOut, .in = kIn, .room = 2 * kRank, .fp8 = fp8});
  const Bf16Matrix pa0(device, {.values = a0.data(), .out = kRank, .in = kIn}),
      pa1(device, {.values = a1.data(), .out = kRank, .in = kIn}),
      pb0(device, {.values = b0.data(), .out = kWidth, .in = kRank, .factor = 2.0f}),
      pb1(device, {.values = b1.data(), .out = kWidth, .in = kRank, .factor = 2.0f});
  DeviceArray<float> xa(device, 2 * rows * kRank), dxa(device, 2 * rows * kRank), y(device, rows * kOut),
      dx(device, rows * kIn), da(device, 2 * kRank * kIn), db(device, 2 * kWidth * kRank);
  device.zero(da.data(), static_cast<size_t>(da.size()) * sizeof(float));
  device.zero(db.data(), static_cast<size_t>(db.size()) * sizeof(float));
  const std::vector<ops::Bf16Adapter> adapters{{&pa0, &pb0, 0, kWidth, xa.data(), 2.0f, da.data(), db.data()},
                                               {&pa1, &pb1, kWidth, kWidth, xa.data() + rows * kRank, 2.0f,
                                                da.data() + kRank * kIn, db.data() + kWidth * kRank}};
  cuda::bf16_linear_forward(device, {.rows = rows,
                                     .weight = &weight,
                                     .adapters = adapters,
                                     .x = x.data(),
                                     .x_stride = kIn,
                                     .y = y.data(),
                                     .y_stride = kOut});
  cuda::bf16_linear_backward(device, {.rows = rows,
                                      .weight = &weight,
                                      .adapters = adapters,
                                      .dy = dy.data(),
                                      .dy_stride = kOut,
                                      .dx = dx.data(),
                                      .dx_stride = kIn,
                                      .dxa = dxa.data(),
                                      .x = x.data(),
                                      .x_stride = kIn});
  const auto back = [](const DeviceArray<float>& from) {
    std::vector<float> values(static_cast<size_t>(from.size()));
    from.download(values);
    return values;
  };
  return {back(y), back(dx), back(da), back(db)};
}

}  // namespace

TEST_CASE("fp8: every code comes back, and between two codes the nearer is taken, the even one of equals") {
  Device device;
  for (const Fp8Format format : {Fp8Format::e4m3, Fp8Format::e5m2}) {
    const double largest = value_of(codes_of(format) - 1, format);
    std::vector<float> x;
    std::vector<int> expected;
    for (int code = 0; code < codes_of(format); ++code) {
      const double value = value_of(code, format);
      x.push_back(static_cast<float>(value));
      expected.push_back(code);
      x.push_back(static_cast<float>(-value));
      expected.push_back(code | 0x80);
      if (code + 1 == codes_of(format)) continue;
      const double next = value_of(code + 1, format), step = next - value;
      x.push_back(static_cast<float>(value + 0.49 * step));
      expected.push_back(code);
      x.push_back(static_cast<float>(value + 0.5 * step));
      expected.push_back(code % 2 == 0 ? code : code + 1);
      x.push_back(static_cast<float>(value + 0.51 * step));
      expected.push_back(code + 1);
    }
    // As in a matrix of which these are an exact power of two below what the scale brings to the top.
    const int down = static_cast<int>(std::floor(std::log2(largest))) - (format == Fp8Format::e4m3 ? 7 : 14);
    const Rounded got = rounded(device, x, 1, format);
    CHECK(got.inverse_scale == std::ldexp(1.0f, down));
    size_t wrong = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      // What the scale shifts by `down` binades is still exact above the smallest ones.
      const double value = value_of(got.codes[i], format) * static_cast<double>(got.inverse_scale);
      const double smallest = std::ldexp(value_of(1 << (format == Fp8Format::e4m3 ? 3 : 2), format), down);
      if (std::fabs(static_cast<double>(x[i])) >= smallest && value != value_of(expected[i], format)) ++wrong;
      if (static_cast<double>(got.values[i]) != value) ++wrong;
      if (got.across[i] != got.codes[i]) ++wrong;  // of one row
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("fp8: a matrix is scaled by its largest magnitude, whatever that is, and NaN stays NaN") {
  Device device;
  for (const float spread : {1e-30f, 1e-5f, 1.0f, 1e5f, 1e30f}) {
    const std::vector<float> x = normal_values(35, 9, spread);
    const Rounded got = rounded(device, x, 5, Fp8Format::e4m3);
    CHECK(distance(got.values, x) < 0.04);
    for (int64_t row = 0; row < 5; ++row)
      for (int64_t column = 0; column < 7; ++column)
        CHECK(got.across[static_cast<size_t>(column * 5 + row)] == got.codes[static_cast<size_t>(row * 7 + column)]);
  }
  CHECK(rounded(device, {0.0f, -0.0f}, 1, Fp8Format::e4m3).values[0] == 0.0f);
  CHECK(std::isnan(rounded(device, {1.0f, NAN}, 1, Fp8Format::e5m2).values[1]));
}

TEST_CASE("fp8: a layer and its gradients are near those in bf16, and adapters' are not rounded further") {
  const Layer exact = layer("off", false), got = layer("off", true);
  CHECK(distance(got.y, exact.y) < 0.05);
  CHECK(distance(got.y, exact.y) > 1e-3);
  CHECK(distance(got.dx, exact.dx) < 0.1);
  CHECK(got.da == exact.da);
  CHECK(got.db == exact.db);
}

TEST_CASE("fp8: cuBLASLt's products are those of our kernel on the same values") {
  const Layer own = layer("off", true);
  {
    const EnvironmentVariable chosen("COLLIMATE_CUBLASLT", kLibrary);
    if (!Device().cublaslt().is_used()) {
      MESSAGE("skipped: no cuBLASLt");
      return;
    }
  }
  const Layer got = layer(kLibrary, true);
  CHECK(distance(got.y, own.y) < 1e-5);
  CHECK(distance(got.dx, own.dx) < 1e-5);
  // Rows that do not fill its vectors are left to ours.
  CHECK(distance(layer(kLibrary, true, 37).y, layer("off", true, 37).y) < 1e-5);
}

}  // namespace collimate
