#include "core/dense/dense_model.h"

#include <cmath>

#include "core/failure.h"
#include "core/jobs/recipe_fields.h"
#include "core/safetensors.h"

namespace collimate::dense {

namespace {

const char* const kIdRows = "item_ids.weight";

}  // namespace

float hidden_length(int64_t dim, double temperature) {
  return static_cast<float>(1.0 / (temperature * std::sqrt(static_cast<double>(dim))));
}

DenseModel DenseModel::load(const std::filesystem::path& path, const std::string& name) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  const auto field = file.metadata().find("dense");
  const Json dense =
      field == file.metadata().end() ? Json() : Json::parse(field->second, nullptr, /*allow_exceptions=*/false);
  if (!dense.is_object())
    fail_bad_input(name + ": expected a model with the metadata field \"dense\", got none; use one that dense wrote");
  return {.parameters = load_model(path, {}),
          .items_max = recipe_integer(dense, "itemsMax", {1, 65536}),
          .temperature = recipe_number(dense, "temperature", {1e-3, 1e3})};
}

void write_dense_model(const DenseModelFile& model, const std::filesystem::path& path) {
  const Parameters& parameters = model.parameters;
  SafetensorsWriter writer;
  for (int number = 0; number < static_cast<int>(parameters.all().size()); ++number) {
    const Parameter& parameter = parameters.at(number);
    const bool is_ids = number == parameters.embedding();
    const std::span<const float> values(parameters.data(number), static_cast<size_t>(parameter.elements()));
    writer.add_f32(is_ids ? kIdRows : parameter.name, parameter.shape, values);
    if (!is_ids) continue;
    writer.add_f32(parameter.name, parameter.shape, model.item_rows);
  }
  writer.set_metadata("config", parameters.config().to_text());
  writer.set_metadata("dense", Json({{"itemsMax", model.items_max}, {"temperature", model.temperature}}).dump());
  writer.set_metadata("format", "pt");
  writer.write(path);
}

}  // namespace collimate::dense
