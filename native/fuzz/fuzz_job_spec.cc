// Any text as a job spec, a `tune` recipe and a config.json: refused with a JobFailure, or read into what can be used.
#include <string>

#include "core/failure.h"
#include "core/job_session.h"
#include "core/jobs/tune_recipe.h"
#include "core/json.h"
#include "core/model/decoder_config.h"

namespace {

using namespace collimate;

// What run_attempt turns into a failure of the job: see core/run_job.cc.
template <typename Read>
void refused_or_read(const Read& read) {
  try {
    read();
  } catch (const JobFailure&) {
  } catch (const Json::exception&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  refused_or_read([&] {
    const DecoderConfig config = DecoderConfig::parse(text, "config.json");
    if (config.rope_inverse_frequency().size() != static_cast<size_t>(config.head_dim / 2)) __builtin_trap();
    DecoderConfig::parse(config.to_text(), "again");
  });
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return 0;
  refused_or_read([&] { job_spec_from_json(json); });
  refused_or_read([&] {
    if (json.is_object() && json.contains("gang")) gang_from_json(json["gang"]);
  });
  refused_or_read([&] { TuneRecipe::parse(json); });
  return 0;
}
