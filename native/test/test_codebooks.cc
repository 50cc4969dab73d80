// Job `codebooks`: outputs as stated, the same bytes on any pool and across stop and resume at every step.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "core/failure.h"
#include "core/jobs/held_out.h"
#include "core/residual_quantizer.h"
#include "core/safetensors.h"
#include "test/clustering_data.h"
#include "test/job_fixture.h"

namespace collimate {
namespace {

constexpr int64_t kItems = 360;

std::filesystem::path write_rows(const std::filesystem::path& path, const std::vector<float>& rows, int64_t dim) {
  SafetensorsWriter writer;
  writer.add_f32("items", {static_cast<int64_t>(rows.size()) / dim, dim}, rows);
  writer.write(path);
  return path;
}

// Three levels of 16 codes; `collaborative` has a zero row and two equal rows.
JobRequest request_in(const std::filesystem::path& folder) {
  std::vector<float> collaborative = clustered_rows(kItems, 12, 60, 0.2f);
  std::fill(collaborative.begin(), collaborative.begin() + 12, 0.0f);
  std::copy(collaborative.begin() + 12, collaborative.begin() + 24, collaborative.begin() + 24);
  return {.kind = "codebooks",
          .recipe = {{"levels", 3},
                     {"codes", 16},
                     {"iterations", 12},
                     {"collaborativeWeight", 1.0},
                     {"textWeight", 0.5},
                     {"beam", 1},
                     {"holdoutShare", 0},
                     {"seed", 3}},
          .inputs = {{"collaborative", write_rows(folder / "collaborative.safetensors", collaborative, 12)},
                     {"text", write_rows(folder / "text.safetensors", clustered_rows(kItems, 7, 30, 0.3f), 7)}}};
}

}  // namespace

TEST_CASE("codebooks job: outputs, summary and steps") {
  TemporaryFolder folder;
  RecordingHost host;
  const JobOutcome outcome = run_in(folder.path(), "run", request_in(folder.path()), host, run_codebooks);
  CHECK(outcome.kind == JobOutcome::Kind::finished);
  CHECK(outcome.step == 36);
  CHECK(host.steps.back() == 36);
  CHECK(host.steps_total == 36);
  for (size_t i = 1; i < host.steps.size(); ++i) CHECK(host.steps[i] > host.steps[i - 1]);
  CHECK(host.metrics.count("objective") == 1);

  const SafetensorsFile file = SafetensorsFile::open(outcome.outputs.at("codes"));
  const auto codes = file.i32("codes", {kItems, 3}), nearest = file.i32("nearest", {kItems, 3});
  file.f32("centroids", {3, 16, 19});
  std::set<std::vector<int32_t>> ids, before;
  for (int64_t i = 0; i < kItems; ++i) {
    ids.insert({codes[3 * i], codes[3 * i + 1], codes[3 * i + 2]});
    before.insert({nearest[3 * i], nearest[3 * i + 1], nearest[3 * i + 2]});
    REQUIRE(codes[3 * i] == nearest[3 * i]);
    REQUIRE(codes[3 * i + 1] == nearest[3 * i + 1]);
  }
  CHECK(ids.size() == kItems);
  const Json& summary = outcome.summary;
  CHECK(summary["levels"].size() == 3);
  CHECK(summary["levels"][0]["usage"].get<double>() == 1.0);
  CHECK(summary["levels"][0]["deadCodes"].get<int>() == 0);
  CHECK(summary["levels"][0]["perplexity"].get<double>() > 8.0);
  CHECK(summary["levels"][0]["perplexity"].get<double>() <= 16.0 + 1e-9);
  CHECK(summary["uniqueRateBeforeFit"].get<double>() == doctest::Approx(before.size() / double(kItems)));
  CHECK(summary["largestBucket"].get<int>() <= 16);
  CHECK(summary["relativeError"].get<double>() > 0.0);
  CHECK(summary["relativeError"].get<double>() < 0.5);
}

TEST_CASE("codebooks job: a stop step ends the attempt there with the checkpoint of a run that passes it") {
  TemporaryFolder folder;
  JobRequest request = request_in(folder.path());
  request.checkpoint_interval_steps = 1;
  RecordingHost passing, stopped;
  run_in(folder.path(), "passing", request, passing, run_codebooks);
  REQUIRE(passing.checkpoints.size() >= 3);
  const auto from = passing.checkpoints.begin(), to = std::next(from, 2);
  request.checkpoint_interval_steps = 0;
  request.stop_step = to->first;
  request.resume_dir = from->second;
  const JobOutcome outcome = run_in(folder.path(), "stopped", request, stopped, run_codebooks);
  CHECK(outcome.kind == JobOutcome::Kind::stopped);
  CHECK(outcome.step == to->first);
  REQUIRE(stopped.checkpoints.size() == 1);
  for (const char* file : {"codebooks.safetensors", "state.json"})
    CHECK(read_text_file(stopped.checkpoints.at(to->first) / file) == read_text_file(to->second / file));
}

TEST_CASE("codebooks job: bytes do not depend on threads, stops or checkpoints") {
  TemporaryFolder folder;
  JobRequest request = request_in(folder.path());
  RecordingHost plain;
  const JobOutcome whole = run_in(folder.path(), "whole", request, plain, run_codebooks);
  const std::string expected = bytes_of(whole, "codes");
  for (const int threads : {2, 3}) {
    request.threads = threads;
    request.checkpoint_interval_steps = 5;
    RecordingHost host;
    const JobOutcome outcome = run_in(folder.path(), "threads" + std::to_string(threads), request, host, run_codebooks);
    CHECK(bytes_of(outcome, "codes") == expected);
    CHECK(outcome.summary == whole.summary);
    CHECK(!host.checkpoints.empty());
  }
  request.checkpoint_interval_steps = 0;
  for (size_t stop = 1; stop < plain.steps.size(); stop += 4) {
    CAPTURE(stop);
    RecordingHost stopped, resumed;
    stopped.stop_at = static_cast<int64_t>(stop);
    request.resume_dir.reset();
    const JobOutcome part = run_in(folder.path(), "stop" + std::to_string(stop), request, stopped, run_codebooks);
    CHECK(part.kind == JobOutcome::Kind::stopped);
    CHECK(part.step == plain.steps[stop - 1]);
    REQUIRE(stopped.checkpoints.count(part.step) == 1);
    request.resume_dir = stopped.checkpoints[part.step];
    const JobOutcome rest = run_in(folder.path(), "rest" + std::to_string(stop), request, resumed, run_codebooks);
    CHECK(bytes_of(rest, "codes") == expected);
    CHECK(rest.summary == whole.summary);
    CHECK(resumed.steps == std::vector<int64_t>(plain.steps.begin() + stop, plain.steps.end()));
  }
}

TEST_CASE("codebooks job: it equals the one-call quantizer, works without text, and an abort ends it") {
  TemporaryFolder folder;
  JobRequest request = request_in(folder.path());
  request.inputs.erase("text");
  RecordingHost host, aborting;
  const JobOutcome outcome = run_in(folder.path(), "run", request, host, run_codebooks);
  const SafetensorsFile file = SafetensorsFile::open(outcome.outputs.at("codes"));
  const SafetensorsFile input = SafetensorsFile::open(request.inputs["collaborative"]);
  std::vector<float> rows = input.as_f32("items", {-1, -1});
  for (int64_t i = 0; i < kItems; ++i) {
    double norm = 0;
    for (int64_t c = 0; c < 12; ++c) norm += static_cast<double>(rows[i * 12 + c]) * rows[i * 12 + c];
    for (int64_t c = 0; c < 12 && norm > 0; ++c)
      rows[i * 12 + c] = static_cast<float>(rows[i * 12 + c] / std::sqrt(norm));
  }
  Pool pool(1);
  const ResidualQuantizer direct = residual_quantize(pool, RowMatrix{rows.data(), kItems, 12},
                                                     {.levels = 3, .codes = 16, .iterations = 12, .seed = 3});
  CHECK(outcome.summary["relativeError"].get<double>() == doctest::Approx(direct.relative_error).epsilon(0.02));
  CHECK(file.f32("centroids", {3, 16, 12}).size() == direct.centroids.size());

  aborting.abort_at = 3;
  CHECK_THROWS_AS(run_in(folder.path(), "aborted", request, aborting, run_codebooks), JobAborted);
  CHECK(aborting.steps.size() == 3);
}

TEST_CASE("codebooks job: a wider beam finds better codes for the same codebooks, on any pool and when resumed") {
  TemporaryFolder folder;
  JobRequest request = request_in(folder.path());
  RecordingHost greedy_host, host, stopped, resumed;
  const JobOutcome greedy = run_in(folder.path(), "greedy", request, greedy_host, run_codebooks);
  request.recipe["beam"] = 6;
  const JobOutcome whole = run_in(folder.path(), "beam", request, host, run_codebooks);
  CHECK(whole.summary["relativeError"].get<double>() < greedy.summary["relativeError"].get<double>());
  CHECK(host.steps == greedy_host.steps);
  const SafetensorsFile file = SafetensorsFile::open(whole.outputs.at("codes")),
                        greedy_file = SafetensorsFile::open(greedy.outputs.at("codes"));
  const auto centroids = file.f32("centroids", {3, 16, 19}),
             greedy_centroids = greedy_file.f32("centroids", {3, 16, 19});
  CHECK(std::equal(centroids.begin(), centroids.end(), greedy_centroids.begin()));
  const auto codes = file.i32("codes", {kItems, 3}), nearest = file.i32("nearest", {kItems, 3});
  std::set<std::vector<int32_t>> ids;
  for (int64_t i = 0; i < kItems; ++i) {
    ids.insert({codes[3 * i], codes[3 * i + 1], codes[3 * i + 2]});
    REQUIRE(codes[3 * i] == nearest[3 * i]);
    REQUIRE(codes[3 * i + 1] == nearest[3 * i + 1]);
  }
  CHECK(ids.size() == kItems);

  request.threads = 3;
  stopped.stop_at = static_cast<int64_t>(host.steps.size()) - 1;
  const JobOutcome part = run_in(folder.path(), "part", request, stopped, run_codebooks);
  request.resume_dir = stopped.checkpoints[part.step];
  const JobOutcome rest = run_in(folder.path(), "rest", request, resumed, run_codebooks);
  CHECK(bytes_of(rest, "codes") == bytes_of(whole, "codes"));
  CHECK(rest.summary == whole.summary);
}

TEST_CASE("codebooks job: held-out items are not clustered on, get unique ids like the others, and are lost more of") {
  TemporaryFolder folder;
  JobRequest request = request_in(folder.path());
  RecordingHost all_host, host, resumed;
  const JobOutcome all = run_in(folder.path(), "all", request, all_host, run_codebooks);
  CHECK(all.summary["heldOut"].is_null());
  CHECK(all.summary["gini"].get<double>() >= 0.0);
  CHECK(all.summary["levels"][0]["gini"].get<double>() < 0.9);
  request.recipe["holdoutShare"] = 0.2;
  const JobOutcome outcome = run_in(folder.path(), "held", request, host, run_codebooks);
  const Json& held = outcome.summary["heldOut"];
  CHECK(held["items"].get<int64_t>() > kItems / 10);
  CHECK(held["items"].get<int64_t>() < kItems / 3);
  CHECK(held["relativeError"].get<double>() > held["trainedRelativeError"].get<double>());
  const SafetensorsFile file = SafetensorsFile::open(outcome.outputs.at("codes"));
  const auto codes = file.i32("codes", {kItems, 3});
  std::set<std::vector<int32_t>> ids;
  for (int64_t i = 0; i < kItems; ++i) ids.insert({codes[3 * i], codes[3 * i + 1], codes[3 * i + 2]});
  CHECK(ids.size() == kItems);

  request.threads = 3;
  RecordingHost stopped;
  stopped.stop_at = 9;
  const JobOutcome part = run_in(folder.path(), "part", request, stopped, run_codebooks);
  request.resume_dir = stopped.checkpoints[part.step];
  const JobOutcome rest = run_in(folder.path(), "rest", request, resumed, run_codebooks);
  CHECK(bytes_of(rest, "codes") == bytes_of(outcome, "codes"));
  CHECK(rest.summary == outcome.summary);
  request.resume_dir.reset();

  // What the held-out items are does not reach the centroids.
  std::vector<float> rows = SafetensorsFile::open(request.inputs["collaborative"]).as_f32("items", {-1, -1});
  const HeldOut chosen = HeldOut::choose(kItems, 0.2);
  CHECK(static_cast<int64_t>(chosen.held.size()) == held["items"].get<int64_t>());
  for (const int64_t item : chosen.held)
    for (int64_t c = 0; c < 12; ++c) rows[item * 12 + c] += static_cast<float>(c % 3);
  request.inputs["collaborative"] = write_rows(folder.path() / "moved.safetensors", rows, 12);
  RecordingHost moved_host;
  const JobOutcome moved = run_in(folder.path(), "moved", request, moved_host, run_codebooks);
  const SafetensorsFile moved_file = SafetensorsFile::open(moved.outputs.at("codes"));
  const auto left = file.f32("centroids", {3, 16, 19}), right = moved_file.f32("centroids", {3, 16, 19});
  CHECK(std::equal(left.begin(), left.end(), right.begin()));
}

// The outputs of a run as input `published` of the next: its first items are gone, its last ones are new.
std::filesystem::path carry_over(const std::filesystem::path& to, const JobOutcome& outcome, int64_t gone,
                                 int64_t kept) {
  const SafetensorsFile file = SafetensorsFile::open(outcome.outputs.at("codes"));
  const auto codes = file.i32("codes", {-1, 3}), retired = codes.first(static_cast<size_t>(gone * 3));
  std::vector<int32_t> ids(static_cast<size_t>((kItems - gone) * 3), -1);
  std::copy_n(codes.begin() + gone * 3, kept * 3, ids.begin());
  SafetensorsWriter writer;
  writer.add_i32("codes", {kItems - gone, 3}, ids);
  writer.add_i32("retired", {gone, 3}, retired);
  writer.add_f32("centroids", {3, 16, 19}, file.f32("centroids", {3, 16, 19}));
  writer.write(to);
  return to;
}

TEST_CASE("codebooks job: published ids stay when items come and go, and new ones take what is free") {
  TemporaryFolder folder;
  JobRequest request = request_in(folder.path());
  RecordingHost host;
  const JobOutcome first = run_in(folder.path(), "first", request, host, run_codebooks);
  const SafetensorsFile first_file = SafetensorsFile::open(first.outputs.at("codes"));
  const auto before = first_file.i32("codes", {kItems, 3});
  constexpr int64_t kGone = 20, kKept = 300, kNow = kItems - kGone;

  // The same vectors, turned: as after another training of the embeddings.
  const std::vector<float> rows = SafetensorsFile::open(request.inputs["collaborative"]).as_f32("items", {-1, -1});
  std::vector<float> turned(kNow * 12);
  for (int64_t i = 0; i < kNow; ++i)
    for (int64_t c = 0; c < 12; ++c) turned[i * 12 + c] = -rows[(kGone + i) * 12 + (c + 5) % 12];
  const std::vector<float> text = SafetensorsFile::open(request.inputs["text"]).as_f32("items", {-1, -1});
  JobRequest next = request;
  next.inputs = {
      {"collaborative", write_rows(folder.path() / "turned.safetensors", turned, 12)},
      {"text", write_rows(folder.path() / "text-now.safetensors", {text.begin() + kGone * 7, text.end()}, 7)},
      {"published", carry_over(folder.path() / "published", first, kGone, kKept)}};
  const JobOutcome outcome = run_in(folder.path(), "next", next, host, run_codebooks);
  const SafetensorsFile file = SafetensorsFile::open(outcome.outputs.at("codes"));
  const auto codes = file.i32("codes", {kNow, 3});
  CHECK(std::equal(codes.begin(), codes.begin() + kKept * 3, before.begin() + kGone * 3));
  std::set<std::vector<int32_t>> ids;
  for (int64_t i = 0; i < kNow; ++i) ids.insert({codes[3 * i], codes[3 * i + 1], codes[3 * i + 2]});
  CHECK(ids.size() == kNow);
  for (int64_t i = 0; i < kGone; ++i) CHECK(ids.count({before[3 * i], before[3 * i + 1], before[3 * i + 2]}) == 0);
  CHECK(outcome.summary["published"]["kept"] == kKept);
  CHECK(outcome.summary["published"]["added"] == kNow - kKept);
  // New items land where clustering had put them before the vectors were turned: most have their old first code.
  int64_t same = 0;
  for (int64_t i = kKept; i < kNow; ++i) same += codes[3 * i] == before[3 * (kGone + i)] ? 1 : 0;
  CHECK(same > (kNow - kKept) * 3 / 4);
  next.threads = 3;
  const JobOutcome other = run_in(folder.path(), "other", next, host, run_codebooks);
  CHECK(bytes_of(other, "codes") == bytes_of(outcome, "codes"));

  next.inputs["published"] = carry_over(folder.path() / "empty", first, kGone, 0);
  CHECK_THROWS_WITH_AS(run_in(folder.path(), "bad", next, host, run_codebooks), doctest::Contains("publish anew"),
                       JobFailure);
}

TEST_CASE("codebooks job: bad input says what to do") {
  TemporaryFolder folder;
  const JobRequest good = request_in(folder.path());
  const auto fails_with = [&](const JobRequest& request, const char* text) {
    RecordingHost host;
    CHECK_THROWS_WITH_AS(run_in(folder.path(), "bad", request, host, run_codebooks), doctest::Contains(text),
                         JobFailure);
  };
  JobRequest bad = good;
  bad.inputs.erase("collaborative");
  fails_with(bad, "collaborative");
  bad = good;
  bad.recipe.erase("codes");
  fails_with(bad, "`codes`");
  bad = good;
  bad.recipe["levels"] = 2.5;
  fails_with(bad, "whole number `levels`");
  bad = good;
  bad.inputs["text"] = write_rows(folder.path() / "short.safetensors", clustered_rows(20, 4, 3, 0.1f), 4);
  fails_with(bad, "360 items");
  bad = good;
  bad.recipe["collaborativeWeight"] = bad.recipe["textWeight"] = 0;
  fails_with(bad, "positive weight");
  bad = good;
  bad.recipe["levels"] = 1;
  fails_with(bad, "raise `codes`");
  bad = good;
  bad.recipe["beam"] = 0;
  fails_with(bad, "`beam` between 1");
  bad.recipe.erase("beam");
  fails_with(bad, "a number `beam`");
  std::vector<float> broken = clustered_rows(kItems, 4, 3, 0.1f);
  broken[4 * 77] = std::nanf("");
  bad = good;
  bad.inputs["collaborative"] = write_rows(folder.path() / "broken.safetensors", broken, 4);
  fails_with(bad, "row 77");
}

}  // namespace collimate
