// The tune job: learning, and the same bytes whatever the threads, the world, the checkpoints and the interruptions.
#include <doctest/doctest.h>

#include "core/failure.h"
#include "core/model/decoder.h"
#include "core/model/parameters.h"
#include "pool_decoder.h"
#include "tune_runs.h"

namespace collimate {
namespace {

std::string failure_of(const ToyRun& run, FailureCause cause) {
  const TemporaryFolder folder;
  TuneHost host;
  try {
    run_rank_of(run, folder.path(), host, nullptr);
  } catch (const JobFailure& failure) {
    CHECK(failure.cause() == cause);
    if (cause == FailureCause::nan_loss) CHECK(failure.step() == 1);  // updates applied
    return failure.what();
  }
  return "no failure";
}

// Runs a gang; returns the output bytes of every rank.
std::vector<std::string> gang_bytes(const ToyRun& run, int world, const std::filesystem::path& folder) {
  std::vector<std::string> bytes(static_cast<size_t>(world));
  run_gang(world, [&](Transport& transport) {
    TuneHost host;
    const auto own = folder / ("rank-" + std::to_string(transport.rank()));
    CHECK(run_rank_of(run, own, host, &transport).kind == JobOutcome::Kind::finished);
    bytes[static_cast<size_t>(transport.rank())] = output_bytes(own);
  });
  return bytes;
}

}  // namespace

TEST_CASE("tune: learns a toy task, reports every step, and its model loads for inference") {
  const TemporaryFolder folder;
  write_toy_inputs(folder.path());
  ToyRun run = toy_run(folder.path(), 150);
  run.recipe["dropout"] = 0.0;
  TuneHost host;
  const JobOutcome outcome = run_rank_of(run, folder.path(), host, nullptr);
  CHECK(outcome.kind == JobOutcome::Kind::finished);
  CHECK(outcome.step == 150);
  CHECK(host.steps.size() == 150);
  for (const char* name : {"loss", "learning_rate", "grad_norm", "tokens", "samples"})
    CHECK(host.last_metrics.count(name) == 1);
  CHECK(host.last_metrics.at("samples") == 14.0);
  const SafetensorsFile file = SafetensorsFile::open(outcome.outputs.at("loss_curve"));
  const auto curve = file.f32("loss", {150});
  CHECK(curve[0] == doctest::Approx(std::log(24.0)).epsilon(0.05));  // a fresh decoder knows nothing
  CHECK(curve[149] < 0.1f);

  Pool pool(1);
  const Parameters parameters = load_model(outcome.outputs.at("model"), {});
  PoolDecoder decoder(parameters, pool, 16);
  PackedBatch batch;
  batch.add(std::vector<int32_t>{1, 4, 7, 10}, std::vector<uint8_t>{0, 0, 0, 1});
  const auto logits = decoder.logits(batch);
  CHECK(std::max_element(logits.begin(), logits.end()) - logits.begin() == 10);
}

TEST_CASE("tune: 1, 2 and 3 threads, and 1, 2, 3 and 4 ranks, give the same bytes") {
  const TemporaryFolder folder;
  write_toy_inputs(folder.path());
  ToyRun run = toy_run(folder.path(), 8);
  TuneHost host;
  run_rank_of(run, folder.path() / "alone", host, nullptr);
  const std::string expected = output_bytes(folder.path() / "alone");
  for (const int threads : {2, 3}) {
    run.threads = threads;
    const auto own = folder.path() / ("threads-" + std::to_string(threads));
    run_rank_of(run, own, host, nullptr);
    CHECK(output_bytes(own) == expected);
  }
  run.threads = 1;
  for (const int world : {1, 2, 3, 4}) {
    CAPTURE(world);
    for (const std::string& bytes : gang_bytes(run, world, folder.path() / ("world-" + std::to_string(world)))) {
      CHECK(bytes == expected);
    }
  }
  run.recipe["seed"] = 6;
  run_rank_of(run, folder.path() / "other", host, nullptr);
  CHECK(output_bytes(folder.path() / "other") != expected);
}

TEST_CASE(
    "tune: resuming from any checkpoint ends in the bytes of the uninterrupted run, in a gang of another size too") {
  const TemporaryFolder folder;
  write_toy_inputs(folder.path());
  ToyRun run = toy_run(folder.path(), 10);
  TuneHost plain, saving;
  run_rank_of(run, folder.path() / "plain", plain, nullptr);
  const std::string expected = output_bytes(folder.path() / "plain");
  run.checkpoint_interval = 3;
  saving.checkpoint_after = 4;  // asked for while step 5 runs
  run_rank_of(run, folder.path() / "saving", saving, nullptr);
  CHECK(output_bytes(folder.path() / "saving") == expected);
  REQUIRE(saving.checkpoints.size() == 4);
  run.checkpoint_interval = 0;
  for (const int64_t step : {3, 5, 6, 9}) {
    CAPTURE(step);
    REQUIRE(saving.checkpoints.count(step) == 1);
    run.resume = saving.checkpoints[step];
    TuneHost host;
    const auto own = folder.path() / ("resumed-" + std::to_string(step));
    run_rank_of(run, own, host, nullptr);
    CHECK(host.steps.front() == step + 1);
    CHECK(output_bytes(own) == expected);
  }
  run.resume = saving.checkpoints[5];
  for (const std::string& bytes : gang_bytes(run, 3, folder.path() / "gang")) CHECK(bytes == expected);
}

TEST_CASE("tune: one rank's stop request stops all at one step, with the checkpoint of a run of one") {
  const TemporaryFolder folder;
  write_toy_inputs(folder.path());
  ToyRun run = toy_run(folder.path(), 10);
  TuneHost saving;
  run.checkpoint_interval = 5;
  run_rank_of(run, folder.path() / "alone", saving, nullptr);
  run.checkpoint_interval = 0;
  std::vector<TuneHost> hosts(3);
  hosts[2].stop_after = 4;  // agreed in the reduction of step 5
  run_gang(3, [&](Transport& transport) {
    const int rank = transport.rank();
    const JobOutcome outcome =
        run_rank_of(run, folder.path() / std::to_string(rank), hosts[static_cast<size_t>(rank)], &transport);
    CHECK(outcome.kind == JobOutcome::Kind::stopped);
    CHECK(outcome.step == 5);
  });
  REQUIRE(hosts[0].checkpoints.count(5) == 1);
  CHECK(hosts[1].checkpoints.empty());
  CHECK(checkpoint_bytes(hosts[0].checkpoints[5]) == checkpoint_bytes(saving.checkpoints[5]));
}

TEST_CASE("tune: a stop step ends every rank there, asked by nobody, from the beginning and from a checkpoint") {
  const TemporaryFolder folder;
  write_toy_inputs(folder.path());
  ToyRun run = toy_run(folder.path(), 10);
  TuneHost saving;
  run.checkpoint_interval = 3;
  run_rank_of(run, folder.path() / "alone", saving, nullptr);
  run.checkpoint_interval = 0;
  run.stop_step = 6;
  for (const bool resumes : {false, true}) {
    CAPTURE(resumes);
    const std::filesystem::path own = folder.path() / (resumes ? "resumed" : "begun");
    if (resumes) run.resume = saving.checkpoints[3];
    std::vector<TuneHost> hosts(3);
    run_gang(3, [&](Transport& transport) {
      const int rank = transport.rank();
      const JobOutcome outcome =
          run_rank_of(run, own / std::to_string(rank), hosts[static_cast<size_t>(rank)], &transport);
      CHECK(outcome.kind == JobOutcome::Kind::stopped);
      CHECK(outcome.step == 6);
    });
    REQUIRE(hosts[0].checkpoints.size() == 1);
    CHECK(checkpoint_bytes(hosts[0].checkpoints[6]) == checkpoint_bytes(saving.checkpoints[6]));
  }
}

TEST_CASE("tune: an abandoned attempt ends with JobAborted") {
  const TemporaryFolder folder;
  write_toy_inputs(folder.path());
  TuneHost host;
  host.abort_after = 2;
  CHECK_THROWS_AS(run_rank_of(toy_run(folder.path(), 10), folder.path(), host, nullptr), JobAborted);
  CHECK(host.steps.size() == 2);
}

TEST_CASE("tune: a loss that is no number names the step and its examples") {
  const TemporaryFolder folder;
  write_toy_inputs(folder.path());
  ToyRun run = toy_run(folder.path(), 10);
  run.recipe["learningRate"] = 1e20;
  run.recipe["warmupSteps"] = 0;
  run.recipe["clipNorm"] = 0;
  const std::string message = failure_of(run, FailureCause::nan_loss);
  CHECK(message.find("step 1") != std::string::npos);
  CHECK(message.find("examples ") != std::string::npos);
}

TEST_CASE("tune: bad recipes and inputs fail with one message that names what is wrong") {
  const TemporaryFolder folder;
  write_toy_inputs(folder.path());
  const ToyRun good = toy_run(folder.path(), 2);
  const auto with = [&](const std::function<void(ToyRun&)>& change) {
    ToyRun run = good;
    change(run);
    return failure_of(run, FailureCause::bad_input);
  };
  const auto names = [](const std::string& message, const char* part) {
    CAPTURE(message);
    CHECK(message.find(part) != std::string::npos);
  };
  names(with([](ToyRun& r) { r.recipe.erase("steps"); }), "recipe.steps");
  names(with([](ToyRun& r) { r.recipe["lanes"] = 3; }), "recipe.lanes");
  names(with([](ToyRun& r) { r.recipe["dropout"] = 1.0; }), "recipe.dropout");
  names(with([](ToyRun& r) { r.recipe["base"]["kind"] = "gguf"; }), "recipe.base.kind");
  names(with([](ToyRun& r) { r.recipe["base"]["kvHeads"] = 3; }), "num_key_value_heads");
  names(with([](ToyRun& r) {
          r.recipe["trainable"] = {{"kind", "lora"}, {"rank", 2}, {"alpha", 4}, {"targets", {"q_proj", "w_proj"}}};
        }),
        "recipe.trainable.targets");
  names(with([](ToyRun& r) {
          r.recipe["trainable"] = {{"kind", "lora"}, {"rank", 2}, {"alpha", 4}, {"targets", {"q_proj"}}};
        }),
        "recipe.trainable.kind");
  names(with([](ToyRun& r) { r.inputs.erase("vocabulary"); }), "vocabulary");
  names(with([](ToyRun& r) { r.recipe["base"] = {{"kind", "huggingface"}}; }), "base/config.json");

  const auto with_examples = [&](const std::vector<int32_t>& tokens, const std::vector<uint8_t>& mask,
                                 const std::vector<int64_t>& offsets) {
    SafetensorsWriter writer;
    writer.add_i32("tokens", {static_cast<int64_t>(tokens.size())}, tokens);
    writer.add_i64("offsets", {static_cast<int64_t>(offsets.size())}, offsets);
    writer.add("label_mask", DType::u8, {static_cast<int64_t>(mask.size())}, mask.data());
    writer.write(folder.path() / "bad_examples");
    return with([&](ToyRun& r) { r.inputs["train_examples"] = folder.path() / "bad_examples"; });
  };
  names(with_examples({1, 2, 24}, {0, 1, 1}, {0, 3}), "token ids below 24");
  names(with_examples({1, 2, 3, 4}, {0, 1, 0, 0}, {0, 2, 4}), "example 1");
  names(with_examples({1, 2, 3}, {1, 1, 1}, {0, 3}), "first token");
  names(with_examples({1, 2, 3}, {0, 1, 1}, {0, 2}), "offsets");
  names(with_examples({1, 2, 3}, {0, 1, 1}, {0, 900, 3}), "example 0");
  names(with_examples({}, {}, {0}), "at least one example");
}

}  // namespace collimate
