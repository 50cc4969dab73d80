// The jobs that train in lanes on a device: near the processor's result, the same bytes twice, in gangs that share the
// card, and across stop and resume.
#include <doctest/doctest.h>

#include <cmath>

#include "core/safetensors.h"
#include "test/adapter_runs.h"
#include "test/dense_runs.h"
#include "test/device/device_in_use.h"
#include "test/tune_runs.h"

namespace collimate {
namespace {

std::vector<float> losses_of(const std::filesystem::path& folder) {
  const SafetensorsFile file = SafetensorsFile::open(folder / "out" / "loss_curve");
  const auto losses = file.f32("loss", {-1});
  return {losses.begin(), losses.end()};
}

// Adam divides by the root of a second moment that is near zero in the first steps: rounding is magnified.
void check_losses(const std::vector<float>& got, const std::vector<float>& expected, double tolerance) {
  REQUIRE(got.size() == expected.size());
  for (size_t step = 0; step < got.size(); ++step) {
    CAPTURE(step);
    const double apart = std::fabs(static_cast<double>(got[step]) - static_cast<double>(expected[step]));
    CHECK((std::isfinite(apart) && apart < tolerance));
  }
  CHECK(got.back() < got.front());
}

void check_on_device(ToyRun run, const std::filesystem::path& folder, double tolerance) {
  TuneHost host, saving;
  run_rank_of(run, folder / "processor", host, nullptr);
  const DeviceInUse device;
  run.checkpoint_interval = 2;
  run_rank_of(run, folder / "device", saving, nullptr);
  check_losses(losses_of(folder / "device"), losses_of(folder / "processor"), tolerance);
  const std::string expected = output_bytes(folder / "device");
  CHECK(expected != output_bytes(folder / "processor"));
  run_gang(2, [&](Transport& transport) {
    TuneHost own;
    const auto to = folder / std::to_string(transport.rank());
    run_rank_of(run, to, own, &transport);
    CHECK(output_bytes(to) == expected);
  });
  run.resume = saving.checkpoints.at(2);
  run_rank_of(run, folder / "resumed", host, nullptr);
  CHECK(output_bytes(folder / "resumed") == expected);
}

}  // namespace

TEST_CASE("tune on a device: near the processor's losses, the same bytes in a gang and after a resume") {
  const TemporaryFolder folder;
  write_toy_inputs(folder.path());
  check_on_device(toy_run(folder.path(), 4), folder.path(), 1e-4);
}

TEST_CASE("tune on a device in bf16") {
  const TemporaryFolder folder;
  write_toy_inputs(folder.path());
  ToyRun run = toy_run(folder.path(), 4);
  TuneHost host;
  run_rank_of(run, folder.path() / "exact", host, nullptr);
  const DeviceInUse device;
  run.recipe["precision"] = "bf16";
  run_rank_of(run, folder.path() / "device", host, nullptr);
  check_losses(losses_of(folder.path() / "device"), losses_of(folder.path() / "exact"), 0.05);
  run_rank_of(run, folder.path() / "again", host, nullptr);
  CHECK(output_bytes(folder.path() / "again") == output_bytes(folder.path() / "device"));
}

TEST_CASE("tune on a device in fp8: an adapter's losses near the processor's in fp32, the same bytes twice") {
  const TemporaryFolder folder;
  ToyRun run = lora_run(folder.path(), 3);
  TuneHost host;
  run_rank_of(run, folder.path() / "fp32", host, nullptr);
  const DeviceInUse device;
  for (const char* precision : {"bf16", "fp8"}) {
    CAPTURE(precision);
    run.recipe["precision"] = precision;
    run_rank_of(run, folder.path() / precision, host, nullptr);
    check_losses(losses_of(folder.path() / precision), losses_of(folder.path() / "fp32"), 0.05);
  }
  CHECK(losses_of(folder.path() / "fp8") != losses_of(folder.path() / "bf16"));
  run_rank_of(run, folder.path() / "again", host, nullptr);
  CHECK(output_bytes(folder.path() / "again") == output_bytes(folder.path() / "fp8"));
}

TEST_CASE("tune in fp8: a processor refuses it, and so does a run without frozen matrices") {
  const TemporaryFolder folder;
  ToyRun run = lora_run(folder.path(), 2);
  run.recipe["precision"] = "fp8";
  CHECK(failure_of(run).find("expects a worker with a GPU") != std::string::npos);
  const DeviceInUse device;
  ToyRun full = toy_run(folder.path(), 2);
  full.recipe["precision"] = "fp8";
  CHECK(failure_of(full).find("for frozen matrices") != std::string::npos);
}

TEST_CASE("dense on a device: with text and without") {
  for (const bool text : {true, false}) {
    CAPTURE(text);
    const TemporaryFolder folder;
    write_dense_inputs(folder.path());
    check_on_device(dense_run(folder.path(), 1, text), folder.path(), 1e-3);
  }
}

}  // namespace collimate
