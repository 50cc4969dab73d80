// The job host: checkpoints, control flags, specs, failure mapping.
#include <doctest/doctest.h>

#include <future>
#include <mutex>
#include <thread>

#include "core/atomic_file.h"
#include "core/failure.h"
#include "core/job.h"
#include "core/job_session.h"
#include "core/numerics_class.h"
#include "test/temporary_folder.h"

namespace collimate {
namespace {

class RecordingHost : public JobHost {
 public:
  void on_step(int64_t, int64_t, const std::map<std::string, double>&) override {}
  void on_log(const char*, const std::string&) override {}
  void on_checkpoint(int64_t step, const std::filesystem::path& folder, double) override {
    const std::lock_guard lock(mutex);
    checkpoints.emplace_back(step, folder);
  }
  uint32_t take_control() override { return control.take(); }
  bool aborted() override { return control.aborted(); }

  JobControl control;
  std::mutex mutex;
  std::vector<std::pair<int64_t, std::filesystem::path>> checkpoints;
};

struct Fixture {
  TemporaryFolder folder;
  RecordingHost host;
  JobSpec spec;
  Fixture() {
    std::filesystem::create_directory(folder.path() / "out");
    std::filesystem::create_directory(folder.path() / "scratch");
    spec = {.kind = "none",
            .recipe = Json::object(),
            .output_dir = folder.path() / "out",
            .scratch_dir = folder.path() / "scratch"};
  }
};

FailureCause cause_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const JobFailure& failure) {
    return failure.cause();
  }
  throw std::runtime_error("expected a JobFailure");
}

}  // namespace

TEST_CASE("job: checkpoints are whole folders, one at a time, in order") {
  Fixture f;
  {
    JobContext context(f.spec, f.host, nullptr);
    std::promise<void> gate;
    auto opened = gate.get_future().share();
    context.write_checkpoint(1, [opened](const std::filesystem::path& target) {
      opened.wait();
      write_text_atomically(target / "state.json", "1");
    });
    CHECK(f.host.checkpoints.empty());
    CHECK(!std::filesystem::exists(f.folder.path() / "scratch" / "checkpoint-1"));
    gate.set_value();
    context.write_checkpoint(2, [&](const std::filesystem::path& target) {
      if (f.host.checkpoints.size() != 1) throw std::runtime_error("the first checkpoint was not finished");
      write_text_atomically(target / "state.json", "2");
    });
  }  // the destructor waits
  REQUIRE(f.host.checkpoints.size() == 2);
  CHECK(f.host.checkpoints[1].first == 2);
  CHECK(read_text_file(f.host.checkpoints[1].second / "state.json") == "2");
  CHECK(f.host.checkpoints[1].second.filename() == "checkpoint-2");
}

TEST_CASE("job: a failed checkpoint surfaces at the next call and never reaches the host") {
  Fixture f;
  JobContext context(f.spec, f.host, nullptr);
  context.write_checkpoint(1, [](const std::filesystem::path& target) {
    write_text_atomically(target / "half", "x");
    throw JobFailure(FailureCause::store_unavailable, "no space");
  });
  CHECK(cause_of([&] { context.finish_checkpoints(); }) == FailureCause::store_unavailable);
  CHECK(f.host.checkpoints.empty());
  CHECK(std::filesystem::is_empty(f.folder.path() / "scratch"));
  context.finish_checkpoints();  // thrown once
}

TEST_CASE("job: control flags, missing inputs and aborts") {
  Fixture f;
  f.host.control.request(kControlCheckpoint | kControlStop);
  CHECK(f.host.take_control() == (kControlCheckpoint | kControlStop));
  CHECK(f.host.take_control() == kControlStop);
  f.spec.inputs["graph"] = "g";
  f.spec.checkpoint_interval_steps = 5;
  JobContext context(f.spec, f.host, nullptr);
  CHECK(context.input("graph") == "g");
  CHECK(cause_of([&] { context.input("codes"); }) == FailureCause::bad_input);
  CHECK(context.checkpoint_due(10));
  CHECK(!context.checkpoint_due(11));
  CHECK(context.control_due(0) == kControlNone);
  f.spec.stop_step = 7;
  JobContext stopping(f.spec, f.host, nullptr);
  CHECK(stopping.control_due(7) == kControlStop);
  CHECK(stopping.control_due(6) == kControlNone);
  context.throw_if_aborted();
  f.host.control.abort();
  CHECK_THROWS_AS(context.throw_if_aborted(), JobAborted);
}

