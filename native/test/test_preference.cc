// The softmax-over-negatives form of preference training: its loss, its gradient through the decoder, and its examples
// in `tune`.
//
// Tolerances of finite differences: as in test_decoder.cc, of a loss of order one.
#include <doctest/doctest.h>

#include <cmath>

#include "core/failure.h"
#include "core/model/preference_loss.h"
#include "core/model/training_examples.h"
#include "pool_decoder.h"
#include "tiny_decoder.h"
#include "tune_runs.h"

namespace collimate {
namespace {

constexpr double kGradient = 5e-3;

void check_gradients(bool lora) {
  Pool pool(2);
  Parameters parameters = tiny_parameters(false, lora);
  const PackedBatch batch = grouped_batch(kGroupReference);
  PoolDecoder decoder(parameters, pool, 16);
  std::vector<float> gradient(static_cast<size_t>(parameters.trained_elements()), 0.0f), unused(gradient.size());
  const auto pass = [&](std::vector<float>& into) {
    return decoder.forward_backward(batch, {.loss_scale = 0.5f,
                                            .dropout = {.probability = 0.1f, .seed = 1, .step = 5, .lane = 2},
                                            .gradient = into,
                                            .preference_beta = 0.4});
  };
  pass(gradient);
  for (int number = 0; number < static_cast<int>(parameters.all().size()); ++number) {
    const Parameter& parameter = parameters.at(number);
    if (parameter.train_rows == 0) continue;
    const auto elements = static_cast<size_t>(parameter.trained_elements());
    CAPTURE(parameter.name);
    const double error = gradient_error(
        {.values = std::span(parameters.data(number) + parameter.train_first_row * parameter.row_elements(), elements),
         .analytic = std::span(gradient).subspan(static_cast<size_t>(parameter.gradient_offset), elements),
         .loss = [&] { return 0.5 * pass(unused); },
         .step = 5e-3f});
    CHECK(error < kGradient);
  }
}

// Every third example is a group: the true continuation before three false ones.
void write_grouped_inputs(const std::filesystem::path& folder, bool only_groups) {
  write_toy_inputs(folder);
  std::vector<int32_t> tokens;
  std::vector<int64_t> offsets{0}, groups{0};
  std::vector<uint8_t> mask, tasks;
  const auto sequence = [&](int32_t start, int32_t answer) {
    for (const int32_t token : {start, (start + 3) % 24, answer % 24}) tokens.push_back(token);
    for (const uint8_t label : {0, 0, 1}) mask.push_back(label);
    offsets.push_back(static_cast<int64_t>(tokens.size()));
  };
  for (int32_t e = 0; e < 48; ++e) {
    const int32_t start = e % 24;
    const bool group = only_groups || e % 3 == 0;
    sequence(start, start + 6);
    for (int32_t i = 1; group && i <= 3; ++i) sequence(start, start + 6 + 5 * i);
    groups.push_back(static_cast<int64_t>(offsets.size()) - 1);
    tasks.push_back(group ? 1 : 0);
  }
  SafetensorsWriter writer;
  writer.add_i32("tokens", {static_cast<int64_t>(tokens.size())}, tokens);
  writer.add_i64("offsets", {static_cast<int64_t>(offsets.size())}, offsets);
  writer.add("label_mask", DType::u8, {static_cast<int64_t>(mask.size())}, mask.data());
  writer.add_i64("groups", {static_cast<int64_t>(groups.size())}, groups);
  writer.add("tasks", DType::u8, {static_cast<int64_t>(tasks.size())}, tasks.data());
  writer.set_metadata("tasks", "sequential ranking");
  writer.write(folder / "train_examples");
}

std::vector<std::string> gang_bytes(const ToyRun& run, int world, const std::filesystem::path& folder) {
  std::vector<std::string> bytes(static_cast<size_t>(world));
  run_gang(world, [&](Transport& transport) {
    TuneHost host;
    const auto own = folder / std::to_string(transport.rank());
    run_rank_of(run, own, host, &transport);
    bytes[static_cast<size_t>(transport.rank())] = output_bytes(own);
  });
  return bytes;
}

}  // namespace

TEST_CASE("preference loss: the formula, its gradient, and no overflow") {
  const std::vector<double> ratios{0.3, -0.4, 1.2, 0.1};
  const double beta = 0.7;
  const auto plain = [&](std::vector<double> d) {
    double sum = 0.0;
    for (size_t i = 1; i < d.size(); ++i) sum += std::exp(beta * (d[i] - d[0]));
    return -std::log(1.0 / (1.0 + std::exp(std::log(sum))));
  };
  const PreferenceLoss found = preference_loss(ratios, beta);
  CHECK(found.loss == doctest::Approx(plain(ratios)).epsilon(1e-12));
  for (size_t i = 0; i < ratios.size(); ++i) {
    std::vector<double> above = ratios, below = ratios;
    above[i] += 1e-5;
    below[i] -= 1e-5;
    CHECK(found.gradient[i] == doctest::Approx((plain(above) - plain(below)) / 2e-5).epsilon(1e-6));
  }
  // With one negative it is DPO.
  const std::vector<double> pair{0.2, -0.5};
  CHECK(preference_loss(pair, 0.1).loss == doctest::Approx(-std::log(1.0 / (1.0 + std::exp(-0.07)))));
  const std::vector<double> far{-4000.0, 4000.0}, sure{4000.0, -4000.0};
  CHECK(preference_loss(far, 1.0).loss == doctest::Approx(8000.0));
  CHECK(preference_loss(far, 1.0).gradient[0] == doctest::Approx(-1.0));
  CHECK(preference_loss(sure, 1.0).loss == doctest::Approx(0.0));
  const std::vector<double> broken{0.0, std::nan("")};
  CHECK(std::isnan(preference_loss(broken, 1.0).loss));
}

TEST_CASE("preference groups: gradients through the decoder, full and of adapters") {
  check_gradients(false);
  check_gradients(true);
}

TEST_CASE("preference groups: the loss is that of the answers' log-probabilities, the rest is cross-entropy") {
  Pool pool(1);
  const Parameters parameters = tiny_parameters(false, false);
  const PackedBatch batch = grouped_batch(kGroupReference);
  PoolDecoder decoder(parameters, pool, 16);
  const std::vector<double> losses = decoder.losses(batch);
  std::vector<double> terms(losses.size());
  std::vector<float> gradient(static_cast<size_t>(parameters.trained_elements()), 0.0f);
  const double sum =
      decoder.forward_backward(batch, {.gradient = gradient, .preference_beta = 0.4, .label_losses = terms});
  double expected = 0.0;
  for (const PreferenceGroup& group : batch.groups) {
    std::vector<double> ratios;
    for (size_t i = 0; i < group.reference.size(); ++i) {
      double log_probability = 0.0;
      for (int64_t label = group.label_bounds[i]; label < group.label_bounds[i + 1]; ++label)
        log_probability -= losses[static_cast<size_t>(label)];
      ratios.push_back(log_probability - group.reference[i]);
    }
    const double loss = preference_loss(ratios, 0.4).loss;
    CHECK(terms[static_cast<size_t>(group.label_bounds.front())] == doctest::Approx(loss));
    expected += loss;
  }
  CHECK(batch.labels() == 12);
  for (const size_t label : {6, 7}) {
    CHECK(terms[label] == doctest::Approx(losses[label]));
    expected += losses[label];
  }
  CHECK(sum == doctest::Approx(expected));
}

TEST_CASE("tune with groups: begins at the loss of no preference, and learns to prefer") {
  const TemporaryFolder folder;
  write_grouped_inputs(folder.path(), true);
  ToyRun run = toy_run(folder.path(), 120);
  run.recipe["dropout"] = 0.0;
  run.recipe["preferenceBeta"] = 1.0;
  TuneHost host;
  const JobOutcome outcome = run_rank_of(run, folder.path(), host, nullptr);
  const SafetensorsFile file = SafetensorsFile::open(outcome.outputs.at("loss_curve"));
  const auto curve = file.f32("loss", {120});
  // The model and its reference are the same at first: log(1 + 3).
  CHECK(curve[0] == doctest::Approx(std::log(4.0)).epsilon(1e-5));
  CHECK(curve[119] < 0.1f);
  CHECK(host.last_metrics.at("loss_ranking") == doctest::Approx(host.last_metrics.at("loss")));
  CHECK(host.last_metrics.count("loss_sequential") == 0);
}

TEST_CASE("tune with groups: threads, ranks and resuming change no byte, and each task's loss is told") {
  const TemporaryFolder folder;
  write_grouped_inputs(folder.path(), false);
  ToyRun run = toy_run(folder.path(), 8);
  run.checkpoint_interval = 3;
  TuneHost saving, host;
  run_rank_of(run, folder.path() / "alone", saving, nullptr);
  run.checkpoint_interval = 0;
  const std::string expected = output_bytes(folder.path() / "alone");
  // Of 14 examples every third is a group of one term; the others have one label each.
  const double both = saving.last_metrics.at("loss_sequential") + saving.last_metrics.at("loss_ranking");
  CHECK(saving.last_metrics.at("loss") < both);
  run.threads = 3;
  run_rank_of(run, folder.path() / "threads", host, nullptr);
  CHECK(output_bytes(folder.path() / "threads") == expected);
  CHECK(host.last_metrics.at("loss_ranking") == saving.last_metrics.at("loss_ranking"));
  run.threads = 1;
  for (const int world : {2, 3}) {
    for (const std::string& bytes : gang_bytes(run, world, folder.path() / ("world-" + std::to_string(world))))
      CHECK(bytes == expected);
  }
  // The reference is that of the first weights, not of the checkpoint's.
  for (const int64_t step : {3, 6}) {
    CAPTURE(step);
    REQUIRE(saving.checkpoints.count(step) == 1);
    run.resume = saving.checkpoints[step];
    const auto own = folder.path() / ("resumed-" + std::to_string(step));
    run_rank_of(run, own, host, nullptr);
    CHECK(output_bytes(own) == expected);
  }
  run.resume.reset();
  run.recipe["preferenceBeta"] = 0.2;
  run_rank_of(run, folder.path() / "other", host, nullptr);
  CHECK(output_bytes(folder.path() / "other") != expected);
}

TEST_CASE("train_examples: groups and tasks that cannot be are refused by name") {
  const TemporaryFolder folder;
  const auto refusal = [&](const std::vector<int64_t>& groups, const std::vector<uint8_t>& tasks, const char* names) {
    const std::vector<int32_t> tokens{1, 2, 3, 4, 5, 6};
    const std::vector<int64_t> offsets{0, 2, 4, 6};
    const std::vector<uint8_t> mask{0, 1, 0, 1, 0, 1};
    SafetensorsWriter writer;
    writer.add_i32("tokens", {6}, tokens);
    writer.add_i64("offsets", {4}, offsets);
    writer.add("label_mask", DType::u8, {6}, mask.data());
    writer.add_i64("groups", {static_cast<int64_t>(groups.size())}, groups);
    writer.add("tasks", DType::u8, {static_cast<int64_t>(tasks.size())}, tasks.data());
    if (names != nullptr) writer.set_metadata("tasks", names);
    writer.write(folder.path() / "examples");
    try {
      const TrainingExamples examples(folder.path() / "examples", 24);
      CHECK(examples.count() == 2);
      CHECK(examples.terms_of(0) == 1);
      CHECK(examples.labels_of(1) == 2);
      CHECK(examples.terms_of(1) == 1);
      return std::string("fits");
    } catch (const JobFailure& failure) {
      CHECK(failure.cause() == FailureCause::bad_input);
      return std::string(failure.what());
    }
  };
  const auto names = [](const std::string& message, const char* part) {
    CAPTURE(message);
    CHECK(message.find(part) != std::string::npos);
  };
  CHECK(refusal({0, 1, 3}, {0, 1}, "sequential ranking") == "fits");
  names(refusal({0, 1, 2}, {0, 1}, "a b"), "expected groups that rise from 0 to 3");
  names(refusal({0, 2, 2, 3}, {0, 1, 1}, "a b"), "expected groups that rise");
  names(refusal({0, 1, 3}, {0, 1, 1}, "a b"), "tasks");
  names(refusal({0, 1, 3}, {0, 2}, "a b"), "task numbers below 2, got 2");
  names(refusal({0, 1, 3}, {0, 1}, "a B"), "task names of a-z");
  names(refusal({0, 1, 3}, {0, 1}, nullptr), "task names of a-z");
}

}  // namespace collimate
