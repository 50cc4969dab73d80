// What holds for kernels beyond the op cases, which test_op_cases.cc runs on the device.
#include <doctest/doctest.h>

#include <string>

#include "cases/on_device.h"
#include "core/failure.h"
#include "cuda/device.h"

namespace collimate {
namespace cuda {
[[noreturn]] void fail_cuda(int code, const char* what);  // cuda/launch.h, which only a CUDA compiler reads
}

TEST_CASE("device: every op of the interface has a kernel") {
  for (const cases::Case& one : cases::all_cases())
    CHECK_MESSAGE(cases::ops_with_kernels().count(one.op) == 1, one.op << " has no kernel");
}

TEST_CASE("device: copies arrive, and scratch memory grows") {
  cuda::Device device;
  const std::vector<float> values{1.0f, -2.0f, 3.5f};
  const cuda::DeviceArray<float> there(device, values);
  std::vector<float> back(3);
  there.download(back);
  CHECK(back == values);
  float* first = device.scratch<float>(16);
  CHECK(device.scratch<float>(8) == first);
  CHECK(device.scratch<double>(1 << 16) != nullptr);
}

TEST_CASE("device: an error of the runtime is the failure that it means to a run") {
  const auto cause_of = [](int code) {
    try {
      cuda::fail_cuda(code, "a call");
    } catch (const JobFailure& failure) {
      CHECK(std::string(failure.what()).rfind("a call: ", 0) == 0);
      return failure.cause();
    }
  };
  CHECK(cause_of(2) == FailureCause::out_of_memory);
  CHECK(cause_of(101) == FailureCause::bad_input);
  for (const int sticky : {214, 700, 719, 999}) CHECK(cause_of(sticky) == FailureCause::device_lost);
  CHECK(cause_of(1) == FailureCause::internal);  // an argument that no call should have
}

TEST_CASE("device: an index without a device is bad input, and says which devices there are") {
  try {
    cuda::Device device(4096);
    FAIL("expected a failure");
  } catch (const JobFailure& failure) {
    CHECK(failure.cause() == FailureCause::bad_input);
    CHECK(std::string(failure.what()).find("counted from 0") != std::string::npos);
  }
}

}  // namespace collimate
