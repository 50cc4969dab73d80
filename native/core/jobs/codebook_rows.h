// The rows that the codebooks are trained on: each input's rows normalised, weighted and joined, made as they are read.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/job.h"
#include "core/row_source.h"

namespace collimate {

class JoinedRows final : public RowSource {
 public:
  // Input files and their weights; a missing `text` has no columns, nor has what weighs 0. Both files are checked row
  // by row.
  struct Weights {
    double collaborative = 0, text = 0;
  };
  JoinedRows(JobContext& context, const Weights& weights);
  // Columns of an input: weight * row / |row|; zero rows stay zero.
  const float* read(int64_t first, int64_t count, float* scratch) const override;

 private:
  struct Part {
    std::unique_ptr<TensorRows> rows;
    double weight = 0;
    int64_t column = 0;
  };
  void add(JobContext& context, const char* input, double weight);
  std::vector<Part> parts_;
};

}  // namespace collimate
