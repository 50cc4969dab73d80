// The `merge` job: a finished model as a plain Hugging Face directory's config.json and model.safetensors.
//
// 1. Weights come from load_model, so they are to the bit the ones that `rank` decodes with.
// 2. The config names fp32, the type of the weights, whatever the base was stored in: readers take the type from it.
#include "core/atomic_file.h"
#include "core/job.h"
#include "core/model/parameters.h"

namespace collimate {

JobOutcome run_merge(JobContext& context) {
  const Parameters parameters = load_model(context.input("model"), context.spec().inputs);
  context.throw_if_aborted();
  const std::filesystem::path& folder = context.spec().output_dir;
  const auto config_path = folder / "config.json", weights_path = folder / "model.safetensors";
  Json config = Json::parse(parameters.config().to_text());
  config.erase("dtype");
  config["torch_dtype"] = "float32";  // the spelling that every version of transformers reads
  write_text_atomically(config_path, config.dump(2) + "\n");
  write_merged(parameters, weights_path);
  return {.step = 1,
          .outputs = {{"config", config_path}, {"weights", weights_path}},
          .summary = {{"parameters", static_cast<int64_t>(parameters.values().size())},
                      {"vocabularySize", parameters.config().vocabulary}}};
}

}  // namespace collimate
