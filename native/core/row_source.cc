#include "core/row_source.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/failure.h"
#include "core/row_ops.h"

namespace collimate {
namespace {

constexpr int64_t kRowsPerCheck = 128;  // read at a time

}  // namespace

void RowSource::copy(int64_t first, int64_t count, float* to) const {
  const float* at = read(first, count, to);
  if (at != to && count > 0) std::memcpy(to, at, count * dim * sizeof(float));
}

TensorRows::TensorRows(const std::filesystem::path& path, const std::string& tensor)
    : file_(SafetensorsFile::open(path)), name_(tensor), view_(&file_.get(tensor)) {
  if (view_->shape.size() != 2)
    fail_bad_input("tensor " + tensor + " of " + path.string() + ": expected rows x columns, got " +
                   std::to_string(view_->shape.size()) + " dimensions; store one row per item");
  rows = view_->shape[0];
  dim = view_->shape[1];
  widen_values(*view_, name_, {0, 0}, nullptr);  // an unusable type is told now, not in the middle of a pass
}

const float* TensorRows::read(int64_t first, int64_t count, float* scratch) const {
  if (view_->dtype == DType::f32) return reinterpret_cast<const float*>(view_->data) + first * dim;
  widen_values(*view_, name_, {first * dim, count * dim}, scratch);
  return scratch;
}

void for_row_tiles(Pool& pool, const RowSource& rows, int64_t tile_rows, const TileBody& body) {
  pool.for_blocks(rows.rows, kRowsPerItem, [&](int64_t begin, int64_t end) {
    thread_local std::vector<float> scratch;
    if (static_cast<int64_t>(scratch.size()) < tile_rows * rows.dim) scratch.resize(tile_rows * rows.dim);
    for (int64_t first = begin; first < end; first += tile_rows) {
      const int64_t count = std::min(tile_rows, end - first);
      body(first, count, rows.read(first, count, scratch.data()));
    }
  });
}

FiniteRows::FiniteRows(const RowSource& rows)
    : dim_(rows.dim), first_bad_((rows.rows + kRowsPerItem - 1) / kRowsPerItem, -1) {}

bool FiniteRows::check(int64_t first, int64_t count, const float* values) {
  int64_t& first_bad = first_bad_[first / kRowsPerItem];
  for (int64_t i = 0; i < count; ++i) {
    if (std::isfinite(wide_dot(values + i * dim_, values + i * dim_, dim_))) continue;
    if (first_bad < 0) first_bad = first + i;
    return false;
  }
  return true;
}

void FiniteRows::fail_if_bad(const char* what) const {
  for (const int64_t row : first_bad_)
    if (row >= 0)
      fail_bad_input(std::string(what) + ": expected finite values with a finite squared norm, row " +
                     std::to_string(row) + " has NaN, infinity or an overflow; remove or rescale that row");
}

void check_rows(Pool& pool, const RowSource& rows, const char* what) {
  FiniteRows finite(rows);
  for_row_tiles(pool, rows, kRowsPerCheck,
                [&](int64_t first, int64_t count, const float* values) { finite.check(first, count, values); });
  finite.fail_if_bad(what);
}

}  // namespace collimate
