// Adapters in PEFT's form as the start of tune, and merged models and logits out; every way an adapter can be wrong.
#include <doctest/doctest.h>

#include <cmath>

#include "adapter_runs.h"
#include "core/model/decoder.h"
#include "core/model/parameters.h"
#include "job_fixture.h"
#include "pool_decoder.h"

namespace collimate {
namespace {

constexpr int64_t kVocabulary = 50, kBaseRows = 40, kDim = 32;
const std::string kEmbedding = "base_model.model.model.embed_tokens", kHead = "base_model.model.lm_head";
const std::string kDelta = ".token_adapter.trainable_tokens_delta";
const std::string kMatrix = "base_model.model.model.layers.1.mlp.down_proj.lora_A.weight";

// Tensors and config of an adapter, to be changed before they are written.
struct Adapter {
  std::map<std::string, std::pair<std::vector<int64_t>, std::vector<float>>> tensors;
  Json config;

  static Adapter of_model(const std::filesystem::path& model) {
    const SafetensorsFile file = SafetensorsFile::open(model);
    Adapter adapter{.tensors = {}, .config = Json::parse(file.metadata().at("adapter_config"))};
    for (const auto& [name, tensor] : file.tensors()) {
      adapter.tensors[name] = {tensor.shape, file.as_f32(name, tensor.shape)};
    }
    return adapter;
  }
  // The run with this adapter among its inputs.
  ToyRun start(ToyRun run, const std::filesystem::path& folder) const {
    std::filesystem::create_directories(folder);
    SafetensorsWriter writer;
    for (const auto& [name, tensor] : tensors) writer.add_f32(name, tensor.first, tensor.second);
    writer.write(folder / "adapter_model.safetensors");
    write_text_atomically(folder / "adapter_config.json", config.dump());
    run.inputs["adapter/adapter_config.json"] = folder / "adapter_config.json";
    run.inputs["adapter/adapter_model.safetensors"] = folder / "adapter_model.safetensors";
    return run;
  }
  void add_table(const std::string& name, std::vector<float> values) {
    const auto rows = static_cast<int64_t>(values.size()) / kDim;
    tensors[name] = {{rows, kDim}, std::move(values)};
  }
};

// One run that trains an adapter, and what it wrote.
class Trained {
 public:
  Trained() : run(lora_run(folder.path(), 4)) {
    TuneHost host;
    model = run_rank_of(run, folder.path() / "trained", host, nullptr).outputs.at("model");
    adapter = Adapter::of_model(model);
  }
  // A step that changes nothing: the output is the start.
  ToyRun standing_still() const {
    ToyRun still = run;
    still.recipe["steps"] = 1;
    still.recipe["learningRate"] = still.recipe["minLearningRate"] = 0.0;
    return still;
  }
  Adapter output_of(const ToyRun& started, const char* name) const {
    TuneHost host;
    return Adapter::of_model(run_rank_of(started, folder.path() / name, host, nullptr).outputs.at("model"));
  }
  std::vector<float> base_table(const char* name) const {
    return SafetensorsFile::open(base_folder() / "model.safetensors").as_f32(name, {kBaseRows, kDim});
  }

