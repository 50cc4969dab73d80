// A job as the engine sees it: resolved recipe, input files, an output folder, and a host that hears of progress.
//
// 1. A job's outputs and checkpoints are functions of (kind, recipe, inputs, numerics class) alone; nothing in the
//    context below (threads, rank, world, resume point, checkpoint interval) may change one byte of them.
// 2. A job reads and writes only through its context.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "collective/transport.h"
#include "core/gang_member.h"
#include "core/job_control.h"
#include "core/job_progress.h"
#include "core/json.h"
#include "core/ops_backend.h"
#include "core/pool.h"

namespace collimate {

// Implemented by the N-API binding and by collimate-native. Called from the job's threads.
class JobHost {
 public:
  virtual ~JobHost() = default;
  virtual void on_step(int64_t step, int64_t steps_total, const std::map<std::string, double>& metrics) = 0;
  virtual void on_log(const char* level, const std::string& message) = 0;
  // `folder` holds a complete checkpoint; the host owns it from here. Called from the checkpoint thread.
  virtual void on_checkpoint(int64_t step, const std::filesystem::path& folder, double seconds) = 0;
  // Flags asked for since the last call; reading clears kControlCheckpoint, the others stay (see JobControl).
  virtual uint32_t take_control() = 0;
  // True once the attempt is abandoned: the job throws JobAborted at its next step, without a checkpoint.
  virtual bool aborted() = 0;
  // The state is in place and the gang stands; `step` updates are applied. Once for every gang, before its first step.
  virtual void on_ready(int64_t /*step*/) {}
  // The job left its gang with `step` updates applied (-1: without state) and waits for JobControl::rejoin. Heard only
  // where JobControl::allow_regrouping was called.
  virtual void on_parked(int64_t /*step*/, ParkReason /*reason*/, const std::string& /*message*/) {}
  JobProgress& progress() { return progress_; }

 private:
  JobProgress progress_;
};

class JobAborted : public std::exception {
 public:
  const char* what() const noexcept override { return "job aborted"; }
};

struct JobSpec {
  std::string kind;
  Json recipe;
  std::map<std::string, std::filesystem::path> inputs;
  std::filesystem::path output_dir;   // exists, empty
  std::filesystem::path scratch_dir;  // exists; checkpoints are written below it
  std::optional<std::filesystem::path> resume_dir;
  int64_t checkpoint_interval_steps = 0;  // 0: only when asked
  int64_t stop_step = 0;                  // the attempt ends with a checkpoint of this step; 0: at the job's end
  int threads = 1;
  bool elastic = false;         // parks instead of failing with peer_lost, where the kind can
  bool join_survivors = false;  // starts without state and takes it from the gang
  int memory_saving = 0;        // 1: recomputes activations whatever is free; 2: one lane at a time, too

  // Kinds that are trained in lanes: shared between ranks, and kept through changes of the gang.
  bool is_laned() const { return kind == "tune" || kind == "dense"; }
  bool can_regroup() const { return elastic && is_laned(); }
};

struct JobOutcome {
  enum class Kind { finished, stopped } kind = Kind::finished;
  int64_t step = 0;                                      // where it stopped
  std::map<std::string, std::filesystem::path> outputs;  // by output name, below output_dir
  Json summary = Json::object();                         // small numbers, deterministic
};

class JobContext {
 public:
  // In one gang for good; `transport` is null for a gang of one.
  JobContext(const JobSpec& spec, JobHost& host, Transport* transport);
  // In the member's gang, whichever it is.
  JobContext(const JobSpec& spec, JobHost& host, GangMember& member);
  ~JobContext();  // waits for a checkpoint in flight

  const Json& recipe() const { return spec_.recipe; }
  const JobSpec& spec() const { return spec_; }
  JobHost& host() { return host_; }
  Pool& pool() { return pool_; }
  // What decoders run on: the device in use, or the pool.
  OpsBackend& ops();
  Transport* transport() const { return member_ ? member_->transport() : transport_; }
  int rank() const { return transport() ? transport()->rank() : 0; }
  int world() const { return transport() ? transport()->world() : 1; }
  // Null where the job stays in the gang it has.
  GangMember* member() const { return member_ && member_->regroups() ? member_ : nullptr; }

  // Path of a required input; JobFailure(bad_input) naming it when absent.
  const std::filesystem::path& input(const std::string& name) const;
  bool has_input(const std::string& name) const { return spec_.inputs.count(name) != 0; }

  // Throws JobAborted when the host gave the attempt up.
  void throw_if_aborted();
  // Also JobFailure(peer_lost) when the host wants the job out of its gang.
  void throw_if_interrupted();
  bool checkpoint_due(int64_t step) const {
    return spec_.checkpoint_interval_steps > 0 && step % spec_.checkpoint_interval_steps == 0;
  }
  // kControlStop at the step at which the attempt is to end: known to every rank, so nobody has to tell.
  uint32_t control_due(int64_t step) const {
    return spec_.stop_step > 0 && step == spec_.stop_step ? kControlStop : kControlNone;
  }
  // Runs `write(folder)` on the checkpoint thread and then tells the host; waits first for an earlier one still being
  // written. `write` must own a snapshot of the state. Only rank 0 calls this. A failure of `write` is thrown by the
  // next call of write_checkpoint or finish_checkpoints.
  void write_checkpoint(int64_t step, std::function<void(const std::filesystem::path&)> write);
  void finish_checkpoints();

 private:
  struct CheckpointThread;
  JobSpec spec_;
  JobHost& host_;
  Transport* transport_ = nullptr;
  GangMember* member_ = nullptr;
  Pool pool_;
  std::unique_ptr<OpsBackend> ops_;
  std::unique_ptr<CheckpointThread> checkpoints_;
};

// Runs one job to its end. Throws JobFailure or JobAborted.
JobOutcome run_job(JobContext& context);

// The job kinds, one file each below core/jobs/.
JobOutcome run_dccf(JobContext& context);
JobOutcome run_rqvae(JobContext& context);
JobOutcome run_codebooks(JobContext& context);
JobOutcome run_align_codes(JobContext& context);
JobOutcome run_embed_text(JobContext& context);
JobOutcome run_tune(JobContext& context);
JobOutcome run_rank(JobContext& context);
JobOutcome run_dense(JobContext& context);
JobOutcome run_rank_dense(JobContext& context);
JobOutcome run_merge(JobContext& context);
JobOutcome run_logits(JobContext& context);

}  // namespace collimate
