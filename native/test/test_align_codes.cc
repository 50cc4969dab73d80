// Job `align_codes`: it moves codebooks towards the texts, with the same bytes on any pool and across stop and resume.
#include <doctest/doctest.h>

#include <set>

#include "core/failure.h"
#include "core/safetensors.h"
#include "test/clustering_data.h"
#include "test/gradient_check.h"
#include "test/job_fixture.h"

namespace collimate {
namespace {

constexpr int64_t kItems = 300, kTextDim = 9;

std::filesystem::path write_rows(const std::filesystem::path& path, const std::vector<float>& rows, int64_t dim) {
  SafetensorsWriter writer;
  writer.add_f32("items", {static_cast<int64_t>(rows.size()) / dim, dim}, rows);
  writer.write(path);
  return path;
}

Json rows_recipe() { return {{"beam", 1}, {"collaborativeWeight", 1.0}, {"textWeight", 0.0}, {"seed", 3}}; }

// Codebooks from behaviour alone; the texts are a noisy linear image of it, two items have none.
JobRequest request_in(const std::filesystem::path& folder) {
  const std::vector<float> rows = clustered_rows(kItems, 12, 40, 0.3f), truth = random_values(kTextDim * 12, 4);
  const std::vector<float> noise = random_values(kItems * kTextDim, 5, 0.5f);
  std::vector<float> text(kItems * kTextDim);
  for (int64_t i = 2; i < kItems; ++i)
    for (int64_t r = 0; r < kTextDim; ++r) {
      text[i * kTextDim + r] = noise[i * kTextDim + r];
      for (int64_t c = 0; c < 12; ++c) text[i * kTextDim + r] += truth[r * 12 + c] * rows[i * 12 + c];
    }
  JobRequest codebooks{.kind = "codebooks",
                       .recipe = rows_recipe(),
                       .inputs = {{"collaborative", write_rows(folder / "collaborative.safetensors", rows, 12)},
                                  {"text", write_rows(folder / "text.safetensors", text, kTextDim)}}};
  codebooks.recipe.update({{"levels", 3}, {"codes", 16}, {"iterations", 12}, {"holdoutShare", 0}});
  RecordingHost host;
  const JobOutcome made = run_in(folder, "codebooks", codebooks, host, run_codebooks);
  JobRequest request{.kind = "align_codes", .recipe = rows_recipe(), .inputs = codebooks.inputs};
  request.inputs["codes"] = made.outputs.at("codes");
  request.recipe.update({{"weight", 0.1},
                         {"prefixWeight", 0.05},
                         {"temperature", 0.07},
                         {"steps", 60},
                         {"batchItems", 64},
                         {"learningRate", 0.005}});
  return request;
}

}  // namespace

TEST_CASE("align_codes job: texts are found better than before, ids stay unique, outputs fit each other") {
  TemporaryFolder folder;
  RecordingHost host;
  const JobRequest request = request_in(folder.path());
  const JobOutcome outcome = run_in(folder.path(), "run", request, host, run_align_codes);
  CHECK(outcome.kind == JobOutcome::Kind::finished);
  CHECK(outcome.step == 60);
  CHECK(host.steps.size() == 60);
  CHECK(host.metrics.count("alignment_loss") == 1);

  const Json& summary = outcome.summary["alignment"];
  CHECK(summary["itemsWithText"] == kItems - 2);
  CHECK(summary["lastLoss"].get<double>() < summary["firstLoss"].get<double>());
  CHECK(summary["after"]["recallAt10"].get<double>() > summary["before"]["recallAt10"].get<double>());
  CHECK(outcome.summary["levels"].size() == 3);
  CHECK(outcome.summary["relativeError"].get<double>() < 0.6);

  const SafetensorsFile file = SafetensorsFile::open(outcome.outputs.at("codes"));
  const auto codes = file.i32("codes", {kItems, 3});
  std::set<std::vector<int32_t>> ids;
  for (int64_t i = 0; i < kItems; ++i) ids.insert({codes[3 * i], codes[3 * i + 1], codes[3 * i + 2]});
  CHECK(ids.size() == kItems);
  const SafetensorsFile aligned = SafetensorsFile::open(outcome.outputs.at("aligned"));
  const auto map = aligned.f32("map", {kTextDim, 12}), images = aligned.f32("rows", {3, 16, kTextDim});
  const auto centroids = file.f32("centroids", {3, 16, 12});
  const int64_t code = 2 * 16 + 5, row = 4;
  double expected = 0;
  for (int64_t c = 0; c < 12; ++c)
    expected += static_cast<double>(map[row * 12 + c]) * static_cast<double>(centroids[code * 12 + c]);
  CHECK(images[code * kTextDim + row] == doctest::Approx(expected).epsilon(1e-4));
  CHECK(SafetensorsFile::open(outcome.outputs.at("loss_curve")).f32("loss", {60}).size() == 60);
}

TEST_CASE("align_codes job: the same bytes on 1, 2 and 3 threads, and resumed from any checkpoint") {
  TemporaryFolder folder;
  JobRequest request = request_in(folder.path());
  RecordingHost plain;
  const JobOutcome whole = run_in(folder.path(), "whole", request, plain, run_align_codes);
  const auto same = [&](const JobOutcome& other) {
    for (const char* output : {"codes", "aligned", "loss_curve"})
      CHECK(bytes_of(other, output) == bytes_of(whole, output));
    CHECK(other.summary == whole.summary);
  };
  for (const int threads : {2, 3}) {
    request.threads = threads;
    request.checkpoint_interval_steps = 7;
    RecordingHost host;
    same(run_in(folder.path(), "threads" + std::to_string(threads), request, host, run_align_codes));
    CHECK(host.checkpoints.size() == 8);
  }
  request.checkpoint_interval_steps = 0;
  for (const int64_t stop : {1, 17, 59}) {
    CAPTURE(stop);
    RecordingHost stopped, resumed;
    request.resume_dir.reset();
    request.stop_step = stop;
    const JobOutcome part = run_in(folder.path(), "stop" + std::to_string(stop), request, stopped, run_align_codes);
    CHECK(part.kind == JobOutcome::Kind::stopped);
    REQUIRE(stopped.checkpoints.count(stop) == 1);
    request.resume_dir = stopped.checkpoints[stop];
    request.stop_step = 0;
    same(run_in(folder.path(), "rest" + std::to_string(stop), request, resumed, run_align_codes));
    CHECK(resumed.steps.size() == static_cast<size_t>(60 - stop));
  }
}

TEST_CASE("align_codes job: bad input says what to do") {
  TemporaryFolder folder;
  const JobRequest good = request_in(folder.path());
  const auto fails_with = [&](const JobRequest& request, const char* text) {
    RecordingHost host;
    CHECK_THROWS_WITH_AS(run_in(folder.path(), "bad", request, host, run_align_codes), doctest::Contains(text),
                         JobFailure);
  };
  JobRequest bad = good;
  bad.inputs.erase("text");
  fails_with(bad, "text");
  bad = good;
  bad.recipe["weight"] = bad.recipe["prefixWeight"] = 0;
  fails_with(bad, "`prefixWeight` above 0");
  bad = good;
  bad.recipe["batchItems"] = 1;
  fails_with(bad, "`batchItems` between 2");
  bad = good;
  bad.inputs["text"] = write_rows(folder.path() / "empty.safetensors", std::vector<float>(kItems * kTextDim), kTextDim);
  fails_with(bad, "two items with a text");
  bad = good;
  bad.inputs["codes"] = good.inputs.at("text");
  fails_with(bad, "centroids");
}

}  // namespace collimate
