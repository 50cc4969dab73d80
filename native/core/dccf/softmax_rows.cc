#include "core/dccf/softmax_rows.h"

#include <cstring>

#include "core/math.h"
#include "core/row_ops.h"

namespace collimate::dccf {
namespace {

float largest_of(const float* x, int64_t n) {
  float best = x[0];
  int64_t i = 0;
  if (n >= 8) {
    FloatLanes top;
    std::memcpy(&top, x, sizeof top);
    for (i = 8; i + 8 <= n; i += 8) {
      FloatLanes next;
      std::memcpy(&next, x + i, sizeof next);
      top = next > top ? next : top;
    }
    best = top[0];
    for (int lane = 1; lane < 8; ++lane) best = top[lane] > best ? top[lane] : best;
  }
  for (; i < n; ++i) best = x[i] > best ? x[i] : best;
  return best;
}

float sum_of(const float* x, int64_t n) {
  FloatLanes sum = {0, 0, 0, 0, 0, 0, 0, 0};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    FloatLanes next;
    std::memcpy(&next, x + i, sizeof next);
    sum += next;
  }
  float result = add_lanes(sum);
  for (; i < n; ++i) result += x[i];
  return result;
}

}  // namespace

void softmax_rows(float* x, int64_t rows, int64_t columns, float* log_sum_exp) {
  for (int64_t i = 0; i < rows; ++i) {
    float* row = x + i * columns;
    const float top = largest_of(row, columns);
    for (int64_t k = 0; k < columns; ++k) row[k] = exp_f32(row[k] - top);
    const float sum = sum_of(row, columns);
    const float inverse = 1.0f / sum;
    for (int64_t k = 0; k < columns; ++k) row[k] *= inverse;
    if (log_sum_exp) log_sum_exp[i] = top + log_f32(sum);
  }
}

}  // namespace collimate::dccf
