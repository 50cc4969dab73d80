// Products by cuBLASLt: the library's own on a card, a stand-in's (cuda/emulation/cublaslt.cc) where kernels are
// emulated.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "cases/on_device.h"
#include "core/dynamic_library.h"
#include "core/failure.h"
#include "core/philox.h"
#include "cuda/cublaslt.h"
#include "cuda/gemm.h"
#include "test/environment_variable.h"

namespace collimate {
namespace {

const char* const kName = "COLLIMATE_CUBLASLT";
#ifdef COLLIMATE_CUDA_EMULATED
const char* const kLibrary = COLLIMATE_CUBLASLT_STAND_IN;
#else
const char* const kLibrary = "auto";
#endif

bool has_library() {
  const EnvironmentVariable chosen(kName, kLibrary);
  const cuda::Device device;
  if (!device.cublaslt().is_used()) MESSAGE("skipped: " << device.cublaslt().description());
  return device.cublaslt().is_used();
}

#ifdef COLLIMATE_CUDA_EMULATED
// How many products the stand-in has made.
int64_t multiplications() {
  static const DynamicLibrary library{kLibrary};
  return library.function<int64_t (*)()>("stand_in_multiplications")();
}
#endif

struct Shape {
  bool transpose_a, transpose_b, accumulate;
  int64_t m, n, k;
  bool to_bf16 = false;
};

// c of a product whose operands lie `shift` values off an aligned address.
std::vector<float> product(const char* library, const Shape& s, int64_t rows, int64_t shift = 0) {
  const EnvironmentVariable chosen(kName, library);
  cuda::Device device;
  const auto values = [](int64_t count, uint64_t stream) {
    std::vector<float> result(static_cast<size_t>(count));
    for (size_t i = 0; i < result.size(); ++i)
      result[i] = random_normal({.seed = 7, .site = RandomSite::test, .stream = stream}, i);
    return result;
  };
  const auto rounded = [&](int64_t count, uint64_t stream) {
    const cuda::DeviceArray<float> from(device, std::span<const float>(values(count, stream)));
    cuda::DeviceArray<uint16_t> to(device, count + shift);
    cuda::round_to_bf16(device, from.data(), count, 1.0f, to.data() + shift);
    return to;
  };
  // Of a, all s.m rows exist; the first `rows` are multiplied.
  const auto a = rounded(s.m * s.k, 1), b = rounded(s.n * s.k, 2), narrow = rounded(s.m * s.n, 3);
  const cuda::DeviceArray<float> c(device, std::span<const float>(values(s.m * s.n, 3)));
  cuda::gemm_bf16(device, {.transpose_a = s.transpose_a,
                           .transpose_b = s.transpose_b,
                           .m = rows,
                           .n = s.n,
                           .k = s.k,
                           .alpha = 0.5f,
                           .a = a.data() + shift,
                           .lda = s.transpose_a ? s.m : s.k,
                           .b = b.data() + shift,
                           .ldb = s.transpose_b ? s.k : s.n,
                           .accumulate = s.accumulate,
                           .c = c.data(),
                           .c_bf16 = s.to_bf16 ? narrow.data() + shift : nullptr,
                           .ldc = s.n});
  std::vector<float> back(static_cast<size_t>(rows * s.n));
  if (!s.to_bf16) {
    device.download(back.data(), c.data(), back.size() * sizeof(float));
    return back;
  }
  std::vector<uint16_t> halves(back.size());
  device.download(halves.data(), narrow.data() + shift, halves.size() * sizeof(uint16_t));
  for (size_t i = 0; i < halves.size(); ++i) {
    const uint32_t bits = static_cast<uint32_t>(halves[i]) << 16;
    std::memcpy(&back[i], &bits, sizeof bits);
  }
  return back;
}

double distance(const std::vector<float>& got, const std::vector<float>& expected) {
  double worst = 0.0, largest = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    if (!std::isfinite(got[i])) return INFINITY;
    worst = std::max(worst, std::fabs(static_cast<double>(got[i]) - static_cast<double>(expected[i])));
    largest = std::max(largest, std::fabs(static_cast<double>(expected[i])));
  }
  return worst / largest;
}

}  // namespace

