// Token rows that begin at the images of their codes: angles kept, spread that of the table, everything else untouched.
#include <doctest/doctest.h>

#include <cmath>

#include "core/failure.h"
#include "core/model/aligned_rows.h"
#include "test/temporary_folder.h"
#include "test/tiny_decoder.h"
#include "test/tune_runs.h"

namespace collimate {
namespace {

constexpr int64_t kLevels = 2, kCodes = 4, kFirstItem = 15;  // of the 23 tokens of the tiny decoder

std::filesystem::path write_images(const std::filesystem::path& folder, std::span<const float> images, int64_t dim) {
  SafetensorsWriter writer;
  writer.add_f32("rows", {kLevels, kCodes, dim}, images);
  writer.write(folder / "aligned");
  return folder / "aligned";
}

double cosine(std::span<const float> a, std::span<const float> b) {
  return weighted_sum(a, b) / std::sqrt(weighted_sum(a, a) * weighted_sum(b, b));
}

std::span<const float> row_of(std::span<const float> rows, int64_t index, int64_t dim) {
  return rows.subspan(static_cast<size_t>(index * dim), static_cast<size_t>(dim));
}

}  // namespace

TEST_CASE("aligned rows: narrower and equal images keep their angles, each level has the table's spread") {
  TemporaryFolder folder;
  Pool pool(2);
  for (const int64_t text_dim : {7, 16}) {
    CAPTURE(text_dim);
    std::vector<float> images = random_values(kLevels * kCodes * text_dim, 3);
    for (int64_t c = 0; c < text_dim; ++c) images[5 * text_dim + c] = 0.0f;  // code 1 of level 1
    for (const bool tied : {true, false}) {
      Parameters parameters = tiny_parameters(tied, false);
      const std::vector<float> before(parameters.values().begin(), parameters.values().end());
      const AlignedRows rows{write_images(folder.path(), images, text_dim), kFirstItem, 9};
      initialise_aligned_rows(pool, parameters, rows);
      size_t changed = 0;
      for (size_t i = 0; i < before.size(); ++i) changed += parameters.values()[i] != before[i] ? 1 : 0;
      CHECK(changed == (tied ? 1 : 2) * 7 * 16);  // every item row but the one without an image
      for (const int table : {parameters.embedding(), parameters.head()}) {
        const std::span<const float> values(parameters.data(table), 23 * 16);
        for (int64_t i = 0; i < 8; ++i)
          for (int64_t j = 0; j < i; ++j)
            if (i != 5 && j != 5)
              CHECK(cosine(row_of(values, kFirstItem + i, 16), row_of(values, kFirstItem + j, 16)) ==
                    doctest::Approx(cosine(row_of(images, i, text_dim), row_of(images, j, text_dim))).epsilon(1e-4));
        const std::span<const float> others = values.first(kFirstItem * 16),
                                     level = values.subspan(kFirstItem * 16, 64);
        CHECK(weighted_sum(level, level) / 64.0 ==
              doctest::Approx(weighted_sum(others, others) / static_cast<double>(others.size())).epsilon(1e-3));
      }
      Parameters again = tiny_parameters(tied, false);
      Pool one(1);
      initialise_aligned_rows(one, again, rows);
      CHECK(std::equal(again.values().begin(), again.values().end(), parameters.values().begin()));
    }
  }
}

TEST_CASE("aligned rows: wider images come into the model's width, and what does not fit is told") {
  TemporaryFolder folder;
  Pool pool(1);
  Parameters parameters = tiny_parameters(true, false);
  const std::vector<float> images = random_values(kLevels * kCodes * 40, 3);
  const AlignedRows rows{write_images(folder.path(), images, 40), kFirstItem, 9};
  initialise_aligned_rows(pool, parameters, rows);
  const std::span<const float> level(parameters.data(parameters.embedding()) + kFirstItem * 16, 64);
  CHECK(weighted_sum(level, level) / 64.0 == doctest::Approx(0.16).epsilon(0.2));
  CHECK_THROWS_WITH_AS(initialise_aligned_rows(pool, parameters, {rows.path, kFirstItem + 1, 9}),
                       doctest::Contains("each of the 7 tokens"), JobFailure);
  CHECK_THROWS_AS(initialise_aligned_rows(pool, parameters, {rows.path, kFirstItem - 8, 9}), JobFailure);
  // Tokens behind the last code, which round a vocabulary up, keep their rows.
  const float* last = parameters.data(parameters.embedding()) + 22 * 16;
  const std::vector<float> unused(last, last + 16);
  initialise_aligned_rows(pool, parameters, {rows.path, kFirstItem - 3, 9});
  CHECK(std::equal(unused.begin(), unused.end(), last));
  std::vector<float> broken = images;
  broken[17] = std::nanf("");
  const std::filesystem::path path = write_images(folder.path(), broken, 40);
  CHECK_THROWS_WITH_AS(initialise_aligned_rows(pool, parameters, {path, kFirstItem, 9}), doctest::Contains("finite"),
                       JobFailure);
}

TEST_CASE("tune job: token rows from the aligned space change the model, and a resumed run ends with the same bytes") {
  TemporaryFolder folder;
  write_toy_inputs(folder.path());
  ToyRun run = toy_run(folder.path(), 6);
  TuneHost plain, aligned, stopped, resumed;
  run_rank_of(run, folder.path() / "plain", plain, nullptr);
  run.inputs["aligned"] = write_images(folder.path(), random_values(kLevels * kCodes * 12, 3), 12);
  run_rank_of(run, folder.path() / "aligned-run", aligned, nullptr);
  const std::string expected = output_bytes(folder.path() / "aligned-run");
  CHECK(expected != output_bytes(folder.path() / "plain"));
  run.stop_step = 3;
  run_rank_of(run, folder.path() / "stopped", stopped, nullptr);
  REQUIRE(stopped.checkpoints.count(3) == 1);
  run.stop_step = 0;
  run.threads = 3;
  run.resume = stopped.checkpoints[3];
  run_rank_of(run, folder.path() / "resumed", resumed, nullptr);
  CHECK(output_bytes(folder.path() / "resumed") == expected);
}

}  // namespace collimate
