// The rank_dense job against the definition: log-softmax of every model written out, sorted, history removed.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "core/dense/dense_model.h"
#include "core/dense/sequences.h"
#include "core/failure.h"
#include "core/rank/beam.h"
#include "dense_runs.h"
#include "job_fixture.h"
#include "pool_decoder.h"

namespace collimate {
namespace {

struct Trained {
  TemporaryFolder folder;
  std::filesystem::path models[2];

  Trained() {
    write_dense_inputs(folder.path());
    for (int i = 0; i < 2; ++i) {
      ToyRun run = dense_run(folder.path(), 4);
      run.recipe["seed"] = 5 + i;
      TuneHost host;
      models[i] = run_rank_of(run, folder.path() / std::to_string(i), host, nullptr).outputs.at("model");
    }
  }
  JobRequest request(const char* part, int models_used) const {
    JobRequest request{.kind = "rank_dense",
                       .recipe = {{"part", part}, {"topK", 10}, {"first", 0}, {"count", 0}},
                       .inputs = {{"dataset", folder.path() / "dataset"}}};
    for (int i = 0; i < models_used; ++i) request.inputs["model_" + std::to_string(i)] = models[i];
    return request;
  }
};

// Mean log-probabilities in double.
std::vector<double> reference_scores(const Trained& trained, std::span<const int32_t> known, int models_used) {
  std::vector<double> mean(kDenseItems, 0.0);
  Pool pool(1);
  for (int m = 0; m < models_used; ++m) {
    const auto model = dense::DenseModel::load(trained.models[m], "model");
    PoolDecoder decoder(model.parameters, pool, 5,
                        {.hidden_length = dense::hidden_length(model.parameters.config().dim, model.temperature)});
    PackedBatch batch;
    const int32_t none = 0;
    dense::append_sequence(batch, known.last(std::min<size_t>(known.size(), 5)), std::span(&none, 1));
    const std::vector<float> logits = decoder.logits(batch);
    double total = 0.0;
    for (const float logit : logits) total += std::exp(static_cast<double>(logit));
    for (size_t i = 0; i < logits.size(); ++i)
      mean[i] += (static_cast<double>(logits[i]) - std::log(total)) / models_used;
  }
  return mean;
}

}  // namespace

TEST_CASE("rank_dense: lists are the best items outside the history, for every part and number of models") {
  const Trained trained;
  const dense::UserLog log(trained.folder.path() / "dataset");
  for (const char* part : {"validation", "test", "publish"}) {
    for (const int models_used : {1, 2}) {
      CAPTURE(part);
      CAPTURE(models_used);
      RecordingHost host;
      const JobOutcome outcome = run_in(trained.folder.path(), std::string(part) + std::to_string(models_used),
                                        trained.request(part, models_used), host, run_rank_dense);
      const SafetensorsFile lists = SafetensorsFile::open(outcome.outputs.at("lists"));
      const auto users = lists.i32("users", {-1});
      const auto items = lists.i32("items", {static_cast<int64_t>(users.size()), 10});
      const auto scores = lists.f32("scores", {static_cast<int64_t>(users.size()), 10});
      CHECK(std::is_sorted(users.begin(), users.end()));
      CHECK((users.size() == kDenseUsers) == (std::string(part) == "publish"));  // some have two events
      for (size_t row = 0; row < users.size(); ++row) {
        const auto known = log.known_events(users[row], dense::parse_part(part));
        const std::vector<double> expected = reference_scores(trained, known, models_used);
        double last = 1.0;
        for (size_t i = 0; i < 10; ++i) {
          const int32_t item = items[row * 10 + i];
          CHECK(std::find(known.begin(), known.end(), item) == known.end());
          CHECK(scores[row * 10 + i] == doctest::Approx(expected[static_cast<size_t>(item)]).epsilon(1e-4));
          CHECK(static_cast<double>(scores[row * 10 + i]) <= last);
          last = scores[row * 10 + i];
        }
        // Nothing better was left out.
        std::vector<double> others = expected;
        for (const int32_t item : known) others[static_cast<size_t>(item)] = -INFINITY;
        for (size_t i = 0; i < 10; ++i) others[static_cast<size_t>(items[row * 10 + i])] = -INFINITY;
        CHECK(*std::max_element(others.begin(), others.end()) <= last + 1e-4);
      }
    }
  }
}

TEST_CASE("rank_dense: shards, threads and candidates; a short catalogue leaves lists short") {
  const Trained trained;
  RecordingHost host;
  JobRequest request = trained.request("test", 2);
  request.recipe["topK"] = 40;
  const JobOutcome whole = run_in(trained.folder.path(), "whole", request, host, run_rank_dense);
  const SafetensorsFile lists = SafetensorsFile::open(whole.outputs.at("lists"));
  const auto users = lists.i32("users", {-1});
  const auto rows = static_cast<int64_t>(users.size());
  const auto items = lists.i32("items", {rows, 40});
  const auto scores = lists.f32("scores", {rows, 40});
  CHECK(items[39] == -1);
  CHECK(scores[39] == kPaddingScore);
  CHECK(whole.summary["shortLists"] == rows);

  request.threads = 3;
  CHECK(bytes_of(run_in(trained.folder.path(), "threads", request, host, run_rank_dense), "lists") ==
        bytes_of(whole, "lists"));

  // The lists as candidates get back the scores that they have.
  request.inputs["candidates_0"] = whole.outputs.at("lists");
  const JobOutcome scored = run_in(trained.folder.path(), "scored", request, host, run_rank_dense);
  CHECK(bytes_of(scored, "scores_0") == bytes_of(whole, "lists"));

  request.inputs.erase("candidates_0");
  request.recipe["first"] = 5;
  request.recipe["count"] = 7;
  const JobOutcome shard = run_in(trained.folder.path(), "shard", request, host, run_rank_dense);
  const SafetensorsFile part = SafetensorsFile::open(shard.outputs.at("lists"));
  const auto shard_items = part.i32("items", {7, 40});
  CHECK(std::equal(shard_items.begin(), shard_items.end(), items.begin() + 5 * 40));
}

TEST_CASE("rank_dense: what does not fit is refused by name") {
  const Trained trained;
  const auto failure = [&](const JobRequest& request) -> std::string {
    RecordingHost host;
    try {
      run_in(trained.folder.path(), "refused", request, host, run_rank_dense);
    } catch (const JobFailure& thrown) {
      CHECK(thrown.cause() == FailureCause::bad_input);
      return thrown.what();
    }
    return "no failure";
  };
  JobRequest request = trained.request("test", 0);
  CHECK(failure(request).find("model_0") != std::string::npos);
  request = trained.request("tomorrow", 1);
  CHECK(failure(request).find("tomorrow") != std::string::npos);
  request = trained.request("test", 1);
  request.recipe["first"] = 1000;
  CHECK(failure(request).find("`first` and `count`") != std::string::npos);
  request = trained.request("test", 1);
  request.inputs["model_0"] = trained.folder.path() / "text_vectors";
  CHECK(failure(request).find("\"dense\"") != std::string::npos);
}

}  // namespace collimate
