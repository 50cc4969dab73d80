// Unique ids: all different, only the last level moves, the first in hash order keeps its code, overflow is named.
#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "core/failure.h"
#include "core/unique_ids.h"
#include "test/clustering_data.h"

namespace collimate {
namespace {

struct Encoded {
  std::vector<float> rows;
  ResidualQuantizer trained;
  RowMatrix matrix;
  ResidualCodebooks books;
};

Encoded encode(Pool& pool, std::vector<float> rows, int64_t dim, int64_t codes) {
  Encoded result;
  result.rows = std::move(rows);
  result.matrix = {result.rows.data(), static_cast<int64_t>(result.rows.size()) / dim, dim};
  result.trained = residual_quantize(pool, result.matrix, {.levels = 2, .codes = codes, .iterations = 10, .seed = 1});
  result.books = {2, codes, dim, result.trained.centroids};
  return result;
}

}  // namespace

TEST_CASE("unique ids: every item gets its own id and keeps all codes but the last") {
  Pool one(1), three(3);
  // 400 items at 40 places: exact duplicates collide on every level.
  const Encoded data = encode(one, clustered_rows(400, 8, 40, 0.0f), 8, 64);
  const UniqueIds ids = fit_unique_ids(one, data.matrix, data.books, data.trained.codes);
  CHECK(ids.unique_rate_before_fit <= 0.1);
  CHECK(ids.largest_bucket >= 10);
  std::set<std::pair<int32_t, int32_t>> seen;
  int64_t kept = 0;
  for (int64_t i = 0; i < 400; ++i) {
    REQUIRE(ids.codes[2 * i] == data.trained.codes[2 * i]);
    REQUIRE(ids.codes[2 * i + 1] >= 0);
    REQUIRE(ids.codes[2 * i + 1] < 64);
    seen.insert({ids.codes[2 * i], ids.codes[2 * i + 1]});
    kept += ids.codes[2 * i + 1] == data.trained.codes[2 * i + 1] ? 1 : 0;
  }
  CHECK(seen.size() == 400);
  CHECK(kept > 0);
  CHECK(fit_unique_ids(three, data.matrix, data.books, data.trained.codes).codes == ids.codes);
}

TEST_CASE("unique ids: hash order decides, then the next-nearest free code") {
  Pool pool(1);
  // One column; level 0 has one place, level 1 codes stand at 0, 1, 2, 3. Three equal items want code 1.
  const std::vector<float> rows = {1.1f, 1.1f, 1.1f};
  const std::vector<float> centroids = {0, 50, 60, 70, 0, 1, 2, 3};
  const ResidualCodebooks books{2, 4, 1, centroids};
  const std::vector<int32_t> nearest = {0, 1, 0, 1, 0, 1};
  const UniqueIds ids = fit_unique_ids(pool, RowMatrix{rows.data(), 3, 1}, books, nearest);
  std::vector<int64_t> order = {0, 1, 2};
  std::sort(order.begin(), order.end(), [](int64_t a, int64_t b) { return split_mix64(a) < split_mix64(b); });
  CHECK(ids.codes[2 * order[0] + 1] == 1);
  CHECK(ids.codes[2 * order[1] + 1] == 2);
  CHECK(ids.codes[2 * order[2] + 1] == 0);
  CHECK(ids.largest_bucket == 3);
  CHECK(ids.unique_rate_before_fit == doctest::Approx(1.0 / 3));
}

TEST_CASE("unique ids: a bucket that overflows names the sizes to raise") {
  Pool pool(1);
  const Encoded data = encode(pool, clustered_rows(40, 4, 2, 0.0f), 4, 8);
  CHECK_THROWS_WITH_AS(fit_unique_ids(pool, data.matrix, data.books, data.trained.codes),
                       doctest::Contains("raise `codes` (to at least 20"), JobFailure);
}

TEST_CASE("unique ids: published ids come before hash order, retired ones are not given again, none is given twice") {
  Pool pool(1);
  const Encoded data = encode(pool, clustered_rows(60, 8, 6, 0.0f), 8, 32);
  std::vector<int32_t> nearest = data.trained.codes, published(nearest.size(), -1);
  // Item 0 has an id that is nobody's nearest; all others of its place are new.
  const int32_t odd = nearest[1] == 9 ? 10 : 9;
  published[0] = nearest[0];
  published[1] = nearest[1] = odd;
  std::vector<int32_t> retired{nearest[0], 3, nearest[0], 4};
  const UniqueIds ids = fit_unique_ids(pool, data.matrix, data.books, nearest, {published, retired});
  CHECK(ids.codes[0] == nearest[0]);
  CHECK(ids.codes[1] == odd);
  std::set<std::pair<int32_t, int32_t>> seen{{nearest[0], 3}, {nearest[0], 4}};
  for (int64_t i = 0; i < 60; ++i) seen.insert({ids.codes[2 * i], ids.codes[2 * i + 1]});
  CHECK(seen.size() == 62);

  published[12] = nearest[12] = nearest[0];  // item 6
  published[13] = nearest[13] = odd;
  CHECK_THROWS_WITH_AS(fit_unique_ids(pool, data.matrix, data.books, nearest, {published, retired}),
                       doctest::Contains("for one item only"), JobFailure);
}

}  // namespace collimate
