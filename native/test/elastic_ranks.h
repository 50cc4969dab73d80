// Ranks of the tune job that go from gang to gang, over real TCP, each as a host runs it.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "adapter_runs.h"
#include "core/failure.h"
#include "core/job_session.h"

namespace collimate {

struct ParkedEvent {
  int64_t step = 0;
  ParkReason reason = ParkReason::peer_lost;
  std::string message;
};

class ElasticHost : public TuneHost {
 public:
  JobControl control;
  std::function<void(int64_t step)> at_step, at_ready;  // called on the job's thread
  std::vector<int64_t> ready;

  void on_step(int64_t step, int64_t total, const std::map<std::string, double>& metrics) override {
    TuneHost::on_step(step, total, metrics);
    if (at_step) at_step(step);
  }
  void on_ready(int64_t step) override {
    ready.push_back(step);
    if (at_ready) at_ready(step);
  }
  void on_parked(int64_t step, ParkReason reason, const std::string& message) override {
    const std::lock_guard lock(mutex_);
    parked_.push_back({step, reason, message});
    changed_.notify_all();
  }
  uint32_t take_control() override { return control.take(); }
  bool aborted() override { return control.aborted(); }

  void tell_ended() {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }
  // Nothing when the job ended instead.
  std::optional<ParkedEvent> wait_parked() {
    std::unique_lock lock(mutex_);
    const bool told = changed_.wait_for(lock, std::chrono::seconds(60), [&] { return ended_ || !parked_.empty(); });
    if (!told) throw std::runtime_error("the rank neither parked nor ended within 60 s");
    if (parked_.empty()) return std::nullopt;
    const ParkedEvent event = parked_.front();
    parked_.pop_front();
    return event;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<ParkedEvent> parked_;
  bool ended_ = false;
};

class ElasticRank {
 public:
  struct Options {
    ToyRun run;
    std::filesystem::path folder;
    bool join_survivors = false;
    int memory_saving = 0;
  };
  explicit ElasticRank(Options options) : options_(std::move(options)) {}
  ~ElasticRank() { kill(); }

  ElasticHost host;

  // Starts the job, or names its next gang.
  void enter(NextGang next) {
    if (thread_.joinable()) {
      host.control.rejoin(std::move(next));
      return;
    }
    host.control.allow_regrouping();
    thread_ = std::thread([this, next = std::move(next)]() mutable { run(std::move(next)); });
  }
  // As the death of its process: the thread is gone, and its sockets are closed.
  void kill() {
    host.control.abort();
    if (thread_.joinable()) thread_.join();
  }
  ParkedEvent parked() {
    const std::optional<ParkedEvent> event = host.wait_parked();
    if (event) return *event;
    thread_.join();
    if (error_) std::rethrow_exception(error_);
    throw std::runtime_error("the rank finished; expected it to park");
  }
  // Its output bytes once it has finished; rethrows what it ended with.
  std::string bytes() {
    thread_.join();
    if (error_) std::rethrow_exception(error_);
    CHECK(outcome_.kind == JobOutcome::Kind::finished);
    return output_bytes(options_.folder);
  }

 private:
  void run(NextGang next) {
    try {
      std::filesystem::create_directories(options_.folder / "out");
      std::filesystem::create_directories(options_.folder / "scratch");
      const JobSpec spec{.kind = options_.run.kind,
                         .recipe = options_.run.recipe,
                         .inputs = options_.run.inputs,
                         .output_dir = options_.folder / "out",
                         .scratch_dir = options_.folder / "scratch",
                         .resume_dir = options_.run.resume,
                         .checkpoint_interval_steps = options_.run.checkpoint_interval,
                         .threads = options_.run.threads,
                         .elastic = true,
                         .join_survivors = options_.join_survivors,
                         .memory_saving = options_.memory_saving};
      outcome_ = run_attempt(spec, host, host.control, next.gang, std::move(next.listener));
    } catch (...) {
      error_ = std::current_exception();
    }
    host.tell_ended();
  }

  Options options_;
  std::thread thread_;
  JobOutcome outcome_;
  std::exception_ptr error_;
};

// The gang's members in rank order; one alone gets no gang.
inline std::vector<NextGang> make_gang(int world, const std::string& generation, int connect_timeout_ms = 20000) {
  std::vector<NextGang> members(static_cast<size_t>(world));
  if (world == 1) return members;
  TcpGang gang{.generation = generation, .connect_timeout_ms = connect_timeout_ms, .silence_timeout_ms = 30000};
  for (NextGang& member : members) {
    member.listener.emplace("127.0.0.1");
    gang.addresses.push_back(member.listener->address());
  }
  for (int rank = 0; rank < world; ++rank) {
    members[static_cast<size_t>(rank)].gang = gang;
    members[static_cast<size_t>(rank)].gang->rank = rank;
  }
  return members;
}

inline void form_gang(const std::vector<ElasticRank*>& ranks, const std::string& generation) {
  std::vector<NextGang> members = make_gang(static_cast<int>(ranks.size()), generation);
  for (size_t rank = 0; rank < ranks.size(); ++rank) ranks[rank]->enter(std::move(members[rank]));
}

constexpr int64_t kElasticSteps = 8;

// A run, its folder, and the bytes that it must end with.
struct Expected {
  TemporaryFolder folder;
  ToyRun run;
  std::string bytes;

  explicit Expected(bool lora = false) {
    if (!lora) write_toy_inputs(folder.path());
    run = lora ? lora_run(folder.path(), kElasticSteps) : toy_run(folder.path(), kElasticSteps);
    TuneHost host;
    run_rank_of(run, folder.path() / "undisturbed", host, nullptr);
    bytes = output_bytes(folder.path() / "undisturbed");
  }
  std::unique_ptr<ElasticRank> rank(const std::string& name, bool join_survivors = false) const {
    return std::make_unique<ElasticRank>(
        ElasticRank::Options{.run = run, .folder = folder.path() / name, .join_survivors = join_survivors});
  }
};

// Every step at most once, in order.
inline bool repeats_nothing(const ElasticHost& host) {
  return std::adjacent_find(host.steps.begin(), host.steps.end(), std::greater_equal<>()) == host.steps.end();
}

}  // namespace collimate
