// Attempts: JSON in, outcome out.
#include "core/job_session.h"

#include <utility>

#include "core/failure.h"

namespace collimate {
namespace {

// Ranks wait for the slowest at every step. A peer that is gone is found by its closed stream or by keep-alive probes
// within seconds; this is for one that hangs, and must stay above the time that a slow rank needs for a step.
constexpr int kSilenceTimeoutMs = 300'000;

const Json& field(const Json& json, const char* name) {
  if (!json.is_object() || !json.contains(name))
    fail_bad_input(std::string("the job lacks the field \"") + name + "\"");
  return json[name];
}

std::string text_field(const Json& json, const char* name) {
  const Json& value = field(json, name);
  if (!value.is_string()) fail_bad_input(std::string("the job's field \"") + name + "\" is not a string");
  return value.get<std::string>();
}

int64_t count_field(const Json& json, const char* name, int64_t otherwise) {
  if (!json.contains(name) || json[name].is_null()) return otherwise;
  if (!json[name].is_number_integer() || json[name].get<int64_t>() < 0) {
    fail_bad_input(std::string("the job's field \"") + name + "\" is " + json[name].dump() +
                   "; expected a whole number from 0");
  }
  return json[name].get<int64_t>();
}

bool flag_field(const Json& json, const char* name) {
  if (!json.contains(name) || json[name].is_null()) return false;
  if (!json[name].is_boolean()) {
    fail_bad_input(std::string("the job's field \"") + name + "\" is " + json[name].dump() +
                   "; expected true or false");
  }
  return json[name].get<bool>();
}

std::filesystem::path folder_field(const Json& json, const char* name) {
  const std::filesystem::path folder = text_field(json, name);
  if (!std::filesystem::is_directory(folder)) {
    fail_bad_input(std::string("the job's ") + name + " is \"" + folder.string() + "\"; expected a folder that exists");
  }
  return folder;
}

}  // namespace

JobSpec job_spec_from_json(const Json& json) {
  JobSpec spec;
  spec.kind = text_field(json, "kind");
  spec.recipe = field(json, "recipe");
  const Json& inputs = field(json, "inputs");
  if (!inputs.is_object()) fail_bad_input("the job's inputs are not an object of paths by name");
  for (const auto& [name, path] : inputs.items()) {
    if (!path.is_string()) fail_bad_input("the path of input \"" + name + "\" is not a string");
    spec.inputs[name] = path.get<std::string>();
  }
  spec.output_dir = folder_field(json, "outputDir");
  spec.scratch_dir = folder_field(json, "scratchDir");
  if (json.contains("resumeDir") && !json["resumeDir"].is_null()) spec.resume_dir = folder_field(json, "resumeDir");
  spec.checkpoint_interval_steps = count_field(json, "checkpointIntervalSteps", 0);
  spec.stop_step = count_field(json, "stopStep", 0);
  spec.threads = static_cast<int>(count_field(json, "threads", 1));
  if (spec.threads < 1 || spec.threads > 1024) {
    fail_bad_input("the job's threads is " + std::to_string(spec.threads) + "; expected 1 to 1024");
  }
  spec.elastic = flag_field(json, "elastic");
  spec.join_survivors = flag_field(json, "joinSurvivors");
  const int64_t saving = count_field(json, "memorySaving", 0);
  if (saving > 2) fail_bad_input("the job's memorySaving is " + std::to_string(saving) + "; expected 0, 1 or 2");
  spec.memory_saving = static_cast<int>(saving);
  return spec;
}

std::optional<TcpGang> gang_from_json(const Json& json) {
  if (json.is_null()) return std::nullopt;
  TcpGang gang;
  gang.silence_timeout_ms = kSilenceTimeoutMs;
  gang.generation = text_field(json, "generation");
  gang.rank = static_cast<int>(count_field(json, "rank", 0));
  const Json& addresses = field(json, "addresses");
  if (!addresses.is_array()) fail_bad_input("the gang's addresses are not a list");
  for (const Json& address : addresses) {
    if (!address.is_string()) fail_bad_input("an address of the gang is not a string");
    gang.addresses.push_back(address.get<std::string>());
  }
  const int64_t world = count_field(json, "world", static_cast<int64_t>(gang.addresses.size()));
  if (world != static_cast<int64_t>(gang.addresses.size())) {
    fail_bad_input("the gang has " + std::to_string(gang.addresses.size()) + " addresses for a world of " +
                   std::to_string(world));
  }
  if (world == 1) return std::nullopt;
  return gang;
}

JobOutcome run_attempt(const JobSpec& spec, JobHost& host, JobControl& control, const std::optional<TcpGang>& gang,
                       std::optional<TcpListener> listener) {
  if (gang && !listener) {
    fail_bad_input("a gang of " + std::to_string(gang->addresses.size()) + " ranks needs a listener");
  }
  GangMember member(host, control);
  member.start({.gang = gang, .listener = std::move(listener)});
  JobContext context(spec, host, member);
  return run_job(context);
}

Json job_outcome_to_json(const JobOutcome& outcome) {
  Json outputs = Json::object();
  for (const auto& [name, path] : outcome.outputs) outputs[name] = path.string();
  return {{"kind", outcome.kind == JobOutcome::Kind::finished ? "finished" : "stopped"},
          {"step", outcome.step},
          {"outputs", outputs},
          {"summary", outcome.summary}};
}

}  // namespace collimate