TEST_CASE("job: requests to park and to regroup are for jobs that can, and end when the job parks") {
  JobControl control;
  control.park();  // cannot regroup
  CHECK(!control.park_requested());
  control.allow_regrouping();
  control.park();
  CHECK(control.park_requested());
  CHECK(control.cancelled().load());
  control.request(kControlRegroup | kControlStop);
  CHECK(control.take() == (kControlRegroup | kControlStop));
  CHECK(cause_of([&] { control.rejoin({}); }) == FailureCause::bad_input);
  control.begin_parking();
  CHECK(!control.park_requested());
  CHECK(!control.cancelled().load());
  CHECK(control.take() == kControlStop);
  control.park();  // parked already
  control.request(kControlRegroup);
  control.rejoin({});
  CHECK(!control.park_requested());
  CHECK(control.take() == kControlStop);
  CHECK(cause_of([&] { control.rejoin({}); }) == FailureCause::bad_input);
  CHECK(control.wait_for_gang().has_value());
  control.begin_parking();
  control.abort();
  CHECK(!control.wait_for_gang());
  CHECK(control.cancelled().load());
}

TEST_CASE("job: unknown kinds and malformed specs are bad input") {
  Fixture f;
  JobContext context(f.spec, f.host, nullptr);
  CHECK(cause_of([&] { run_job(context); }) == FailureCause::bad_input);
  const Json good = {{"kind", "tune"},
                     {"recipe", Json::object()},
                     {"inputs", {{"a", "/a"}}},
                     {"outputDir", f.spec.output_dir.string()},
                     {"scratchDir", f.spec.scratch_dir.string()},
                     {"threads", 2}};
  CHECK(job_spec_from_json(good).inputs.at("a") == "/a");
  CHECK(job_spec_from_json(good).threads == 2);
  const auto without = [&](const char* field, const Json& value) {
    Json bad = good;
    bad[field] = value;
    return cause_of([&] { job_spec_from_json(bad); });
  };
  CHECK(without("kind", 1) == FailureCause::bad_input);
  CHECK(without("inputs", Json::array()) == FailureCause::bad_input);
  CHECK(without("outputDir", "/no/such/folder") == FailureCause::bad_input);
  CHECK(without("threads", 0) == FailureCause::bad_input);
  CHECK(without("checkpointIntervalSteps", -1) == FailureCause::bad_input);
  CHECK(without("stopStep", -1) == FailureCause::bad_input);
  CHECK(without("elastic", 1) == FailureCause::bad_input);
  CHECK(without("memorySaving", 3) == FailureCause::bad_input);
  Json elastic = good;
  elastic["elastic"] = true;
  elastic["memorySaving"] = 2;
  CHECK(job_spec_from_json(elastic).can_regroup());
  CHECK(job_spec_from_json(elastic).memory_saving == 2);
  CHECK(!job_spec_from_json(good).can_regroup());
  elastic["kind"] = "dccf";  // which no gang shares
  CHECK(!job_spec_from_json(elastic).can_regroup());
  CHECK(!gang_from_json(Json()));
  CHECK(!gang_from_json({{"generation", "g"}, {"rank", 0}, {"addresses", {"127.0.0.1:1"}}}));
  CHECK(cause_of([&] {
          gang_from_json({{"generation", "g"}, {"rank", 0}, {"world", 3}, {"addresses", {"a:1", "b:1"}}});
        }) == FailureCause::bad_input);
}

TEST_CASE("job: an attempt aborted while its gang forms ends as aborted, at once") {
  Fixture f;
  TcpListener listener("127.0.0.1");
  TcpListener absent("127.0.0.1");
  const TcpGang gang{.generation = "g", .rank = 0, .addresses = {listener.address(), absent.address()}};
  std::thread aborter([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    f.host.control.abort();
  });
  const auto start = std::chrono::steady_clock::now();
  CHECK_THROWS_AS(run_attempt(f.spec, f.host, f.host.control, gang, std::move(listener)), JobAborted);
  aborter.join();
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(2));
}

TEST_CASE("numerics class: stable, and named after the instruction set") {
  const std::string name = numerics_class();
  CHECK(name == numerics_class());
  CHECK((name.starts_with("cpu-avx2-") || name.starts_with("cpu-avx512-")));
  CHECK(name.substr(name.rfind('-') + 1).size() == 12);
}

}  // namespace collimate
