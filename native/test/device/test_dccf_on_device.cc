// DCCF on a device: losses and embeddings near the processor's, the same bytes twice and across stop and resume.
#include <doctest/doctest.h>

#include <cmath>

#include "core/philox.h"
#include "core/safetensors.h"
#include "test/device/device_in_use.h"
#include "test/job_fixture.h"

namespace collimate {
namespace {

constexpr int32_t kUsers = 40, kItems = 20;

JobRequest request_in(const std::filesystem::path& folder) {
  std::vector<int32_t> users, items;
  for (int32_t u = 0; u + 1 < kUsers; ++u)
    for (int32_t i = 0; i + 1 < kItems; ++i)
      if (random_below({.seed = 8}, static_cast<uint64_t>(u * kItems + i), 4) == 0) {
        users.push_back(u);
        items.push_back(i);
      }
  const std::vector<int64_t> counts = {kUsers, kItems};
  SafetensorsWriter writer;
  writer.add_i32("users", {static_cast<int64_t>(users.size())}, users);
  writer.add_i32("items", {static_cast<int64_t>(items.size())}, items);
  writer.add_i64("counts", {2}, counts);
  writer.write(folder / "graph.safetensors");
  return {.kind = "dccf",
          .recipe = {{"dim", 40},
                     {"layers", 2},
                     {"intents", 4},
                     {"epochs", 2},
                     {"batchSize", 64},
                     {"learningRate", 0.01},
                     {"weightDecay", 2.5e-5},
                     {"intentWeight", 5e-3},
                     {"contrastWeight", 0.1},
                     {"temperature", 0.5},
                     {"contrastRowsMax", 16},
                     {"seed", 2}},
          .inputs = {{"graph", folder / "graph.safetensors"}}};
}

double largest_gap(const JobOutcome& a, const JobOutcome& b, const char* tensor, int64_t rows) {
  const SafetensorsFile left = SafetensorsFile::open(a.outputs.at("embeddings")),
                        right = SafetensorsFile::open(b.outputs.at("embeddings"));
  const auto x = left.f32(tensor, {rows, 40}), y = right.f32(tensor, {rows, 40});
  double gap = 0;
  for (size_t i = 0; i < x.size(); ++i) gap = std::max(gap, std::fabs(static_cast<double>(x[i]) - y[i]));
  return gap;
}

}  // namespace

TEST_CASE("dccf on a device: the processor's embeddings up to rounding, its own to the byte") {
  TemporaryFolder folder;
  JobRequest request = request_in(folder.path());
  RecordingHost on_processor, first, second;
  const JobOutcome expected = run_in(folder.path(), "processor", request, on_processor, run_dccf);
  const DeviceInUse device;
  const JobOutcome whole = run_in(folder.path(), "device", request, first, run_dccf);
  CHECK(first.steps == on_processor.steps);
  CHECK(std::fabs(first.metrics.at("loss") - on_processor.metrics.at("loss")) < 1e-4);
  // Adam divides by the root of a second moment that is near zero in the first steps: rounding is magnified.
  CHECK(largest_gap(expected, whole, "users", kUsers) < 2e-3);
  CHECK(largest_gap(expected, whole, "items", kItems) < 2e-3);

  second.stop_at = 2;
  const JobOutcome stopped = run_in(folder.path(), "stopped", request, second, run_dccf);
  REQUIRE(stopped.kind == JobOutcome::Kind::stopped);
  request.resume_dir = second.checkpoints.at(stopped.step);
  RecordingHost third;
  CHECK(bytes_of(run_in(folder.path(), "resumed", request, third, run_dccf), "embeddings") ==
        bytes_of(whole, "embeddings"));
}

}  // namespace collimate
