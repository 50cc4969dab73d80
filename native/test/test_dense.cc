// The dense job: learning, and the same bytes whatever the threads, the world, the checkpoints and the interruptions.
#include <doctest/doctest.h>

#include <cmath>

#include "core/dense/dense_model.h"
#include "core/dense/item_rows.h"
#include "core/dense/sequences.h"
#include "core/failure.h"
#include "dense_runs.h"
#include "elastic_ranks.h"
#include "gradient_check.h"
#include "pool_decoder.h"

namespace collimate {
namespace {

std::string bytes_alone(const ToyRun& run, const std::filesystem::path& folder) {
  TuneHost host;
  CHECK(run_rank_of(run, folder, host, nullptr).kind == JobOutcome::Kind::finished);
  return output_bytes(folder);
}

}  // namespace

TEST_CASE("dense: learns the toy walk from behaviour, with text and without") {
  for (const bool text : {false, true}) {
    CAPTURE(text);
    const TemporaryFolder folder;
    write_dense_inputs(folder.path());
    TuneHost host;
    const JobOutcome outcome = run_rank_of(dense_run(folder.path(), 60, text), folder.path(), host, nullptr);
    CHECK(static_cast<int64_t>(host.steps.size()) == outcome.step);
    for (const char* name : {"loss", "learning_rate", "grad_norm", "tokens", "samples"})
      CHECK(host.last_metrics.count(name) == 1);
    const SafetensorsFile file = SafetensorsFile::open(outcome.outputs.at("loss_curve"));
    const auto curve = file.f32("loss", {outcome.step});
    CHECK(curve.front() > 2.5f);  // about log 30: a fresh model knows nothing
    CHECK(curve.back() < 0.6f);
    CHECK(outcome.summary["text"] == text);

    const auto model = dense::DenseModel::load(outcome.outputs.at("model"), "model_0");
    CHECK(model.items() == kDenseItems);
    CHECK(model.items_max == 5);
    Pool pool(1);
    PoolDecoder decoder(model.parameters, pool, 5,
                        {.hidden_length = dense::hidden_length(model.parameters.config().dim, model.temperature)});
    PackedBatch batch;
    const std::vector<int32_t> known{3, 10, 17}, next{24};
    dense::append_sequence(batch, known, next);
    const std::vector<float> logits = decoder.logits(batch);
    CHECK(std::max_element(logits.begin(), logits.end()) - logits.begin() == 24);
    for (const float logit : logits) CHECK(std::fabs(logit) <= 1.0f / 0.1f + 1e-3f);  // a cosine over the temperature
  }
}

TEST_CASE("dense: validation and test events are never seen") {
  const TemporaryFolder folder;
  write_dense_inputs(folder.path());
  const ToyRun run = dense_run(folder.path(), 3);
  const std::string expected = bytes_alone(run, folder.path() / "before");
  const SafetensorsFile file = SafetensorsFile::open(folder.path() / "dataset");
  const auto offsets = file.i64("user_offsets", {kDenseUsers + 1});
  const auto stored = file.i32("items", {-1});
  std::vector<int32_t> items(stored.begin(), stored.end());
  const auto write = [&](const char* name) {
    SafetensorsWriter writer;
    writer.add_i64("user_offsets", {kDenseUsers + 1}, offsets);
    writer.add_i32("items", {static_cast<int64_t>(items.size())}, items);
    writer.write(folder.path() / name);
    ToyRun other = run;
    other.inputs["dataset"] = folder.path() / name;
    return bytes_alone(other, folder.path() / (std::string(name) + "-run"));
  };
  int64_t held_out = 0;
  for (size_t user = 0; user < static_cast<size_t>(kDenseUsers); ++user) {
    if (offsets[user + 1] - offsets[user] < 3) continue;
    for (int64_t at = offsets[user + 1] - 2; at < offsets[user + 1]; ++at, ++held_out)
      items[static_cast<size_t>(at)] = (items[static_cast<size_t>(at)] + 1) % static_cast<int32_t>(kDenseItems);
  }
  REQUIRE(held_out > 40);
  CHECK(write("other-held-out") == expected);
  items[0] = (items[0] + 1) % static_cast<int32_t>(kDenseItems);
  CHECK(write("other-training") != expected);
}

TEST_CASE("dense: 1, 2 and 3 threads, and 1, 2, 3 and 4 ranks, give the same bytes") {
  for (const bool text : {false, true}) {
    CAPTURE(text);
    const TemporaryFolder folder;
    write_dense_inputs(folder.path());
    ToyRun run = dense_run(folder.path(), 2, text);
    const std::string expected = bytes_alone(run, folder.path() / "alone");
    for (const int threads : {2, 3}) {
      run.threads = threads;
      CHECK(bytes_alone(run, folder.path() / ("threads-" + std::to_string(threads))) == expected);
    }
    run.threads = 1;
    for (const int world : {2, 3, 4}) {
      CAPTURE(world);
      run_gang(world, [&](Transport& transport) {
        TuneHost host;
        const auto own = folder.path() / (std::to_string(world) + "-" + std::to_string(transport.rank()));
        run_rank_of(run, own, host, &transport);
        CHECK(output_bytes(own) == expected);
      });
    }
    run.recipe["seed"] = 6;
    CHECK(bytes_alone(run, folder.path() / "other") != expected);
  }
}

TEST_CASE("dense: resuming from any checkpoint ends in the bytes of the uninterrupted run") {
  const TemporaryFolder folder;
  write_dense_inputs(folder.path());
  ToyRun run = dense_run(folder.path(), 2);
  const std::string expected = bytes_alone(run, folder.path() / "plain");
  run.checkpoint_interval = 3;
  TuneHost saving;
  run_rank_of(run, folder.path() / "saving", saving, nullptr);
  CHECK(output_bytes(folder.path() / "saving") == expected);
  REQUIRE(saving.checkpoints.size() >= 2);
  run.checkpoint_interval = 0;
  for (const auto& [step, checkpoint] : saving.checkpoints) {
    CAPTURE(step);
    run.resume = checkpoint;
    TuneHost host;
    const auto own = folder.path() / ("resumed-" + std::to_string(step));
    run_rank_of(run, own, host, nullptr);
    CHECK(host.steps.front() == step + 1);
    CHECK(output_bytes(own) == expected);
  }
}

TEST_CASE("dense elastic: a survivor goes on by itself, and a newcomer takes its state") {
  const TemporaryFolder folder;
  write_dense_inputs(folder.path());
  const ToyRun run = dense_run(folder.path(), 2);
  const std::string expected = bytes_alone(run, folder.path() / "alone");
  ElasticRank survivor({.run = run, .folder = folder.path() / "survivor"});
  ElasticRank victim({.run = run, .folder = folder.path() / "victim"});
  ElasticRank newcomer({.run = run, .folder = folder.path() / "newcomer", .join_survivors = true});
  victim.host.at_step = [&victim](int64_t step) {
    if (step == 4) victim.host.control.abort();
  };
  form_gang({&survivor, &victim}, "broken");
  CHECK(survivor.parked().reason == ParkReason::peer_lost);
  form_gang({&newcomer, &survivor}, "with newcomer");
  CHECK(newcomer.bytes() == expected);
  CHECK(survivor.parked().reason == ParkReason::done);
  CHECK(repeats_nothing(survivor.host));
}

TEST_CASE("dense: the gradient of id rows and text network equals finite differences") {
  const TemporaryFolder folder;
  write_dense_inputs(folder.path());
  const dense::UserLog log(folder.path() / "dataset");
  const dense::Sequences sequences(log, 5);
  const auto text = dense::TextVectors::read(folder.path() / "text_vectors", log.items());
  const DecoderConfig config = DecoderConfig::from_shape(
      {.layers = 1, .dim = 8, .heads = 2, .kv_heads = 2, .ffn_dim = 6, .tie_embeddings = true}, log.items());
  Parameters parameters({.config = config, .appended = {{dense::kTextIn, 8, text.dim}, {dense::kTextOut, 8, 4}}});
  initialise_scratch(parameters, 3);
  // Matrices larger than fresh ones, so that nothing is almost linear.
  for (const Parameter& parameter : parameters.all()) {
    if (parameter.shape.size() < 2) continue;
    float* values = parameters.values().data() + parameter.offset;
    for (int64_t i = 0; i < parameter.elements(); ++i) values[i] *= 15.0f;
  }
  Pool pool(2);
  const PoolWeights of(parameters, pool);
  dense::ItemRows rows(of.weights, pool, &text);
  Decoder decoder(of.weights, 5, {.table = rows.table(), .hidden_length = dense::hidden_length(config.dim, 0.5)});
  PackedBatch batch;
  for (int64_t example = 0; example < 6; ++example) sequences.append_to(batch, example);
  const dense::ItemRows::IdDrop drop{.probability = 0.3f, .seed = 1, .step = 2};
  std::vector<float> gradient(static_cast<size_t>(parameters.trained_elements()));
  const auto loss = [&] {
    std::fill(gradient.begin(), gradient.end(), 0.0f);
    rows.make(drop);
    return decoder.forward_backward(batch, {.loss_scale = 1.0f, .gradient = gradient});
  };
  loss();
  rows.backward(gradient.data());
  const std::vector<float> analytic_all = gradient;
  for (const int number : {parameters.embedding(), parameters.number_of(dense::kTextIn),
                           parameters.number_of(dense::kTextOut), parameters.final_norm()}) {
    const Parameter& parameter = parameters.at(number);
    CAPTURE(parameter.name);
    const std::span<float> values(parameters.data(number), static_cast<size_t>(parameter.elements()));
    std::vector<float> own(values.begin(), values.end());
    const auto begin = analytic_all.begin() + parameter.gradient_offset;
    const std::vector<float> analytic(begin, begin + parameter.elements());
    CHECK(gradient_error({.values = own,
                          .analytic = analytic,
                          .loss =
                              [&] {
                                std::copy(own.begin(), own.end(), values.begin());
                                return loss();
                              },
                          .step = 3e-3f}) < 5e-3);
    std::copy(own.begin(), own.end(), values.begin());
  }
}

TEST_CASE("dense: what does not fit is refused by name") {
  const TemporaryFolder folder;
  write_dense_inputs(folder.path());
  ToyRun run = dense_run(folder.path(), 1);
  run.recipe["heads"] = 3;
  CHECK(failure_of(run).find("`dim`") != std::string::npos);
  run = dense_run(folder.path(), 1);
  run.recipe["lanes"] = 3;
  CHECK(failure_of(run).find("power of two") != std::string::npos);
  run = dense_run(folder.path(), 1);
  run.recipe.erase("temperature");
  CHECK(failure_of(run).find("`temperature`") != std::string::npos);
  run = dense_run(folder.path(), 1);
  const std::vector<float> rows(3 * 4, 1.0f);
  SafetensorsWriter writer;
  writer.add_f32("items", {3, 4}, rows);
  writer.write(folder.path() / "few");
  run.inputs["text_vectors"] = folder.path() / "few";
  CHECK(failure_of(run).find("[30, width]") != std::string::npos);
  const std::vector<int64_t> offsets{0, 1, 2};
  const std::vector<int32_t> items{0, 1};
  SafetensorsWriter short_log;
  short_log.add_i64("user_offsets", {3}, offsets);
  short_log.add_i32("items", {2}, items);
  short_log.write(folder.path() / "short");
  run = dense_run(folder.path(), 1, /*text=*/false);
  run.inputs["dataset"] = folder.path() / "short";
  CHECK(failure_of(run).find("two training events") != std::string::npos);
}

}  // namespace collimate
