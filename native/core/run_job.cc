// Dispatch by kind, and the one place where any exception of a job becomes a JobFailure.
#include <filesystem>
#include <new>
#include <system_error>

#include "core/atomic_file.h"
#include "core/failure.h"
#include "core/job.h"

namespace collimate {
namespace {

JobOutcome dispatch(JobContext& context) {
  const std::string& kind = context.spec().kind;
  if (kind == "dccf") return run_dccf(context);
  if (kind == "rqvae") return run_rqvae(context);
  if (kind == "codebooks") return run_codebooks(context);
  if (kind == "embed_text") return run_embed_text(context);
  if (kind == "align_codes") return run_align_codes(context);
  if (kind == "tune") return run_tune(context);
  if (kind == "rank") return run_rank(context);
  if (kind == "dense") return run_dense(context);
  if (kind == "rank_dense") return run_rank_dense(context);
  if (kind == "merge") return run_merge(context);
  if (kind == "logits") return run_logits(context);
  fail_bad_input("\"" + kind +
                 "\" is not a native job kind; expected dccf, embed_text, rqvae, codebooks, align_codes, tune, rank, "
                 "dense, rank_dense, merge or logits");
}

void check_spec(const JobContext& context) {
  const JobSpec& spec = context.spec();
  if (!spec.recipe.is_object()) fail_bad_input("the recipe of job " + spec.kind + " is not an object");
  if (context.world() > 1 && !spec.is_laned()) {
    fail_bad_input("job " + spec.kind + " was given a gang of " + std::to_string(context.world()) +
                   "; expected one worker, since only tune and dense are shared between ranks");
  }
  if (spec.threads < 1) fail_bad_input("threads is " + std::to_string(spec.threads) + "; expected at least 1");
  if (spec.checkpoint_interval_steps < 0) {
    fail_bad_input("checkpointIntervalSteps is " + std::to_string(spec.checkpoint_interval_steps) +
                   "; expected 0 (only when asked) or more");
  }
}

// What the checkpoint says that it holds; one that is malformed is told by the job, which reads it with care.
int64_t resume_step(const JobSpec& spec) {
  if (!spec.resume_dir || !std::filesystem::exists(*spec.resume_dir / "state.json")) return 0;
  const Json state = Json::parse(read_text_file(*spec.resume_dir / "state.json"), nullptr, /*allow_exceptions=*/false);
  const bool counted = state.is_object() && state.contains("step") && state["step"].is_number_integer();
  return counted ? state["step"].get<int64_t>() : 0;
}

// Kinds in a gang of one for good are ready from the start; those in lanes say it for every gang themselves.
void tell_ready(JobContext& context) {
  if (context.spec().is_laned()) return;
  const int64_t step = resume_step(context.spec());
  context.host().progress().step.store(step);
  context.host().progress().enter(JobPhase::computing);
  context.host().on_ready(step);
}

bool is_store_error(const std::error_code& code) {
  for (const std::errc error : {std::errc::no_space_on_device, std::errc::read_only_file_system, std::errc::io_error,
                                std::errc::too_many_files_open, std::errc::permission_denied}) {
    if (code == error) return true;
  }
  return false;
}

}  // namespace

JobOutcome run_job(JobContext& context) {
  prepare_compute_thread();
  try {
    check_spec(context);
    tell_ready(context);
    JobOutcome outcome = dispatch(context);
    context.finish_checkpoints();
    return outcome;
  } catch (const JobAborted&) {
    throw;
  } catch (const JobFailure& failure) {
    // An abort closes the collective too, which then reports its peers as lost.
    if (failure.cause() == FailureCause::peer_lost && context.host().aborted()) throw JobAborted();
    throw;
  } catch (const std::bad_alloc&) {
    throw JobFailure(FailureCause::out_of_memory,
                     "job " + context.spec().kind +
                         " ran out of memory; use a larger machine, or lower what it keeps at once (tune: sequences a "
                         "lane; dccf: contrastRowsMax; rank: beams)");
  } catch (const Json::exception& error) {
    throw JobFailure(FailureCause::bad_input,
                     "the recipe or a JSON input of job " + context.spec().kind + " is malformed: " + error.what());
  } catch (const std::system_error& error) {
    const bool store = is_store_error(error.code());
    throw JobFailure(store ? FailureCause::store_unavailable : FailureCause::internal, error.what());
  } catch (const std::exception& error) {
    throw JobFailure(FailureCause::internal, error.what());
  }
}

}  // namespace collimate
