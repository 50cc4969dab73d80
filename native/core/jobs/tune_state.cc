// Checkpoints of `tune`, and the view that ranks compare.
#include "core/jobs/tune_state.h"

#include <algorithm>
#include <memory>
#include <string>

#include "core/atomic_file.h"
#include "core/failure.h"
#include "core/json.h"
#include "core/safetensors.h"

namespace collimate {
namespace {

const char* const kTrainingFile = "training.safetensors";
const char* const kStateFile = "state.json";

}  // namespace

ReplicatedState TuneState::replicated() {
  optimizer.to_host();
  ReplicatedState view{.step = step, .curve = losses, .parts = {}};
  for (int number = 0; number < static_cast<int>(parameters.all().size()); ++number) {
    const Parameter& parameter = parameters.at(number);
    if (parameter.train_rows == 0) continue;
    view.parts.emplace_back(parameters.data(number) + parameter.train_first_row * parameter.row_elements(),
                            static_cast<size_t>(parameter.trained_elements()));
  }
  view.parts.emplace_back(optimizer.first_moment());
  view.parts.emplace_back(optimizer.second_moment());
  return view;
}

std::function<void(const std::filesystem::path&)> TuneState::snapshot() {
  struct Snapshot {
    std::vector<float> parameters, first_moment, second_moment, losses;
    int64_t step;
  };
  optimizer.to_host();
  auto snapshot = std::make_shared<Snapshot>(
      Snapshot{gather_trained(parameters), optimizer.first_moment(), optimizer.second_moment(), losses, step});
  return [snapshot](const std::filesystem::path& folder) {
    const auto elements = static_cast<int64_t>(snapshot->parameters.size());
    SafetensorsWriter writer;
    writer.add_f32("parameters", {elements}, snapshot->parameters);
    writer.add_f32("first_moment", {elements}, snapshot->first_moment);
    writer.add_f32("second_moment", {elements}, snapshot->second_moment);
    writer.add_f32("loss", {snapshot->step}, snapshot->losses);
    writer.write(folder / kTrainingFile);
    write_text_atomically(folder / kStateFile, Json{{"step", snapshot->step}}.dump() + "\n");
  };
}

void TuneState::resume(const std::filesystem::path& folder, int64_t steps) {
  const Json state = Json::parse(read_text_file(folder / kStateFile), nullptr, /*allow_exceptions=*/false);
  if (!state.is_object() || !state.contains("step") || !state.at("step").is_number_integer()) {
    throw JobFailure(FailureCause::corrupt_artifact, "checkpoint state.json: expected {\"step\": n}, got " +
                                                         state.dump() + "; resume from an earlier one");
  }
  const auto saved = state.at("step").get<int64_t>();
  if (saved < 0 || saved > steps) {
    throw JobFailure(FailureCause::corrupt_artifact, "checkpoint: expected a step of 0.." + std::to_string(steps) +
                                                         ", got " + std::to_string(saved) +
                                                         "; resume from an earlier one");
  }
  const SafetensorsFile file = SafetensorsFile::open(folder / kTrainingFile);
  const std::vector<int64_t> shape{parameters.trained_elements()};
  scatter_trained(parameters, file.f32("parameters", shape));
  const auto first = file.f32("first_moment", shape), second = file.f32("second_moment", shape);
  std::copy(first.begin(), first.end(), optimizer.first_moment().begin());
  std::copy(second.begin(), second.end(), optimizer.second_moment().begin());
  const auto curve = file.f32("loss", {saved});
  optimizer.to_backend();
  losses.assign(curve.begin(), curve.end());
  step = saved;
}

}  // namespace collimate
