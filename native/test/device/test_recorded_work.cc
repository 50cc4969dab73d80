// Kernels started from a recording: the same results from new values, and anew where memory has moved.
#include <doctest/doctest.h>

#include <vector>

#include "core/failure.h"
#include "cuda/gemm.h"
#include "cuda/ops.h"
#include "cuda/recorded_work.h"

namespace collimate {
namespace {

constexpr int64_t kRows = 5, kWidth = 7;

struct Work {
  explicit Work(cuda::Device& on) : device(on), x(on, kRows * kWidth), bias(on, kWidth), sums(on, kWidth) {}

  void set(float value) {
    const std::vector<float> values(static_cast<size_t>(kRows * kWidth), value);
    device.upload(x.data(), values.data(), values.size() * sizeof(float));
    device.upload(bias.data(), values.data(), kWidth * sizeof(float));
    device.synchronize();
  }
  // Kernels, a clearing, a copy, and scratch memory.
  void start() {
    ++started;
    cuda::add_bias(device, {.rows = kRows, .width = kWidth, .bias = bias.data(), .y = x.data()});
    device.zero(sums.data(), kWidth * sizeof(float));
    cuda::bias_backward(device, {.rows = kRows, .width = kWidth, .dy = x.data(), .dbias = sums.data()});
    device.copy(bias.data(), sums.data(), kWidth * sizeof(float));
  }
  float result() const {
    std::vector<float> back(kWidth);
    bias.download(back);
    return back[kWidth - 1];
  }

  cuda::Device& device;
  cuda::DeviceArray<float> x, bias, sums;
  int started = 0;
};

}  // namespace

TEST_CASE("recorded work: from the third run on nothing is started one by one, and values may be new") {
  cuda::Device device;
  Work work(device);
  cuda::RecordedWork recorded(device);
  for (int i = 1; i <= 5; ++i) {
    work.set(static_cast<float>(i));
    recorded.run([&] { work.start(); });
    CHECK(work.result() == static_cast<float>(kRows * 2 * i));
  }
#ifdef NDEBUG
  CHECK(work.started == 2);
#endif
}

TEST_CASE("recorded work: recorded anew after the scratch memory has moved") {
  cuda::Device device;
  Work work(device);
  cuda::RecordedWork recorded(device);
  for (int i = 1; i <= 6; ++i) {
    if (i == 4) device.scratch<float>(1 << 20);
    work.set(static_cast<float>(i));
    recorded.run([&] { work.start(); });
    CHECK(work.result() == static_cast<float>(kRows * 2 * i));
  }
#ifdef NDEBUG
  CHECK(work.started == 3);
#endif
}

TEST_CASE("recorded work: what may not be recorded runs each time") {
  cuda::Device device;
  Work work(device);
  cuda::RecordedWork recorded(device);
  for (int i = 1; i <= 4; ++i) {
    work.set(static_cast<float>(i));
    recorded.run([&] {
      work.start();
      device.synchronize();
    });
    CHECK(work.result() == static_cast<float>(kRows * 2 * i));
  }
  CHECK(work.started >= 4);
}

TEST_CASE("recorded work: a failure of the work itself comes out") {
  cuda::Device device;
  cuda::RecordedWork recorded(device);
  const auto run = [&] { recorded.run([] { fail_bad_input("no"); }); };
  CHECK_THROWS_AS(run(), JobFailure);
  CHECK_THROWS_AS(run(), JobFailure);
}

}  // namespace collimate
