#include "core/jobs/codebook_rows.h"

#include <cmath>
#include <string>

#include "core/failure.h"
#include "core/row_ops.h"

namespace collimate {

JoinedRows::JoinedRows(JobContext& context, const Weights& weights) {
  add(context, "collaborative", weights.collaborative);
  if (context.has_input("text")) add(context, "text", weights.text);
  if (parts_.empty())
    fail_bad_input(
        "recipe: expected a positive weight for at least one input that is present, got "
        "collaborativeWeight and textWeight that leave no vectors");
}

void JoinedRows::add(JobContext& context, const char* input, double weight) {
  auto part = std::make_unique<TensorRows>(context.input(input), "items");
  if (part->rows < 1 || part->dim < 1)
    fail_bad_input(std::string("input `") + input + "`: expected at least one item and one column, got " +
                   std::to_string(part->rows) + " x " + std::to_string(part->dim));
  check_rows(context.pool(), *part, (std::string("input `") + input + "`").c_str());
  if (rows == 0) rows = part->rows;
  if (part->rows != rows)
    fail_bad_input(std::string("input `") + input + "`: expected one row for each of the " + std::to_string(rows) +
                   " items of `collaborative`, got " + std::to_string(part->rows) +
                   "; make both from the same catalogue");
  if (!(weight > 0)) return;
  parts_.push_back({std::move(part), weight, dim});
  dim += parts_.back().rows->dim;
}

const float* JoinedRows::read(int64_t first, int64_t count, float* scratch) const {
  thread_local std::vector<float> values;
  for (const Part& part : parts_) {
    const int64_t width = part.rows->dim;
    values.resize(count * width);
    const float* from = part.rows->read(first, count, values.data());
    for (int64_t i = 0; i < count; ++i, from += width) {
      const double norm = std::sqrt(static_cast<double>(row_dot(from, from, width)));
      const float scale = norm > 0 ? static_cast<float>(part.weight / norm) : 0.0f;
      float* to = scratch + i * dim + part.column;
      for (int64_t c = 0; c < width; ++c) to[c] = from[c] * scale;
    }
  }
  return scratch;
}

}  // namespace collimate
