// Memory of lanes: recompute comes before fewer lanes at once, and neither moves a byte of a tuned model.
#include <doctest/doctest.h>

#include <cstdlib>
#include <string>

#include "core/failure.h"
#include "core/jobs/lane_plan.h"
#include "tune_runs.h"

namespace collimate {
namespace {

LanePlan plan(int64_t available, Recompute setting = Recompute::automatic, int lanes = 4) {
  return plan_lanes({.kept_bytes = 100, .recomputed_bytes = 10, .available_bytes = available, .lanes_wanted = lanes},
                    setting);
}

// Sets the variable for as long as it lives.
class Setting {
 public:
  explicit Setting(const char* value) { setenv("COLLIMATE_RECOMPUTE", value, 1); }
  ~Setting() { unsetenv("COLLIMATE_RECOMPUTE"); }
};

TEST_CASE("lane plan: activations are kept while they fit, then recomputed, then fewer lanes run at once") {
  CHECK_FALSE(plan(400).recompute);
  CHECK(plan(400).at_once == 4);
  CHECK(plan(399).recompute);
  CHECK(plan(399).at_once == 4);
  CHECK(plan(40).at_once == 4);
  CHECK(plan(39).recompute);
  CHECK(plan(39).at_once == 3);
  CHECK(plan(0).at_once == 1);
}

TEST_CASE("lane plan: the setting overrides recompute alone") {
  CHECK(plan(4000, Recompute::on).recompute);
  CHECK(plan(4000, Recompute::on).at_once == 4);
  CHECK_FALSE(plan(250, Recompute::off).recompute);
  CHECK(plan(250, Recompute::off).at_once == 2);
}

TEST_CASE("lane plan: a setting that is none is refused") {
  CHECK(recompute_setting() == Recompute::automatic);
  const Setting setting("yes");
  CHECK_THROWS_WITH_AS(recompute_setting(), doctest::Contains("COLLIMATE_RECOMPUTE is \"yes\"; expected \"auto\""),
                       JobFailure);
}

class LoggingHost : public TuneHost {
 public:
  void on_log(const char*, const std::string& message) override { log += message; }
  std::string log;
};

TEST_CASE("tune: recompute does not change the bytes, and is told") {
  const TemporaryFolder folder;
  write_toy_inputs(folder.path());
  ToyRun run = toy_run(folder.path(), 6);
  LoggingHost host;
  {
    const Setting setting("off");
    run_rank_of(run, folder.path() / "kept", host, nullptr);
  }
  CHECK(host.log.find("recomputed") == std::string::npos);
  const Setting setting("on");
  for (const int threads : {1, 3}) {
    run.threads = threads;
    const auto to = folder.path() / std::to_string(threads);
    run_rank_of(run, to, host, nullptr);
    CHECK(output_bytes(to) == output_bytes(folder.path() / "kept"));
  }
  CHECK(host.log.find("activations are recomputed") != std::string::npos);
}

}  // namespace
}  // namespace collimate
