// Runs one job function against a host that records what it hears and can ask for things at chosen steps.
#pragma once

#include <doctest/doctest.h>

#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "core/atomic_file.h"
#include "core/job.h"
#include "test/temporary_folder.h"

namespace collimate {

class RecordingHost : public JobHost {
 public:
  std::vector<int64_t> steps;
  int64_t steps_total = 0;
  std::map<std::string, double> metrics;  // of the last step
  std::map<int64_t, std::filesystem::path> checkpoints;
  std::optional<int64_t> stop_at, abort_at;  // after this many calls of on_step

  void on_step(int64_t step, int64_t total, const std::map<std::string, double>& values) override {
    steps.push_back(step);
    steps_total = total;
    metrics = values;
  }
  void on_log(const char*, const std::string&) override {}
  void on_checkpoint(int64_t step, const std::filesystem::path& folder, double) override {
    const std::lock_guard lock(mutex_);
    checkpoints[step] = folder;
  }
  uint32_t take_control() override {
    return stop_at && static_cast<int64_t>(steps.size()) >= *stop_at ? kControlStop : kControlNone;
  }
  bool aborted() override { return abort_at && static_cast<int64_t>(steps.size()) >= *abort_at; }

 private:
  std::mutex mutex_;
};

struct JobRequest {
  std::string kind;
  Json recipe;
  std::map<std::string, std::filesystem::path> inputs;
  std::optional<std::filesystem::path> resume_dir;
  int64_t checkpoint_interval_steps = 0;
  int64_t stop_step = 0;
  int threads = 1;
};

// Output and scratch folders are made below `folder` under `name`.
inline JobOutcome run_in(const std::filesystem::path& folder, const std::string& name, const JobRequest& request,
                         JobHost& host, JobOutcome (*job)(JobContext&)) {
  const JobSpec spec{.kind = request.kind,
                     .recipe = request.recipe,
                     .inputs = request.inputs,
                     .output_dir = folder / name / "out",
                     .scratch_dir = folder / name / "scratch",
                     .resume_dir = request.resume_dir,
                     .checkpoint_interval_steps = request.checkpoint_interval_steps,
                     .stop_step = request.stop_step,
                     .threads = request.threads};
  std::filesystem::create_directories(spec.output_dir);
  std::filesystem::create_directories(spec.scratch_dir);
  JobContext context(spec, host, nullptr);
  return job(context);
}

inline std::string bytes_of(const JobOutcome& outcome, const std::string& output) {
  REQUIRE(outcome.outputs.count(output) == 1);
  return read_text_file(outcome.outputs.at(output));
}

}  // namespace collimate
