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
  std::span<const int32_t> published;  // [items, levels], or empty
};

// `taken`: last codes of the bucket that are not to be given; [codes].
void place_bucket(const Bucket& bucket, std::span<const int32_t> nearest, std::vector<uint8_t> taken,
                  std::span<int32_t> result) {
  const int64_t last = bucket.levels - 1;
  std::vector<float> distance(bucket.codes), residual(bucket.residuals.dim);
  for (const int64_t item : bucket.items) {
    int32_t code = nearest[item * bucket.levels + last];
    if (taken[code] && !bucket.published.empty() && bucket.published[item * bucket.levels] >= 0)
      fail_bad_input("published ids: expected an id for one item only, got that of item " + std::to_string(item) +
                     " twice; take the ids and the catalogue from one run");
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

// Numbers of the retired ids, by their codes before the last.
std::vector<int64_t> retired_in_order(std::span<const int32_t> retired, int64_t levels) {
  std::vector<int64_t> order(retired.size() / levels);
  std::iota(order.begin(), order.end(), int64_t{0});
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    const auto one = retired.subspan(a * levels, levels - 1), other = retired.subspan(b * levels, levels - 1);
    return std::lexicographical_compare(one.begin(), one.end(), other.begin(), other.end());
  });
  return order;
}

// 1 for each last code that a retired id with these first codes has; `id` [levels], of which the last does not count.
std::vector<uint8_t> retired_codes(std::span<const int32_t> retired, const std::vector<int64_t>& order,
                                   std::span<const int32_t> id, int64_t codes) {
  std::vector<uint8_t> taken(codes, 0);
  const int64_t levels = static_cast<int64_t>(id.size());
  const auto prefix = id.first(levels - 1);
  const auto before = [&](int64_t number, std::span<const int32_t> other) {
    const auto own = retired.subspan(number * levels, levels - 1);
    return std::lexicographical_compare(own.begin(), own.end(), other.begin(), other.end());
  };
  for (auto at = std::lower_bound(order.begin(), order.end(), prefix, before); at != order.end(); ++at) {
    const auto own = retired.subspan(*at * levels, levels - 1);
    if (!std::equal(own.begin(), own.end(), prefix.begin())) break;
    taken[retired[*at * levels + levels - 1]] = 1;
  }
  return taken;
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
                         std::span<const int32_t> nearest, const PublishedIds& published) {
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
  const auto stays = [&](int64_t item) { return !published.codes.empty() && published.codes[item * levels] >= 0; };
  std::vector<int64_t> order(items);
  std::iota(order.begin(), order.end(), int64_t{0});
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    const int32_t prefix = compare_prefix(a, b, levels - 1);
    if (prefix != 0) return prefix < 0;
    const bool a_stays = stays(a), b_stays = stays(b);
    return a_stays != b_stays ? a_stays : split_mix64(a) < split_mix64(b);
  });

  std::vector<int64_t> offsets{0};
  for (int64_t i = 1; i <= items; ++i)
    if (i == items || compare_prefix(order[i - 1], order[i], levels - 1) != 0) offsets.push_back(i);
  const int64_t buckets = static_cast<int64_t>(offsets.size()) - 1;
  for (int64_t b = 0; b < buckets; ++b)
    result.largest_bucket = std::max(result.largest_bucket, offsets[b + 1] - offsets[b]);
  const std::vector<int64_t> retired = retired_in_order(published.retired, levels);

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
    const std::vector<uint8_t> taken =
        retired_codes(published.retired, retired, nearest.subspan(members[0] * levels, levels), books.codes);
    const int64_t wanted = static_cast<int64_t>(members.size()) + std::count(taken.begin(), taken.end(), 1);
    if (wanted > books.codes) fail_overflow(wanted, books);
    place_bucket({members, residuals, books.level(levels - 1), levels, books.codes, published.codes}, nearest, taken,
                 result.codes);
  });
  const int64_t unique = std::accumulate(distinct.begin(), distinct.end(), int64_t{0});
  result.unique_rate_before_fit = items > 0 ? static_cast<double>(unique) / static_cast<double>(items) : 1.0;
  return result;
}

}  // namespace collimate
