// The `rank` job as the worker runs it: files in, lists out; full models and adapters; abort, stop and bad input.
#include <doctest/doctest.h>

#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "core/failure.h"
#include "core/job.h"
#include "core/model/parameters.h"
#include "core/rank/ranker.h"
#include "core/safetensors.h"
#include "test/rank_models.h"
#include "test/rank_reference.h"
#include "test/temporary_folder.h"

namespace collimate {
namespace {

using rank_test::Model;
using rank_test::Prompts;

class RecordingHost : public JobHost {
 public:
  void on_step(int64_t step, int64_t steps_total, const std::map<std::string, double>& metrics) override {
    steps.push_back(step);
    total = steps_total;
    users += metrics.at("users");
    if (metrics.count("search_loss_prompts") != 0) compared += metrics.at("search_loss_prompts");
  }
  void on_log(const char*, const std::string&) override {}
  void on_checkpoint(int64_t, const std::filesystem::path&, double) override { FAIL("rank writes no checkpoints"); }
  uint32_t take_control() override { return control; }
  bool aborted() override { return ++questions > aborted_after; }

  std::vector<int64_t> steps;
  int64_t total = 0;
  double users = 0.0, compared = 0.0;
  uint32_t control = kControlNone;
  int questions = 0, aborted_after = 1 << 30;
};

void write_vocabulary(const reference::Catalogue& catalogue, int64_t size, const std::filesystem::path& path) {
  SafetensorsWriter writer;
  const std::vector<int64_t> sizes = {size, 11};
  writer.add_i32("item_tokens", {catalogue.items, catalogue.levels}, catalogue.item_tokens);
  writer.add_i64("sizes", {2}, sizes);
  writer.write(path);
}

void write_prompts(const Prompts& prompts, const std::filesystem::path& path) {
  SafetensorsWriter writer;
  writer.add_i32("tokens", {static_cast<int64_t>(prompts.tokens.size())}, prompts.tokens);
  writer.add_i64("offsets", {static_cast<int64_t>(prompts.offsets.size())}, prompts.offsets);
  writer.add_i32("users", {static_cast<int64_t>(prompts.users.size())}, prompts.users);
  writer.write(path);
}

// A folder with the inputs of a job, and runs of it.
class Bench {
 public:
  Bench(const Model& model, const Prompts& prompts) {
    write_model(model.parameters, folder_.path() / "model");
    write_vocabulary(model.catalogue, model.parameters.config().vocabulary, folder_.path() / "vocabulary");
    write_prompts(prompts, folder_.path() / "prompts");
    for (const char* name : {"model", "vocabulary", "prompts"}) spec.inputs[name] = folder_.path() / name;
    spec.kind = "rank";
    spec.recipe = {{"beams", 9}, {"topK", 6},  {"scoreNormaliser", "full"}, {"searchLossPrompts", 0},
                   {"first", 0}, {"count", 12}};
    spec.threads = 2;
    spec.scratch_dir = folder_.path();
  }
  const std::filesystem::path& path() const { return folder_.path(); }

  JobOutcome run() {
    spec.output_dir = folder_.path() / ("out" + std::to_string(runs_++));
    std::filesystem::create_directory(spec.output_dir);
    JobContext context(spec, host, nullptr);
    return run_rank(context);
  }
  std::string failure(FailureCause cause = FailureCause::bad_input) {
    try {
      run();
    } catch (const JobFailure& failure) {
      CHECK(failure.cause() == cause);
      CHECK(std::filesystem::is_empty(spec.output_dir));
      return failure.what();
    }
    return "";
  }

  JobSpec spec;
  RecordingHost host;

