// The jobs that train in lanes on a device: near the processor's result, the same bytes twice, in gangs that share the
// card, and across stop and resume.
#include <doctest/doctest.h>

#include <cmath>

#include "core/lanes.h"
#include "core/model/optimizer.h"
#include "core/safetensors.h"
#include "cuda/ops_backend.h"
#include "test/adapter_runs.h"
#include "test/dense_runs.h"
#include "test/device/device_in_use.h"
#include "test/tiny_decoder.h"
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

std::vector<float> reduced(OpsBackend& backend, Pool& pool, Transport* transport, int64_t elements) {
  LaneReducer reducer(
      {.lanes = 8, .elements = elements, .scalars = 1, .transport = transport, .pool = &pool, .backend = &backend});
  std::vector<float> result(static_cast<size_t>(elements));
  for (int64_t step = 0; step < 2; ++step) {
    reducer.compute(1, [&](const LaneReducer::Lane& lane) -> std::vector<double> {
      std::vector<float> gradient(lane.gradient.size());
      backend.download(gradient.data(), lane.gradient.data(), static_cast<int64_t>(lane.gradient.size_bytes()));
      CHECK(std::all_of(gradient.begin(), gradient.end(), [](float value) { return value == 0.0f; }));
      const RandomStream stream{.seed = 1, .site = RandomSite::test, .stream = static_cast<uint64_t>(lane.number)};
      for (size_t i = 0; i < gradient.size(); ++i) gradient[i] = random_normal(stream, i);
      backend.upload(lane.gradient.data(), gradient.data(), static_cast<int64_t>(lane.gradient.size_bytes()));
      return {static_cast<double>(lane.number)};
    });
    const LaneReducer::Result sum = reducer.reduce(step, 0);
    CHECK(sum.scalars == std::vector<double>{28.0});
    backend.download(result.data(), sum.gradient.data(), static_cast<int64_t>(sum.gradient.size_bytes()));
  }
  return result;
}

}  // namespace

TEST_CASE("lanes on a device: the processor's sums to the byte, alone and in gangs") {
  Pool pool(2);
  const auto here = ops_on_processor(pool);
  for (const int64_t elements : {int64_t{5}, int64_t{40003}}) {
    const std::vector<float> expected = reduced(*here, pool, nullptr, elements);
    CHECK(reduced(*cuda::ops_on_device(0), pool, nullptr, elements) == expected);
    for (const int world : {2, 3}) {
      run_gang(world, [&](Transport& transport) {
        Pool own(1);
        if (reduced(*cuda::ops_on_device(0), own, &transport, elements) != expected)
          throw std::runtime_error("a rank has another sum");
      });
    }
  }
}

TEST_CASE("optimizer on a device: the processor's updates up to rounding; the host's copies on demand") {
  Pool pool(1);
  const auto here = ops_on_processor(pool), there = cuda::ops_on_device(0);
  for (const bool lora : {false, true}) {
    Parameters host = tiny_parameters(true, lora), device = tiny_parameters(true, lora);
    const std::vector<float> before(host.values().begin(), host.values().end());
    const Optimizer::Options options{.weight_decay = 0.1, .clip_norm = 1.0};
    Optimizer on_host(host, *here, options), on_device(device, *there, options);
    CHECK(on_host.trained() == nullptr);
    const BackendArray<float> gradient(*there, host.trained_elements());
    std::vector<float> values(static_cast<size_t>(gradient.size()));
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = random_normal({.seed = 2, .site = RandomSite::test, .stream = 1}, i);
    gradient.upload(values);
    const double norm = here->sum_squares(values.data(), gradient.size());
    CHECK(there->sum_squares(gradient.data(), gradient.size()) == doctest::Approx(norm).epsilon(1e-12));
    for (int64_t step = 0; step < 2; ++step) {
      Optimizer::Update update{.step = step, .learning_rate = 0.01, .gradient_norm = std::sqrt(norm)};
      update.gradient = values;
      on_host.apply(update);
      update.gradient = {gradient.data(), values.size()};
      on_device.apply(update);
    }
    CHECK(std::equal(before.begin(), before.end(), device.values().begin()));
    on_device.to_host();
    CHECK_FALSE(std::equal(before.begin(), before.end(), device.values().begin()));
    for (size_t i = 0; i < before.size(); ++i)
      CHECK(device.values()[i] == doctest::Approx(host.values()[i]).epsilon(1e-5));
    for (size_t i = 0; i < values.size(); ++i)
      CHECK(on_device.second_moment()[i] == doctest::Approx(on_host.second_moment()[i]).epsilon(1e-5));
    // What is written on the host is what the next update begins with.
    for (Optimizer* optimizer : {&on_host, &on_device})
      std::fill(optimizer->first_moment().begin(), optimizer->first_moment().end(), 3.0f);
    on_device.to_backend();
    on_host.apply({.step = 2, .learning_rate = 0.01, .gradient = values, .gradient_norm = std::sqrt(norm)});
    on_device.apply({.step = 2,
                     .learning_rate = 0.01,
                     .gradient = {gradient.data(), values.size()},
                     .gradient_norm = std::sqrt(norm)});
    on_device.to_host();
    for (size_t i = 0; i < values.size(); ++i)
      CHECK(on_device.first_moment()[i] == doctest::Approx(on_host.first_moment()[i]).epsilon(1e-5));
  }
}

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
