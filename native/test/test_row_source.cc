// Rows that are read from a file or made as they are read: the bytes of the same rows in memory.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "core/failure.h"
#include "core/member_sums.h"
#include "core/residual_quantizer.h"
#include "core/safetensors.h"
#include "test/clustering_data.h"
#include "test/temporary_folder.h"

namespace collimate {
namespace {

// By the definition: chunks of members in row order, their sums added as a tree over all of them at once.
std::vector<float> mean_by_definition(const std::vector<float>& rows, int64_t dim, const std::vector<int32_t>& clusters,
                                      int32_t cluster) {
  std::vector<std::vector<double>> chunks;
  int64_t members = 0;
  for (size_t i = 0; i < clusters.size(); ++i) {
    if (clusters[i] != cluster) continue;
    if (members++ % MemberSums::kMembersPerChunk == 0) chunks.emplace_back(dim, 0.0);
    for (int64_t c = 0; c < dim; ++c) chunks.back()[c] += rows[i * dim + c];
  }
  for (size_t stride = 1; stride < chunks.size(); stride *= 2)
    for (size_t i = 0; i + stride < chunks.size(); i += 2 * stride)
      for (int64_t c = 0; c < dim; ++c) chunks[i][c] += chunks[i + stride][c];
  std::vector<float> mean;
  for (int64_t c = 0; c < dim; ++c) mean.push_back(static_cast<float>(chunks[0][c] / static_cast<double>(members)));
  return mean;
}

// Values of both signs and of many magnitudes: their sums show every change of order.
std::vector<float> rough_rows(int64_t rows, int64_t dim) {
  std::vector<float> values = clustered_rows(rows, dim, 7, 0.5f);
  for (size_t i = 0; i < values.size(); ++i) values[i] *= std::ldexp(1.0f, static_cast<int>(i * 7 % 41) - 20);
  return values;
}

uint16_t to_bf16(float value) {
  uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>(bits >> 16);
}

}  // namespace

TEST_CASE("member sums: the tree of chunks, however the rows are cut into blocks") {
  const int64_t count = 17'000, dim = 37;
  const std::vector<float> rows = rough_rows(count, dim);
  std::vector<int32_t> clusters(count);
  // Sizes from none through one chunk, exactly two, and three to nine of them.
  for (int64_t i = 0; i < count; ++i)
    clusters[i] = i < 2048 ? 1 : i < 3000 ? 2 : static_cast<int32_t>(3 + (i * i) % 7 % 4);
  for (const int64_t block_rows : {64, 1000, 4096, 17'000}) {
    CAPTURE(block_rows);
    for (const int threads : {1, 3}) {
      Pool pool(threads);
      MemberSums sums(7, dim);
      for (int64_t first = 0; first < count; first += block_rows) {
        const int64_t size = std::min(block_rows, count - first);
        std::vector<const float*> tiles;
        for (int64_t tile = 0; tile < size; tile += 50) tiles.push_back(&rows[(first + tile) * dim]);
        sums.add(
            pool,
            {.tiles = tiles, .tile_rows = 50, .clusters = std::span<const int32_t>(clusters).subspan(first, size)});
      }
      CHECK(sums.size(0) == 0);
      CHECK(sums.size(1) == 2048);
      for (int32_t cluster = 1; cluster < 7; ++cluster) {
        if (sums.size(cluster) == 0) continue;
        std::vector<float> mean(dim);
        sums.mean(cluster, mean.data());
        REQUIRE(mean == mean_by_definition(rows, dim, clusters, cluster));
      }
    }
  }
}

TEST_CASE("row sources: tensors of a file in each float type, and residuals, read as they are in memory") {
  TemporaryFolder folder;
  const int64_t count = 300, dim = 21;
  const std::vector<float> rows = clustered_rows(count, dim, 20, 0.3f);
  std::vector<uint16_t> brief;
  std::vector<float> brief_rows;
  for (const float value : rows) {
    brief.push_back(to_bf16(value));
    const uint32_t bits = static_cast<uint32_t>(brief.back()) << 16;
    brief_rows.emplace_back();
    std::memcpy(&brief_rows.back(), &bits, sizeof bits);
  }
  const std::vector<uint16_t> halves(count * dim, 0xc100);  // -2.5
  SafetensorsWriter writer;
  writer.add_f32("single", {count, dim}, rows);
  writer.add("brain", DType::bf16, {count, dim}, brief.data());
  writer.add("half", DType::f16, {count, dim}, halves.data());
  writer.add("bytes", DType::u8, {count, dim}, halves.data());
  writer.add_f32("flat", {count * dim}, rows);
  writer.write(folder.path() / "rows.safetensors");

  const auto all_of = [&](const RowSource& source) {
    std::vector<float> values(source.rows * source.dim);
    for (int64_t first = 0; first < source.rows; first += 7)  // in odd pieces
      source.copy(first, std::min<int64_t>(7, source.rows - first), &values[first * source.dim]);
    return values;
  };
  const auto path = folder.path() / "rows.safetensors";
  CHECK(all_of(TensorRows(path, "single")) == rows);
  CHECK(all_of(TensorRows(path, "brain")) == brief_rows);
  CHECK(all_of(TensorRows(path, "half")) == std::vector<float>(count * dim, -2.5f));
  CHECK_THROWS_WITH_AS(TensorRows(path, "bytes"), doctest::Contains("F32, F16 or BF16"), JobFailure);
  CHECK_THROWS_WITH_AS(TensorRows(path, "flat"), doctest::Contains("rows x columns"), JobFailure);

  const std::vector<float> centroids = clustered_rows(3 * 4, dim, 12, 0.0f);
  std::vector<int32_t> codes;
  std::vector<float> left = rows;
  for (int64_t i = 0; i < count * 3; ++i) codes.push_back(static_cast<int32_t>(i * i % 4));
  for (int64_t level = 0; level < 2; ++level)
    for (int64_t i = 0; i < count; ++i)
      for (int64_t c = 0; c < dim; ++c) left[i * dim + c] -= centroids[(level * 4 + codes[i * 3 + level]) * dim + c];
  const RowMatrix matrix(rows.data(), count, dim);
  CHECK(all_of(ResidualRows(matrix, ResidualCodebooks{3, 4, dim, centroids}.first(2), {codes, 3})) == left);
}

TEST_CASE("row sources: k-means and the residual quantizer give the bytes of the rows in memory") {
  TemporaryFolder folder;
  Pool pool(2);
  // More than one block of rows, the last one short; clusters of several chunks.
  const int64_t count = 20'000, dim = 12;
  const std::vector<float> rows = rough_rows(count, dim);
  SafetensorsWriter writer;
  std::vector<uint16_t> brief;
  for (const float value : rows) brief.push_back(to_bf16(value));
  writer.add("rows", DType::bf16, {count, dim}, brief.data());
  writer.write(folder.path() / "rows.safetensors");
  const TensorRows file(folder.path() / "rows.safetensors", "rows");
  const std::vector<float> kept = SafetensorsFile::open(folder.path() / "rows.safetensors").as_f32("rows", {-1, -1});
  const RowMatrix matrix(kept.data(), count, dim);
  for (const KMeansInit init : {KMeansInit::plus_plus, KMeansInit::random}) {
    const KMeansOptions options{.clusters = 6, .iterations = 5, .seed = 3, .init = init};
    const KMeansResult streamed = kmeans(pool, file, options), whole = kmeans(pool, matrix, options);
    CHECK(streamed.centroids == whole.centroids);
    CHECK(streamed.assignment == whole.assignment);
    CHECK(streamed.objective == whole.objective);
    CHECK(streamed.final_objective == whole.final_objective);
  }
  const ResidualQuantizerOptions options{.levels = 3, .codes = 8, .iterations = 3, .seed = 4};
  const ResidualQuantizer streamed = residual_quantize(pool, file, options),
                          whole = residual_quantize(pool, matrix, options);
  CHECK(streamed.centroids == whole.centroids);
  CHECK(streamed.codes == whole.codes);
  CHECK(streamed.relative_error == whole.relative_error);
  const ResidualCodebooks books{3, 8, dim, whole.centroids};
  for (const int64_t beam : {1, 3}) {
    std::vector<int32_t> a(count * 3), b(count * 3);
    std::vector<float> a_distance(count), b_distance(count);
    residual_encode(pool, file, books, {.beam = beam, .codes = a, .squared_distance = a_distance});
    residual_encode(pool, matrix, books, {.beam = beam, .codes = b, .squared_distance = b_distance});
    CHECK(a == b);
    CHECK(a_distance == b_distance);
  }
  CHECK_THROWS_WITH_AS(kmeans(pool, RowMatrix(kept.data(), count, 0), {.clusters = 2}), doctest::Contains("20000 x 0"),
                       JobFailure);
}

}  // namespace collimate
