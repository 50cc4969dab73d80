// The job's context: inputs, abort, and the checkpoint thread.
//
// 1. At most one checkpoint is being written; the next one waits for it.
// 2. The host hears only of folders that are complete and synced; a failed one is removed, and its error is thrown
//    at the next call into the checkpoint machinery.
#include "core/job.h"

#include <chrono>
#include <exception>
#include <thread>
#include <utility>

#include "core/accelerator.h"
#include "core/atomic_file.h"
#include "core/failure.h"

namespace collimate {

struct JobContext::CheckpointThread {
  std::thread thread;
  std::exception_ptr error;

  ~CheckpointThread() { wait(); }
  void wait() {
    if (thread.joinable()) thread.join();
  }
  void wait_and_rethrow() {
    wait();
    if (error) std::rethrow_exception(std::exchange(error, nullptr));
  }
};

JobContext::JobContext(const JobSpec& spec, JobHost& host, Transport* transport)
    : spec_(spec),
      host_(host),
      transport_(transport),
      pool_(spec.threads),
      checkpoints_(std::make_unique<CheckpointThread>()) {}

JobContext::JobContext(const JobSpec& spec, JobHost& host, GangMember& member) : JobContext(spec, host, nullptr) {
  member_ = &member;
}

JobContext::~JobContext() = default;

OpsBackend& JobContext::ops() {
  if (!ops_) ops_ = make_ops_backend(pool_);
  return *ops_;
}

const std::filesystem::path& JobContext::input(const std::string& name) const {
  const auto found = spec_.inputs.find(name);
  if (found != spec_.inputs.end()) return found->second;
  std::string present;
  for (const auto& [key, path] : spec_.inputs) present += (present.empty() ? "" : ", ") + key;
  fail_bad_input("job " + spec_.kind + " needs the input \"" + name + "\"; it was given " +
                 (present.empty() ? "none" : present));
}

void JobContext::throw_if_aborted() {
  if (host_.aborted()) throw JobAborted();
}

void JobContext::throw_if_interrupted() {
  throw_if_aborted();
  if (member() != nullptr && member()->park_requested()) {
    throw JobFailure(FailureCause::peer_lost, "the host took this rank out of its gang");
  }
}

namespace {

// In a folder that is renamed once whole, so that a crash leaves no half checkpoint under the final name.
std::filesystem::path write_folder(const std::filesystem::path& scratch, int64_t step,
                                   const std::function<void(const std::filesystem::path&)>& write) {
  const std::filesystem::path target = scratch / ("checkpoint-" + std::to_string(step));
  const std::filesystem::path partial = scratch / ("checkpoint-" + std::to_string(step) + ".partial");
  try {
    std::filesystem::remove_all(partial);
    std::filesystem::remove_all(target);
    std::filesystem::create_directories(partial);
    write(partial);
    sync_folder(partial);
    std::filesystem::rename(partial, target);
    sync_folder(scratch);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove_all(partial, ignored);
    throw;
  }
  return target;
}

}  // namespace

void JobContext::write_checkpoint(int64_t step, std::function<void(const std::filesystem::path&)> write) {
  checkpoints_->wait_and_rethrow();
  checkpoints_->thread = std::thread([this, step, write = std::move(write)] {
    try {
      const auto start = std::chrono::steady_clock::now();
      const std::filesystem::path folder = write_folder(spec_.scratch_dir, step, write);
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      host_.on_checkpoint(step, folder, seconds.count());
    } catch (...) {
      checkpoints_->error = std::current_exception();
    }
  });
}

void JobContext::finish_checkpoints() { checkpoints_->wait_and_rethrow(); }

}  // namespace collimate