TEST_CASE("cuBLASLt: the products of our kernel, whatever is transposed, added to or off a line") {
  if (!has_library()) return;
  for (const bool transpose_a : {false, true}) {
    for (const bool transpose_b : {false, true}) {
      for (const Shape& shape :
           {Shape{transpose_a, transpose_b, false, 40, 24, 64}, Shape{transpose_a, transpose_b, true, 37, 11, 29},
            Shape{transpose_a, transpose_b, true, 130, 136, 40}}) {
        for (const int64_t shift : {0, 1}) {
          CAPTURE(transpose_a);
          CAPTURE(transpose_b);
          CAPTURE(shape.m);
          CAPTURE(shift);
#ifdef COLLIMATE_CUDA_EMULATED
          const int64_t before = multiplications();
#endif
          CHECK(distance(product(kLibrary, shape, shape.m, shift), product("off", shape, shape.m, shift)) < 2e-6);
#ifdef COLLIMATE_CUDA_EMULATED
          CHECK(multiplications() == before + 1);
#endif
        }
      }
    }
  }
}

TEST_CASE("cuBLASLt: results in bf16, written and added to") {
  if (!has_library()) return;
  for (const bool transpose_b : {false, true}) {
    for (const bool accumulate : {false, true}) {
      for (const int64_t shift : {0, 1}) {
        const Shape shape{false, transpose_b, accumulate, 40, 24, 64, /*to_bf16=*/true};
        Shape wide = shape;
        wide.to_bf16 = false;
        const std::vector<float> expected = product("off", wide, shape.m, shift);
        // Half a unit in the last place of the largest; where it is added to, what was there was rounded too.
        CHECK(distance(product("off", shape, shape.m, shift), expected) < 1.0 / 256);
        CHECK(distance(product(kLibrary, shape, shape.m, shift), expected) < 1.0 / 256);
      }
    }
  }
}

TEST_CASE("cuBLASLt: a row's bits are the same among 300 rows and among 17") {
  if (!has_library()) return;
  for (const bool transpose_b : {false, true}) {
    const Shape shape{false, transpose_b, false, 300, 48, 80};
    const std::vector<float> all = product(kLibrary, shape, 300), few = product(kLibrary, shape, 17);
    CHECK(std::equal(few.begin(), few.end(), all.begin()));
  }
}

TEST_CASE("cuBLASLt: layers with adapters and their gradients are near those of our kernels") {
  if (!has_library()) return;
  Pool pool(1);
  const cases::Backend backend = cases::device_backend({.name = "device"});
  const auto results = [&](const cases::Case& one, const char* library) {
    const EnvironmentVariable chosen(kName, library);
    cases::Tensors tensors = one.make();
    backend.load(one, pool, tensors)();
    return tensors;
  };
  int compared = 0;
  for (const cases::Case& one : cases::all_cases()) {
    if (one.op.rfind("bf16_linear_", 0) != 0 || one.scale != cases::Scale::tiny) continue;
    cases::Tensors got = results(one, kLibrary), expected = results(one, "off");
    for (const auto& [name, tensor] : expected.all()) {
      if (tensor.role == cases::Role::input) continue;
      const std::vector<float> from(got.at(name).f32.begin(), got.at(name).f32.end());
      CHECK_MESSAGE(distance(from, {tensor.f32.begin(), tensor.f32.end()}) < one.tolerance, one.name << ": " << name);
      ++compared;
    }
  }
  CHECK(compared > 10);
}

#ifdef COLLIMATE_CUDA_EMULATED
TEST_CASE("cuBLASLt: a shape that it has no algorithm for is left to our kernel") {
  const int64_t before = multiplications();
  const Shape shape{false, true, false, 20, 13, 32};
  CHECK(product(kLibrary, shape, 20) == product("off", shape, 20));
  CHECK(multiplications() == before);
}
#endif

TEST_CASE("cuBLASLt: one that is asked for and missing is bad input that says what to do; off goes without") {
  try {
    const EnvironmentVariable chosen(kName, "/nowhere/libcublasLt.so");
    cuda::Device device;
    FAIL("expected a failure");
  } catch (const JobFailure& failure) {
    CHECK(failure.cause() == FailureCause::bad_input);
    const std::string words = failure.what();
    CHECK(words.find("COLLIMATE_CUBLASLT=/nowhere/libcublasLt.so") != std::string::npos);
    CHECK(words.find("set it to auto or off") != std::string::npos);
  }
  const EnvironmentVariable chosen(kName, "off");
  CHECK(cuda::Device().cublaslt().description() == "own kernels (COLLIMATE_CUBLASLT=off)");
}

}  // namespace collimate
