// The job `codebooks` on a device: the bytes of the processor, also across stop and resume; and the choice of a device.
#include <doctest/doctest.h>

#include "core/accelerator.h"
#include "core/failure.h"
#include "core/numerics_class.h"
#include "core/philox.h"
#include "core/safetensors.h"
#include "cuda/accelerator.h"
#include "test/device/device_in_use.h"
#include "test/job_fixture.h"

namespace collimate {
namespace {

constexpr int64_t kItems = 150;

// On the device while it lives, on the processor again afterwards.
class OnDevice {
 public:
  OnDevice() {
    cuda::register_devices();
    use_device("cuda:0");
  }
  ~OnDevice() { use_device("cpu"); }
};

JobRequest request_in(const std::filesystem::path& folder, int64_t beam) {
  std::vector<float> rows(kItems * 12);
  for (size_t i = 0; i < rows.size(); ++i)
    rows[i] = random_normal({.seed = 8, .site = RandomSite::test, .stream = 1}, i);
  SafetensorsWriter writer;
  writer.add_f32("items", {kItems, 12}, rows);
  writer.write(folder / "collaborative.safetensors");
  return {.kind = "codebooks",
          .recipe = {{"levels", 3},
                     {"codes", 8},
                     {"iterations", 4},
                     {"collaborativeWeight", 1.0},
                     {"textWeight", 0.0},
                     {"beam", beam},
                     {"holdoutShare", 0.0},
                     {"seed", 3}},
          .inputs = {{"collaborative", folder / "collaborative.safetensors"}}};
}

}  // namespace

TEST_CASE("codebooks on a device: the same codes file as on the processor") {
  for (const int64_t beam : {1, 4}) {
    CAPTURE(beam);
    TemporaryFolder folder;
    const JobRequest request = request_in(folder.path(), beam);
    RecordingHost host, other;
    const JobOutcome expected = run_in(folder.path(), "processor", request, host, run_codebooks);
    const DeviceInUse device;
    const JobOutcome got = run_in(folder.path(), "device", request, other, run_codebooks);
    CHECK(bytes_of(got, "codes") == bytes_of(expected, "codes"));
    CHECK(got.summary == expected.summary);
    CHECK(other.steps == host.steps);
  }
}

TEST_CASE("codebooks on a device: stopped and gone on with, the same bytes") {
  TemporaryFolder folder;
  JobRequest request = request_in(folder.path(), 1);
  const DeviceInUse device;
  RecordingHost whole;
  const std::string expected = bytes_of(run_in(folder.path(), "whole", request, whole, run_codebooks), "codes");
  for (const int64_t stop : {3, 7}) {
    CAPTURE(stop);
    RecordingHost first, second;
    first.stop_at = stop;
    const std::string name = "stop-" + std::to_string(stop);
    const JobOutcome stopped = run_in(folder.path(), name, request, first, run_codebooks);
    REQUIRE(stopped.kind == JobOutcome::Kind::stopped);
    request.resume_dir = first.checkpoints.at(stopped.step);
    CHECK(bytes_of(run_in(folder.path(), name + "-resumed", request, second, run_codebooks), "codes") == expected);
    request.resume_dir.reset();
  }
}

TEST_CASE("devices: a process computes on the one it names, and its class says so") {
  const DeviceInUse device;
  REQUIRE(accelerator() != nullptr);
  CHECK(accelerator()->memory().total_bytes > 0);
  const std::optional<double> utilisation = accelerator()->utilisation();
  CHECK((!utilisation || (*utilisation >= 0.0 && *utilisation <= 1.0)));
  CHECK(accelerator()->probe() == accelerator()->probe());
  CHECK(numerics_class().rfind("cuda-" + accelerator()->architecture() + "-", 0) == 0);
}

TEST_CASE("devices: a name that is none, a kind that is not built in, an index that is not there") {
  cuda::register_devices();
  for (const char* name : {"gpu", "cuda", "cuda:", "cuda:x", "cuda:-1", "rocm:0", "cuda:4096"}) {
    CAPTURE(name);
    try {
      use_device(name);
      FAIL("expected a failure");
    } catch (const JobFailure& failure) {
      CHECK(failure.cause() == FailureCause::bad_input);
    }
    CHECK(accelerator() == nullptr);
  }
}

}  // namespace collimate
