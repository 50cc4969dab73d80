// RQ-VAE: its gradients against finite differences, and the job: latents keep what the vectors say, with the same bytes
// on any pool and across stop and resume.
#include <doctest/doctest.h>

#include "core/failure.h"
#include "core/rqvae/loss.h"
#include "core/safetensors.h"
#include "test/clustering_data.h"
#include "test/gradient_check.h"
#include "test/job_fixture.h"

namespace collimate {
namespace {

constexpr int64_t kBatch = 12;
constexpr rqvae::Shape kShape{.dim = 7, .hidden = 6, .latent = 5, .levels = 2, .codes = 4};

struct Problem {
  std::vector<float> rows = random_values(kBatch * kShape.dim, 1);
  std::vector<float> parameters = random_values(kShape.elements(), 2, 0.5f);
  rqvae::Loss loss(const rqvae::Options& options, std::vector<float>& gradient, int threads = 1) const {
    Pool pool(threads);
    gradient.assign(parameters.size(), 0.0f);
    return rqvae::loss(pool, kShape, options, rows, parameters, gradient);
  }
};

std::filesystem::path write_rows(const std::filesystem::path& path, const std::vector<float>& rows, int64_t dim) {
  SafetensorsWriter writer;
  writer.add_f32("items", {static_cast<int64_t>(rows.size()) / dim, dim}, rows);
  writer.write(path);
  return path;
}

constexpr int64_t kItems = 300, kDim = 12;

JobRequest request_in(const std::filesystem::path& folder) {
  return {.kind = "rqvae",
          .recipe = {{"levels", 3},
                     {"codes", 16},
                     {"hiddenDim", 24},
                     {"latentDim", 8},
                     {"steps", 80},
                     {"warmupSteps", 30},
                     {"batchItems", 64},
                     {"learningRate", 0.01},
                     {"commitmentWeight", 0.25},
                     {"collaborativeWeight", 1.0},
                     {"textWeight", 0.0},
                     {"holdoutShare", 0.1},
                     {"seed", 3}},
          .inputs = {{"collaborative",
                      write_rows(folder / "collaborative.safetensors", clustered_rows(kItems, kDim, 20, 0.2f), kDim)}}};
}

}  // namespace

TEST_CASE("rqvae loss: without the quantizer, the gradient of both halves agrees with finite differences") {
  Problem problem;
  const rqvae::Options options{.mean_squared_norm = 7, .quantized = false};
  std::vector<float> gradient, ignored;
  const rqvae::Loss value = problem.loss(options, gradient);
  CHECK(value.total == value.reconstruction);
  const auto loss = [&] { return problem.loss(options, ignored).total; };
  const size_t encoder = kShape.encoder_elements(), network = kShape.network_elements();
  const std::span<float> values = problem.parameters;
  const std::span<const float> analytic = gradient;
  CHECK(gradient_error({values.first(encoder), analytic.first(encoder), loss}) < 5e-3);
  CHECK(gradient_error(
            {values.subspan(encoder, network - encoder), analytic.subspan(encoder, network - encoder), loss}) < 5e-3);
  for (size_t i = network; i < gradient.size(); ++i) CHECK(gradient[i] == 0.0f);
}

TEST_CASE(
    "rqvae loss: centroids follow the distance alone, the encoder the decoder straight through and the commitment") {
  Problem problem;
  std::vector<float> gradient, ignored;
  const size_t encoder = kShape.encoder_elements(), network = kShape.network_elements();
  const std::span<float> values = problem.parameters;
  // |r - e|^2 by e with r fixed is what the whole distance is by e where there is one level.
  rqvae::Shape one = kShape;
  one.levels = 1;
  const auto loss_of = [&](const rqvae::Options& options, std::vector<float>& to) {
    Pool pool(1);
    to.assign(one.elements(), 0.0f);
    return rqvae::loss(pool, one, options, problem.rows, std::span<const float>(values).first(one.elements()), to);
  };
  const rqvae::Options plain{.commitment = 0, .mean_squared_norm = 7};
  loss_of(plain, gradient);
  CHECK(gradient_error({values.subspan(network, one.centroid_elements()),
                        std::span<const float>(gradient).subspan(network),
                        [&] { return loss_of(plain, ignored).distance; }, 1e-3f}) < 5e-3);
  // The decoder sees q: its own gradient is that of the reconstruction.
  CHECK(gradient_error({values.subspan(encoder, network - encoder),
                        std::span<const float>(gradient).subspan(encoder, network - encoder),
                        [&] { return loss_of(plain, ignored).reconstruction; }}) < 5e-3);
  // What the commitment adds to the encoder's gradient is the derivative of commitment * distance with e fixed.
  rqvae::Options committed = plain;
  committed.commitment = 1.5;
  std::vector<float> with;
  loss_of(committed, with);
  for (size_t i = 0; i < encoder; ++i) with[i] -= gradient[i];
  CHECK(gradient_error({values.first(encoder), std::span<const float>(with).first(encoder),
                        [&] { return 1.5 * loss_of(plain, ignored).distance; }, 1e-3f}) < 5e-3);
  // Codes that lie exactly where the latents are: then straight through is the gradient without a quantizer.
  Pool pool(1);
  one.codes = kBatch;
  std::vector<float> exact(one.elements());
  std::copy_n(values.begin(), network, exact.begin());
  const std::vector<float> latents = rqvae::encode(pool, one, problem.rows, exact);
  std::copy(latents.begin(), latents.end(), exact.begin() + static_cast<int64_t>(network));
  std::vector<float> through(exact.size()), without(exact.size());
  rqvae::Options off = committed;
  off.quantized = false;
  CHECK(rqvae::loss(pool, one, committed, problem.rows, exact, through).distance < 1e-12);
  rqvae::loss(pool, one, off, problem.rows, exact, without);
  for (size_t i = 0; i < network; ++i) CHECK(through[i] == doctest::Approx(without[i]).epsilon(1e-4));
}

TEST_CASE("rqvae loss: the same bytes on 1, 2 and 3 threads, and the terms add up") {
  const Problem problem;
  const rqvae::Options options{.commitment = 0.4, .mean_squared_norm = 7};
  std::vector<float> expected, gradient;
  const rqvae::Loss one = problem.loss(options, expected);
  CHECK(one.total == doctest::Approx(one.reconstruction + 1.4 * one.distance));
  for (const int threads : {2, 3}) {
    CHECK(problem.loss(options, gradient, threads).total == one.total);
    CHECK(gradient == expected);
  }
}

TEST_CASE("rqvae job: items of one cluster end near each other, and held-out items are rebuilt like the others") {
  TemporaryFolder folder;
  RecordingHost host;
  JobRequest request = request_in(folder.path());
  request.recipe["steps"] = 400;
  const JobOutcome outcome = run_in(folder.path(), "run", request, host, run_rqvae);
  CHECK(outcome.kind == JobOutcome::Kind::finished);
  CHECK(outcome.step == 400);
  CHECK(host.metrics.count("code_distance") == 1);
  CHECK(outcome.summary["relativeError"].get<double>() < 0.2);
  CHECK(outcome.summary["heldOut"]["relativeError"].get<double>() < 0.4);
  CHECK(outcome.summary["heldOut"]["items"].get<int64_t>() > 10);
  CHECK(outcome.summary["lastLoss"].get<double>() < outcome.summary["firstLoss"].get<double>());

  const SafetensorsFile file = SafetensorsFile::open(outcome.outputs.at("latents"));
  const auto z = file.f32("items", {kItems, 8});
  const auto cosine = [&](int64_t a, int64_t b) {
    double sum = 0;
    for (int64_t c = 0; c < 8; ++c) sum += static_cast<double>(z[a * 8 + c]) * static_cast<double>(z[b * 8 + c]);
    return sum;
  };
  double within = 0, between = 0;
  for (int64_t i = 0; i < 200; ++i) within += cosine(i, i + 20) / 200, between += cosine(i, i + 7) / 200;
  CHECK(cosine(5, 5) == doctest::Approx(1.0).epsilon(1e-5));
  CHECK(within > 0.9);
  CHECK(between < 0.6);
  CHECK(SafetensorsFile::open(outcome.outputs.at("network")).f32("centroids", {3, 16, 8}).size() == 384);
  CHECK(SafetensorsFile::open(outcome.outputs.at("loss_curve")).f32("loss", {400}).size() == 400);
}

TEST_CASE("rqvae job: the same bytes on 1, 2 and 3 threads, and resumed from any checkpoint") {
  TemporaryFolder folder;
  JobRequest request = request_in(folder.path());
  RecordingHost plain;
  const JobOutcome whole = run_in(folder.path(), "whole", request, plain, run_rqvae);
  const auto same = [&](const JobOutcome& other) {
    for (const char* output : {"latents", "network", "loss_curve"})
      CHECK(bytes_of(other, output) == bytes_of(whole, output));
    CHECK(other.summary == whole.summary);
  };
  for (const int threads : {2, 3}) {
    request.threads = threads;
    RecordingHost host;
    same(run_in(folder.path(), "threads" + std::to_string(threads), request, host, run_rqvae));
  }
  for (const int64_t stop : {1, 29, 30, 31, 79}) {  // 30: where the codebooks begin
    CAPTURE(stop);
    RecordingHost stopped, resumed;
    request.resume_dir.reset();
    request.stop_step = stop;
    const JobOutcome part = run_in(folder.path(), "stop" + std::to_string(stop), request, stopped, run_rqvae);
    CHECK(part.kind == JobOutcome::Kind::stopped);
    REQUIRE(stopped.checkpoints.count(stop) == 1);
    request.resume_dir = stopped.checkpoints[stop];
    request.stop_step = 0;
    same(run_in(folder.path(), "rest" + std::to_string(stop), request, resumed, run_rqvae));
    CHECK(resumed.steps.size() == static_cast<size_t>(80 - stop));
  }
}

TEST_CASE("rqvae job: bad input says what to do") {
  TemporaryFolder folder;
  const JobRequest good = request_in(folder.path());
  const auto fails_with = [&](const JobRequest& request, const char* text) {
    RecordingHost host;
    CHECK_THROWS_WITH_AS(run_in(folder.path(), "bad", request, host, run_rqvae), doctest::Contains(text), JobFailure);
  };
  JobRequest bad = good;
  bad.recipe["warmupSteps"] = 81;
  fails_with(bad, "`warmupSteps` between 0");
  bad = good;
  bad.recipe["collaborativeWeight"] = 0;
  fails_with(bad, "positive weight");
  bad = good;
  bad.inputs["collaborative"] = write_rows(folder.path() / "zero.safetensors", std::vector<float>(kItems * kDim), kDim);
  fails_with(bad, "not zero");
  bad = good;
  bad.inputs.erase("collaborative");
  fails_with(bad, "collaborative");
}

}  // namespace collimate
