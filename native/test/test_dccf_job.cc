// Job `dccf`: outputs as stated, the same bytes on any pool and across stop and resume, clear failures.
#include <doctest/doctest.h>

#include <cmath>

#include "core/failure.h"
#include "core/philox.h"
#include "core/safetensors.h"
#include "test/job_fixture.h"

namespace collimate {
namespace {

// 80 users and 30 items, about six items a user; user 79 and item 29 have none.
std::filesystem::path write_graph(const std::filesystem::path& path) {
  std::vector<int32_t> users, items;
  for (int32_t u = 0; u < 79; ++u)
    for (int32_t i = 0; i < 29; ++i)
      if (random_below({.seed = 8}, u * 29 + i, 5) == 0) {
        users.push_back(u);
        items.push_back(i);
      }
  const std::vector<int64_t> counts = {80, 30};
  SafetensorsWriter writer;
  writer.add_i32("users", {static_cast<int64_t>(users.size())}, users);
  writer.add_i32("items", {static_cast<int64_t>(items.size())}, items);
  writer.add_i64("counts", {2}, counts);
  writer.write(path);
  return path;
}

JobRequest request_in(const std::filesystem::path& folder) {
  return {.kind = "dccf",
          .recipe = {{"dim", 8},
                     {"layers", 2},
                     {"intents", 4},
                     {"epochs", 3},
                     {"batchSize", 128},
                     {"learningRate", 0.01},
                     {"weightDecay", 2.5e-5},
                     {"intentWeight", 5e-3},
                     {"contrastWeight", 0.1},
                     {"temperature", 1},
                     {"contrastRowsMax", 50},
                     {"seed", 2}},
          .inputs = {{"graph", write_graph(folder / "graph.safetensors")}}};
}

}  // namespace

TEST_CASE("dccf job: output, metrics, and bytes that depend on neither threads nor stops") {
  TemporaryFolder folder;
  JobRequest request = request_in(folder.path());
  RecordingHost plain;
  const JobOutcome whole = run_in(folder.path(), "whole", request, plain, run_dccf);
  const std::string expected = bytes_of(whole, "embeddings");
  CHECK(whole.step == plain.steps_total);
  CHECK(static_cast<int64_t>(plain.steps.size()) == plain.steps_total);
  for (const char* name : {"loss", "loss_rank", "loss_contrast", "learning_rate"})
    CHECK(plain.metrics.count(name) == 1);
  const SafetensorsFile file = SafetensorsFile::open(whole.outputs.at("embeddings"));
  for (const float value : file.f32("users", {80, 8})) REQUIRE(std::isfinite(value));
  for (const float value : file.f32("items", {30, 8})) REQUIRE(std::isfinite(value));

  request.threads = 3;
  request.checkpoint_interval_steps = 2;
  RecordingHost threaded;
  CHECK(bytes_of(run_in(folder.path(), "threads", request, threaded, run_dccf), "embeddings") == expected);
  CHECK(threaded.checkpoints.size() == static_cast<size_t>((plain.steps_total - 1) / 2));

  request.threads = 1;
  request.checkpoint_interval_steps = 0;
  for (int64_t stop = 1; stop < plain.steps_total; stop += 3) {
    CAPTURE(stop);
    RecordingHost stopped, resumed;
    stopped.stop_at = stop;
    request.resume_dir.reset();
    const JobOutcome part = run_in(folder.path(), "stop" + std::to_string(stop), request, stopped, run_dccf);
    CHECK(part.kind == JobOutcome::Kind::stopped);
    REQUIRE(stopped.checkpoints.count(stop) == 1);
    request.resume_dir = stopped.checkpoints[stop];
    CHECK(bytes_of(run_in(folder.path(), "rest" + std::to_string(stop), request, resumed, run_dccf), "embeddings") ==
          expected);
    CHECK(resumed.steps.front() == stop + 1);
  }
}

TEST_CASE("dccf job: a stop step ends the attempt there with the checkpoint of a run that passes it") {
  TemporaryFolder folder;
  JobRequest request = request_in(folder.path());
  request.checkpoint_interval_steps = 2;
  RecordingHost passing, stopped;
  run_in(folder.path(), "passing", request, passing, run_dccf);
  request.checkpoint_interval_steps = 0;
  request.stop_step = 4;
  request.resume_dir = passing.checkpoints.at(2);
  const JobOutcome outcome = run_in(folder.path(), "stopped", request, stopped, run_dccf);
  CHECK(outcome.kind == JobOutcome::Kind::stopped);
  CHECK(stopped.steps == std::vector<int64_t>{3, 4});
  REQUIRE(stopped.checkpoints.size() == 1);
  CHECK(read_text_file(stopped.checkpoints.at(4) / "dccf.safetensors") ==
        read_text_file(passing.checkpoints.at(4) / "dccf.safetensors"));
}

TEST_CASE("dccf job: failures are classified") {
  TemporaryFolder folder;
  const JobRequest good = request_in(folder.path());
  const auto cause_of = [&](const JobRequest& request) {
    RecordingHost host;
    try {
      run_in(folder.path(), "bad", request, host, run_dccf);
    } catch (const JobFailure& failure) {
      return failure.cause();
    }
    return FailureCause::internal;
  };
  JobRequest bad = good;
  bad.inputs.clear();
  CHECK(cause_of(bad) == FailureCause::bad_input);
  bad = good;
  bad.recipe["temperature"] = 0;
  CHECK(cause_of(bad) == FailureCause::bad_input);
  bad = good;
  bad.recipe["learningRate"] = "fast";
  CHECK(cause_of(bad) == FailureCause::bad_input);
  RecordingHost aborting;
  aborting.abort_at = 2;
  CHECK_THROWS_AS(run_in(folder.path(), "aborted", good, aborting, run_dccf), JobAborted);
}

}  // namespace collimate
