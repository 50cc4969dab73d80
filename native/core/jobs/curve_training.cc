#include "core/jobs/curve_training.h"

#include "core/atomic_file.h"
#include "core/failure.h"
#include "core/jobs/recipe_fields.h"
#include "core/safetensors.h"

namespace collimate {
namespace {

void write_checkpoint(JobContext& context, const CurveTraining& training) {
  const std::string file = std::string(training.name) + ".safetensors";
  const auto write = [state = *training.state, file](const std::filesystem::path& folder) {
    const int64_t size = static_cast<int64_t>(state.parameters.size());
    SafetensorsWriter writer;
    writer.add_f32("parameters", {size}, state.parameters);
    writer.add_f32("first_moment", {size}, state.first_moment);
    writer.add_f32("second_moment", {size}, state.second_moment);
    writer.add_f32("curve", {state.step}, state.curve);
    writer.write(folder / file);
    write_text_atomically(folder / "state.json", Json({{"step", state.step}}).dump() + "\n");
  };
  context.write_checkpoint(training.state->step, write);
}

}  // namespace

bool run_curve_training(JobContext& context, const CurveTraining& training) {
  while (training.state->step < training.steps) {
    context.throw_if_aborted();
    const std::map<std::string, double> metrics = training.run_step();
    const int64_t step = training.state->step;
    context.host().on_step(step, training.steps, metrics);
    const uint32_t control = context.host().take_control() | context.control_due(step);
    if (step == training.steps) break;
    const bool stops = (control & kControlStop) != 0;
    if (stops || (control & kControlCheckpoint) != 0 || context.checkpoint_due(step))
      write_checkpoint(context, training);
    if (stops) {
      context.finish_checkpoints();
      return false;
    }
  }
  context.finish_checkpoints();
  return true;
}

CurveState read_curve_checkpoint(const std::filesystem::path& folder, const char* name, const CurveShape& shape) {
  const Json json = Json::parse(read_text_file(folder / "state.json"), nullptr, false);
  if (!json.is_object())
    throw JobFailure(FailureCause::corrupt_artifact,
                     "checkpoint: state.json is not a JSON object; resume from another");
  const int64_t step = recipe_integer(json, "step", {0, static_cast<double>(shape.steps)});
  const SafetensorsFile file = SafetensorsFile::open(folder / (std::string(name) + ".safetensors"));
  const auto tensor = [&](const char* of, int64_t size) {
    const std::span<const float> values = file.f32(of, {size});
    return std::vector<float>(values.begin(), values.end());
  };
  return {.step = step,
          .parameters = tensor("parameters", shape.elements),
          .first_moment = tensor("first_moment", shape.elements),
          .second_moment = tensor("second_moment", shape.elements),
          .curve = tensor("curve", step)};
}

}  // namespace collimate
