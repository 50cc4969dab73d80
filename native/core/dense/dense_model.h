// A finished dense model: a decoder over item rows, and how to read its answers.
//
// 1. In the file the finished item rows are the token table, so that ranking needs no text vectors; what they were made
//    of (id rows, network) lies beside them. The metadata field `dense` holds what the decoder's config does not.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "core/model/decoder.h"
#include "core/model/parameters.h"

namespace collimate::dense {

// Which decoder answers cosines over `temperature` with rows of length sqrt(dim).
float hidden_length(int64_t dim, double temperature);

struct DenseModel {
  Parameters parameters;
  int64_t items_max = 0;
  double temperature = 0.0;

  int64_t items() const { return parameters.config().vocabulary; }
  // JobFailure(bad_input), naming `name`, unless it is a model that `dense` wrote.
  static DenseModel load(const std::filesystem::path& path, const std::string& name);
};

struct DenseModelFile {
  const Parameters& parameters;
  std::span<const float> item_rows;  // [I, C], made without drop
  int64_t items_max = 0;
  double temperature = 0.0;
};
void write_dense_model(const DenseModelFile& model, const std::filesystem::path& path);

}  // namespace collimate::dense