 private:
  TemporaryFolder folder_;
  int runs_ = 0;
};

std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

const std::vector<int64_t> kLengths = {5, 7, 3, 9, 20, 2, 7, 11, 4, 6, 21, 8};

bool mentions(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST_CASE("rank job: writes the lists of its shard, the same bytes at any number of threads") {
  const Model model = rank_test::make_model({.items = 40, .width = 6}, 31);
  const Prompts prompts = rank_test::make_prompts(model, kLengths, 32);
  Bench bench(model, prompts);
  bench.spec.recipe["first"] = 3;
  bench.spec.recipe["count"] = 7;
  bench.host.control = kControlStop;  // a short job finishes instead
  const JobOutcome outcome = bench.run();
  CHECK(outcome.kind == JobOutcome::Kind::finished);
  CHECK(outcome.step == 2);
  CHECK(bench.host.steps == std::vector<int64_t>{1, 2});
  CHECK(bench.host.total == 2);
  CHECK(bench.host.users == 7.0);

  const auto lists = SafetensorsFile::open(outcome.outputs.at("lists"));
  const auto users = lists.i32("users", {7});
  const auto items = lists.i32("items", {7, 6});
  const auto scores = lists.f32("scores", {7, 6});
  double top_scores = 0.0;
  for (int64_t i = 0; i < 7; ++i) {
    CHECK(users[static_cast<size_t>(i)] == 103 + i);
    const auto expected = reference::beam_search(model.catalogue, 9, true, model.next_logits(prompts.prompt(3 + i)));
    for (int64_t k = 0; k < 6; ++k) {
      const auto at = static_cast<size_t>(i * 6 + k), rank = static_cast<size_t>(k);
      CHECK(items[at] == expected[rank].item);
      CHECK(std::abs(static_cast<double>(scores[at]) - expected[rank].score) < 2e-4);
    }
    top_scores += static_cast<double>(scores[static_cast<size_t>(i * 6)]);
  }
  CHECK(outcome.summary.at("users") == 7);
  CHECK(outcome.summary.at("shortLists") == 0);
  CHECK(outcome.summary.at("meanTopScore").get<double>() == doctest::Approx(top_scores / 7));

  const std::string bytes = bytes_of(outcome.outputs.at("lists"));
  for (const int threads : {1, 3}) {
    bench.spec.threads = threads;
    CHECK(bytes_of(bench.run().outputs.at("lists")) == bytes);
  }
}

TEST_CASE("rank job: more places than items are padded with -1 and the stated score") {
  const Model model = rank_test::make_model({.items = 4, .width = 6}, 33);
  Bench bench(model, rank_test::make_prompts(model, kLengths, 34));
  const JobOutcome outcome = bench.run();
  const auto lists = SafetensorsFile::open(outcome.outputs.at("lists"));
  for (size_t i = 0; i < 12; ++i) {
    CHECK(lists.i32("items", {12, 6})[i * 6 + 3] >= 0);
    for (size_t k = 4; k < 6; ++k) {
      CHECK(lists.i32("items", {12, 6})[i * 6 + k] == -1);
      CHECK(lists.f32("scores", {12, 6})[i * 6 + k] == -1e30f);
    }
  }
  CHECK(outcome.summary.at("shortLists") == 12);
}

TEST_CASE("rank job: the search loss is in summary and events, and neither it nor a list of widths moves a byte") {
  const Model model = rank_test::make_model({.items = 40, .width = 6}, 43);
  Bench bench(model, rank_test::make_prompts(model, kLengths, 44));
  const JobOutcome without = bench.run();
  CHECK(without.summary.at("searchLoss").is_null());
  CHECK(bench.host.compared == 0.0);
  bench.spec.recipe["searchLossPrompts"] = 5;
  const JobOutcome with = bench.run();
  CHECK(bench.host.compared == 5.0);
  const Json& loss = with.summary.at("searchLoss");
  CHECK(loss.at("prompts") == 5);
  CHECK(loss.at("givenUp") == 0);
  CHECK(loss.at("overlap").get<double>() > 0.0);
  CHECK(bytes_of(with.outputs.at("lists")) == bytes_of(without.outputs.at("lists")));
  bench.spec.recipe["beams"] = {9, 9, 9, 9};
  const JobOutcome listed = bench.run();
  CHECK(bytes_of(listed.outputs.at("lists")) == bytes_of(without.outputs.at("lists")));
  CHECK(listed.summary == with.summary);
  for (const int threads : {1, 3}) {
    bench.spec.threads = threads;
    CHECK(bench.run().summary == with.summary);
  }
}

// A base of fewer tokens than the run's vocabulary, and an adapter over it with a B that is not zero.
struct Adapted {
  Model model;  // adapter not merged
  Adapted(const Model& full, const std::filesystem::path& folder, int64_t base_rows)
      : model{make(full, folder, base_rows), full.catalogue} {}

  static Parameters make(const Model& full, const std::filesystem::path& folder, int64_t base_rows) {
    DecoderConfig config = full.parameters.config();
    config.vocabulary = base_rows;
    Parameters base({.config = config});
    rank_test::randomise(base, 77);
    SafetensorsWriter writer;
    for (int number = 0; number < static_cast<int>(base.all().size()); ++number) {
      const Parameter& p = base.at(number);
      writer.add_f32(p.name, p.shape, {base.data(number), static_cast<size_t>(p.elements())});
    }
    std::ofstream(folder / "config.json") << config.to_text();
    writer.write(folder / "model.safetensors");

    config.vocabulary = full.parameters.config().vocabulary;
    Parameters adapted(
        {.config = config,
         .trainable = {.lora = true, .rank = 3, .alpha = 6.0, .targets = {"down_proj", "q_proj", "v_proj"}},
         .first_trained_rows = {base_rows, base_rows}});
    load_base(adapted, BaseFiles::from_inputs(inputs(folder)), 5);
    initialise_adapters(adapted, 6);
    for (int number = 0; number < static_cast<int>(adapted.all().size()); ++number) {
      const Parameter& p = adapted.at(number);
      if (!mentions(p.name, "lora_B")) continue;
      for (int64_t i = 0; i < p.elements(); ++i) {
        const RandomStream stream{.seed = 8, .site = RandomSite::test, .stream = static_cast<uint64_t>(number)};
        adapted.data(number)[i] = 0.3f * random_normal(stream, static_cast<uint64_t>(i));
      }
    }
    return adapted;
  }
  static std::map<std::string, std::filesystem::path> inputs(const std::filesystem::path& folder) {
    return {{"base/config.json", folder / "config.json"}, {"base/model.safetensors", folder / "model.safetensors"}};
  }
};

TEST_CASE("rank job: an adapter over its base ranks like the unmerged model") {
  const Model full = rank_test::make_model({.items = 40, .width = 6}, 35);
  TemporaryFolder folder;
  const Adapted adapted(full, folder.path(), 11);
  const Prompts prompts = rank_test::make_prompts(full, kLengths, 36);
  Bench bench(adapted.model, prompts);
  for (const auto& [name, path] : Adapted::inputs(folder.path())) bench.spec.inputs[name] = path;
  const JobOutcome outcome = bench.run();
  const auto lists = SafetensorsFile::open(outcome.outputs.at("lists"));
  for (int64_t user = 0; user < 12; ++user) {
    const auto expected =
        reference::beam_search(full.catalogue, 9, true, adapted.model.next_logits(prompts.prompt(user)));
    for (int64_t k = 0; k < 6; ++k) {
      const auto at = static_cast<size_t>(user * 6 + k);
      CHECK(lists.i32("items", {12, 6})[at] == expected[static_cast<size_t>(k)].item);
      CHECK(static_cast<double>(lists.f32("scores", {12, 6})[at]) ==
            doctest::Approx(expected[static_cast<size_t>(k)].score).epsilon(1e-4));
    }
  }
  bench.spec.inputs.erase("base/config.json");
  CHECK(mentions(bench.failure(), "base/config.json"));
}

TEST_CASE("rank job: an abandoned attempt ends without lists") {
  const Model model = rank_test::make_model({.items = 40, .width = 6}, 37);
  Bench bench(model, rank_test::make_prompts(model, kLengths, 38));
  bench.host.aborted_after = 3;
  CHECK_THROWS_AS(bench.run(), JobAborted);
  CHECK(std::filesystem::is_empty(bench.spec.output_dir));
}

TEST_CASE("rank job: bad recipes and inputs are named") {
  const Model model = rank_test::make_model({.items = 40, .width = 6}, 39);
  Bench bench(model, rank_test::make_prompts(model, kLengths, 40));
  const Json good = bench.spec.recipe;
  const auto with = [&](const char* field, const Json& value) {
    bench.spec.recipe = good;
    bench.spec.recipe[field] = value;
    const std::string message = bench.failure();
    bench.spec.recipe = good;
    return message;
  };
  CHECK(mentions(with("topK", 10), "topK 10 and beams 9"));
  CHECK(mentions(with("beams", 0), "`beams`"));
  CHECK(mentions(with("beams", 2.5), "`beams`"));
  CHECK(mentions(with("beams", Json::array({9, 9, 9})), "each of the 4 levels of the ids, got a list of 3"));
  CHECK(mentions(with("beams", Json::array()), "got a list of 0"));
  CHECK(mentions(with("beams", Json::array({9, 9, 9, 5})), "topK 6 and beams 5 at the last level"));
  CHECK(mentions(with("beams", Json::array({9, 9, "9", 9})), "`beams`, got \"9\""));
  CHECK(mentions(with("searchLossPrompts", -1), "`searchLossPrompts`"));
  CHECK(mentions(with("scoreNormaliser", "none"), "got \"none\""));
  CHECK(mentions(with("scoreNormaliser", 3), "`scoreNormaliser`, got 3"));
  CHECK(mentions(with("count", 13), "within the 12 prompts, got first 0 and count 13"));

  write_vocabulary(model.catalogue, 99, bench.path() / "vocabulary");
  CHECK(mentions(bench.failure(), "the vocabulary's 99 tokens"));
  write_vocabulary(model.catalogue, model.catalogue.vocabulary, bench.path() / "vocabulary");
  Prompts torn = rank_test::make_prompts(model, kLengths, 41);
  torn.offsets[4] = torn.offsets[6];
  write_prompts(torn, bench.path() / "prompts");
  CHECK(mentions(bench.failure(), "render again"));
  bench.spec.inputs.erase("prompts");
  CHECK(mentions(bench.failure(), "\"prompts\""));
}

}  // namespace
}  // namespace collimate
