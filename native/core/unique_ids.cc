#include "core/unique_ids.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "core/failure.h"
#include "core/row_ops.h"

namespace collimate {
namespace {

void distances_to_codes(const float* row, const float* centroids, int64_t codes, int64_t dim, float* result) {
  for (int64_t j = 0; j < codes; ++j) result[j] = row_squared_distance(row, centroids + j * dim, dim);
}

// The items of one bucket, in hash order, and what is needed to place them.
struct Bucket {
  std::span<const int64_t> items;
  const ResidualRows& residuals;  // before the last level
  std::span<const float> last_centroids;
  int64_t levels;
  int64_t codes;
};

void place_bucket(const Bucket& bucket, std::span<const int32_t> nearest, std::span<int32_t> result) {
  const int64_t last = bucket.levels - 1;
  std::vector<uint8_t> taken(bucket.codes, 0);
  std::vector<float> distance(bucket.codes), residual(bucket.residuals.dim);
  for (const int64_t item : bucket.items) {
    int32_t code = nearest[item * bucket.levels + last];
    if (taken[code]) {
      distances_to_codes(bucket.residuals.read(item, 1, residual.data()), bucket.last_centroids.data(), bucket.codes,
                         bucket.residuals.dim, distance.data());
      code = -1;
      for (int64_t j = 0; j < bucket.codes; ++j)
        if (!taken[j] && (code < 0 || distance[j] < distance[code])) code = static_cast<int32_t>(j);
    }
    taken[code] = 1;
    result[item * bucket.levels + last] = code;
  }
}

[[noreturn]] void fail_overflow(int64_t bucket_items, const ResidualCodebooks& books) {
  fail_bad_input("unique ids: expected at most codes = " + std::to_string(books.codes) +
                 " items that share the first " + std::to_string(books.levels - 1) + " codes, got " +
                 std::to_string(bucket_items) + "; raise `codes` (to at least " + std::to_string(bucket_items) +
                 " with these vectors) or `levels` (now " + std::to_string(books.levels) +
                 "), or merge items with equal vectors");
}

}  // namespace

uint64_t split_mix64(uint64_t value) {
  value += 0x9E3779B97F4A7C15ull;
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9ull;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBull;
  return value ^ (value >> 31);
}

UniqueIds fit_unique_ids(Pool& pool, const RowSource& rows, const ResidualCodebooks& books,
                         std::span<const int32_t> nearest) {
  const int64_t levels = books.levels;
  const int64_t items = rows.rows;
  UniqueIds result;
  result.codes.assign(nearest.begin(), nearest.end());

  const auto compare_prefix = [&](int64_t a, int64_t b, int64_t length) {
    for (int64_t level = 0; level < length; ++level) {
      const int32_t difference = nearest[a * levels + level] - nearest[b * levels + level];
      if (difference != 0) return difference;
    }
    return 0;
  };
  std::vector<int64_t> order(items);
  std::iota(order.begin(), order.end(), int64_t{0});
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    const int32_t prefix = compare_prefix(a, b, levels - 1);
    return prefix != 0 ? prefix < 0 : split_mix64(a) < split_mix64(b);
  });

  std::vector<int64_t> offsets{0};
  for (int64_t i = 1; i <= items; ++i)
    if (i == items || compare_prefix(order[i - 1], order[i], levels - 1) != 0) offsets.push_back(i);
  const int64_t buckets = static_cast<int64_t>(offsets.size()) - 1;
  for (int64_t b = 0; b < buckets; ++b)
    result.largest_bucket = std::max(result.largest_bucket, offsets[b + 1] - offsets[b]);
  if (result.largest_bucket > books.codes) fail_overflow(result.largest_bucket, books);

  const ResidualRows residuals(rows, books.first(levels - 1), {nearest, levels});
  std::vector<int64_t> distinct(buckets, 0);
  pool.for_each(buckets, [&](int64_t b) {
    const std::span<const int64_t> members =
        std::span<const int64_t>(order).subspan(offsets[b], offsets[b + 1] - offsets[b]);
    std::vector<uint8_t> seen(books.codes, 0);
    for (const int64_t item : members) {
      uint8_t& mark = seen[nearest[item * levels + levels - 1]];
      distinct[b] += mark == 0 ? 1 : 0;
      mark = 1;
    }
    place_bucket({members, residuals, books.level(levels - 1), levels, books.codes}, nearest, result.codes);
  });
  const int64_t unique = std::accumulate(distinct.begin(), distinct.end(), int64_t{0});
  result.unique_rate_before_fit = items > 0 ? static_cast<double>(unique) / static_cast<double>(items) : 1.0;
  return result;
}

}  // namespace collimate