  TemporaryFolder folder;
  ToyRun run;
  std::filesystem::path model;
  Adapter adapter;
};

std::vector<int64_t> shape_of(const Adapter& adapter, const std::string& name) {
  return adapter.tensors.at(name).first;
}

}  // namespace

TEST_CASE("peft adapter: a run starts from its matrices and token rows") {
  const Trained trained;
  const Adapter still =
      trained.output_of(trained.adapter.start(trained.standing_still(), trained.folder.path() / "adapter"), "still");
  CHECK(still.tensors == trained.adapter.tensors);
  CHECK(still.config == trained.adapter.config);
}

TEST_CASE("peft adapter: a start from one gives the same bytes for 1, 2 and 3 threads, and after a resume") {
  const Trained trained;
  ToyRun run = trained.adapter.start(trained.run, trained.folder.path() / "adapter");
  run.checkpoint_interval = 2;
  TuneHost saving;
  run_rank_of(run, trained.folder.path() / "1", saving, nullptr);
  run.checkpoint_interval = 0;
  for (const int threads : {2, 3}) {
    run.threads = threads;
    TuneHost host;
    const auto own = trained.folder.path() / std::to_string(threads);
    run_rank_of(run, own, host, nullptr);
    CHECK(output_bytes(own) == output_bytes(trained.folder.path() / "1"));
  }
  run.resume = saving.checkpoints.at(2);
  TuneHost resumed;
  run_rank_of(run, trained.folder.path() / "resumed", resumed, nullptr);
  CHECK(output_bytes(trained.folder.path() / "resumed") == output_bytes(trained.folder.path() / "1"));
}

TEST_CASE("peft adapter: rows that it lacks are drawn fresh, sparse rows land where their indices say") {
  const Trained trained;
  Adapter adapter = trained.adapter;
  adapter.config["trainable_token_indices"] = {47, 42};  // a list means the embedding
  adapter.tensors.erase(kHead + kDelta);
  std::vector<float> rows(2 * kDim, 0.25f);
  std::fill_n(rows.begin(), kDim, 0.5f);
  adapter.add_table(kEmbedding + kDelta, rows);
  const Adapter still =
      trained.output_of(adapter.start(trained.standing_still(), trained.folder.path() / "adapter"), "still");
  const auto& [shape, values] = still.tensors.at(kEmbedding + kDelta);
  REQUIRE(shape == std::vector<int64_t>{kVocabulary - kBaseRows, kDim});
  CHECK(values[7 * kDim] == 0.5f);
  CHECK(values[2 * kDim] == 0.25f);
  CHECK(values[3 * kDim] != 0.0f);
  CHECK(shape_of(still, kHead + kDelta) == std::vector<int64_t>{kVocabulary - kBaseRows, kDim});
}

TEST_CASE("peft adapter: a table in modules_to_save is trained whole, one saved for its size gives its new rows") {
  const Trained trained;
  std::vector<float> table = trained.base_table("model.embed_tokens.weight");
  table.resize(45 * kDim, 0.75f);  // five rows fewer than this run's vocabulary
  Adapter adapter = trained.adapter;
  adapter.config["trainable_token_indices"] = nullptr;
  for (const std::string& module : {kEmbedding, kHead}) adapter.tensors.erase(module + kDelta);
  SUBCASE("saved for its size") {
    adapter.add_table(kEmbedding + ".weight", table);
    const Adapter still =
        trained.output_of(adapter.start(trained.standing_still(), trained.folder.path() / "a"), "still");
    const auto& rows = still.tensors.at(kEmbedding + kDelta);
    REQUIRE(rows.first == std::vector<int64_t>{kVocabulary - kBaseRows, kDim});
    CHECK(rows.second[4 * kDim] == 0.75f);
    CHECK(rows.second[5 * kDim] != 0.75f);
  }
  SUBCASE("in modules_to_save, and the model that comes of it can be read again") {
    table[3] = 9.0f;
    adapter.add_table(kEmbedding + ".weight", table);
    adapter.add_table(kEmbedding + ".modules_to_save.weight", table);
    adapter.config["modules_to_save"] = {"embed_tokens"};
    const ToyRun run = adapter.start(trained.standing_still(), trained.folder.path() / "a");
    TuneHost host;
    const auto model = run_rank_of(run, trained.folder.path() / "whole", host, nullptr).outputs.at("model");
    const Adapter whole = Adapter::of_model(model);
    CHECK(shape_of(whole, kEmbedding + kDelta) == std::vector<int64_t>{kVocabulary, kDim});
    CHECK(shape_of(whole, kHead + kDelta) == std::vector<int64_t>{kVocabulary - kBaseRows, kDim});
    CHECK(whole.config.at("trainable_token_indices").at("embed_tokens").size() == kVocabulary);
    CHECK(whole.config.at("trainable_token_indices").at("lm_head").size() == kVocabulary - kBaseRows);
    const Parameters merged = load_model(model, run.inputs);
    CHECK(merged.data(merged.embedding())[3] == 9.0f);
  }
  SUBCASE("of another base") {
    table[3] = 9.0f;
    adapter.add_table(kEmbedding + ".weight", table);
    CHECK(failure_of(adapter.start(trained.run, trained.folder.path() / "a")).find("modules_to_save") !=
          std::string::npos);
  }
}

TEST_CASE("peft adapter: a setting that is not computed is refused by its name") {
  const Trained trained;
  const auto failure_with = [&](const char* field, const Json& value) {
    Adapter adapter = trained.adapter;
    adapter.config[field] = value;
    const std::string message = failure_of(adapter.start(trained.run, trained.folder.path() / "adapter"));
    CAPTURE(message);
    CHECK(message.find("\"" + std::string(field) + "\"") != std::string::npos);
    CHECK(message.find("expected") != std::string::npos);
  };
  failure_with("peft_type", "LOHA");
  failure_with("task_type", "SEQ_CLS");
  failure_with("bias", "lora_only");
  failure_with("init_lora_weights", "pissa");
  failure_with("r", 0);
  failure_with("lora_alpha", "8");
  failure_with("target_modules", "all-linear");
  failure_with("target_modules", {"q_proj", "embed_tokens"});
  failure_with("modules_to_save", {"norm"});
  failure_with("trainable_token_indices", {1, 1});
  failure_with("trainable_token_indices", {{"norm", {45}}});
  failure_with("rank_pattern", {{"q_proj", 2}});
  failure_with("alpha_pattern", {{"q_proj", 2}});
  failure_with("layers_to_transform", {0});
  for (const char* field : {"use_dora", "use_rslora", "use_qalora", "fan_in_fan_out", "lora_bias", "of_tomorrow"}) {
    failure_with(field, true);
  }
}

TEST_CASE("peft adapter: tensors and rows that do not fit are refused by their names") {
  const Trained trained;
  const auto failure_after = [&](const auto& change) {
    Adapter adapter = trained.adapter;
    change(adapter);
    return failure_of(adapter.start(trained.run, trained.folder.path() / "adapter"));
  };
  CHECK(failure_after([](Adapter& a) { a.tensors.erase(kMatrix); }).find(kMatrix) != std::string::npos);
  CHECK(failure_after([](Adapter& a) { a.tensors[kMatrix].first = {48, 4}; }).find("[4,48]") != std::string::npos);
  CHECK(failure_after([](Adapter& a) { a.add_table(kHead + kDelta, std::vector<float>(9 * kDim)); }).find(kHead) !=
        std::string::npos);
  const std::string stray = "base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight";
  CHECK(failure_after([&](Adapter& a) { a.add_table(stray, std::vector<float>(4 * kDim)); }).find(stray) !=
        std::string::npos);
  // Token rows: of the base's own vocabulary, behind this run's, and without being named in the config.
  for (const int64_t index : {39, 50}) {
    const std::string message = failure_after([&](Adapter& a) {
      a.config["trainable_token_indices"]["lm_head"] = {index};
      a.add_table(kHead + kDelta, std::vector<float>(kDim));
    });
    CHECK(message.find("trainable_token_indices") != std::string::npos);
    CHECK(message.find(std::to_string(index)) != std::string::npos);
  }
  CHECK(failure_after([](Adapter& a) { a.config.erase("trainable_token_indices"); }).find(kDelta) != std::string::npos);
}

TEST_CASE("peft adapter: a recipe that says something else than the adapter is refused") {
  const Trained trained;
  const ToyRun good = trained.adapter.start(trained.run, trained.folder.path() / "adapter");
  const auto failure_with = [&](const char* field, const Json& value) {
    ToyRun run = good;
    run.recipe["trainable"][field] = value;
    return failure_of(run);
  };
  CHECK(failure_with("rank", 8).find("trainable.rank") != std::string::npos);
  CHECK(failure_with("alpha", 4).find("trainable.alpha") != std::string::npos);
  CHECK(failure_with("targets", {"q_proj"}).find("trainable.targets") != std::string::npos);
  CHECK(failure_with("kind", "full").find("trainable.kind") != std::string::npos);
  ToyRun half = good;
  half.inputs.erase("adapter/adapter_config.json");
  CHECK(failure_of(half).find("adapter_config.json") != std::string::npos);
  ToyRun scratch = toy_run(trained.folder.path(), 2);
  scratch.inputs.insert(half.inputs.find("adapter/adapter_model.safetensors"), half.inputs.end());
  scratch.inputs["adapter/adapter_config.json"] = good.inputs.at("adapter/adapter_config.json");
  CHECK(failure_of(scratch).find("scratch") != std::string::npos);
}

TEST_CASE("merge and logits: whole weights of an adapter, the same answers, the same bytes for 1, 2 and 3 threads") {
  const Trained trained;
  JobRequest request{.kind = "merge", .recipe = Json::object(), .inputs = trained.run.inputs, .resume_dir = {}};
  request.inputs["model"] = trained.model;
  RecordingHost host;
  const JobOutcome merged = run_in(trained.folder.path(), "merge", request, host, run_merge);
  const Json config = Json::parse(bytes_of(merged, "config"));
  CHECK(config.at("torch_dtype") == "float32");
  CHECK(config.at("vocab_size") == kVocabulary);
  const Parameters expected = load_model(trained.model, trained.run.inputs);
  const SafetensorsFile weights = SafetensorsFile::open(merged.outputs.at("weights"));
  CHECK(weights.tensors().size() == expected.all().size());
  for (int number = 0; number < static_cast<int>(expected.all().size()); ++number) {
    const auto values = weights.f32(expected.at(number).name, expected.at(number).shape);
    CHECK(std::equal(values.begin(), values.end(), expected.data(number)));
  }

  const std::vector<int32_t> tokens{27, 30, 33, 36, 39, 28, 49};
  const std::vector<int64_t> offsets{0, 4, 4, 7};
  SafetensorsWriter prompts;
  prompts.add_i32("tokens", {7}, tokens);
  prompts.add_i64("offsets", {4}, offsets);
  prompts.write(trained.folder.path() / "prompts");
  request.kind = "logits";
  request.inputs["prompts"] = trained.folder.path() / "prompts";
  const JobOutcome outcome = run_in(trained.folder.path(), "logits", request, host, run_logits);
  const auto logits = SafetensorsFile::open(outcome.outputs.at("logits"));
  PackedBatch batch;
  batch.add(std::span(tokens).subspan(4), std::vector<uint8_t>{0, 0, 1});
  Pool pool(1);
  const auto of_token = PoolDecoder(expected, pool, 4).logits(batch);  // behind the token 28
  // Another number of rows in the head's product is another order of sums.
  for (int64_t i = 0; i < kVocabulary; ++i) {
    const float ours = logits.f32("logits", {7, kVocabulary})[static_cast<size_t>(5 * kVocabulary + i)];
    CHECK(std::fabs(ours - of_token[static_cast<size_t>(i)]) < 1e-5f);
  }
  for (const int threads : {2, 3}) {
    request.threads = threads;
    const std::string name = std::to_string(threads) + "-threads";
    CHECK(bytes_of(run_in(trained.folder.path(), name, request, host, run_logits), "logits") ==
          bytes_of(outcome, "logits"));
    CHECK(bytes_of(run_in(trained.folder.path(), "merge-" + name, request, host, run_merge), "weights") ==
          bytes_of(merged, "weights"));
  }
}

}  // namespace collimate
