// Tuning a Hugging Face base: adapters out, merged in again; every way the base can be wrong.
#include <doctest/doctest.h>

#include <cmath>

#include "adapter_runs.h"
#include "core/model/decoder.h"
#include "core/model/parameters.h"
#include "pool_decoder.h"

namespace collimate {
namespace {

PackedBatch probe() {
  PackedBatch batch;
  batch.add(std::vector<int32_t>{27, 30, 33, 36, 39}, std::vector<uint8_t>{0, 1, 1, 1, 1});
  return batch;
}

}  // namespace

TEST_CASE("tune: adapters learn over a frozen base, hold only what was trained, and merge into the same logits") {
  const TemporaryFolder folder;
  ToyRun run = lora_run(folder.path(), 60);
  run.recipe["dropout"] = 0.0;
  TuneHost host;
  const JobOutcome outcome = run_rank_of(run, folder.path(), host, nullptr);
  const SafetensorsFile losses = SafetensorsFile::open(outcome.outputs.at("loss_curve"));
  const auto curve = losses.f32("loss", {60});
  CHECK(curve[59] < 0.5f * curve[0]);

  const SafetensorsFile model = SafetensorsFile::open(outcome.outputs.at("model"));
  CHECK(model.tensors().size() == 2 * 4 * 2 + 2);
  // Tokens 40 and 41 are new without being items: their random rows are trained too.
  CHECK(model.get("base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta").shape ==
        std::vector<int64_t>{10, 32});
  CHECK(model.get("base_model.model.lm_head.token_adapter.trainable_tokens_delta").shape ==
        std::vector<int64_t>{10, 32});
  CHECK(model.get("base_model.model.model.layers.1.mlp.down_proj.lora_A.weight").shape == std::vector<int64_t>{4, 48});
  const Json adapter = Json::parse(model.metadata().at("adapter_config"));
  CHECK(adapter.at("r") == 4);
  CHECK(adapter.at("lora_alpha") == 8);
  CHECK(Json::parse(model.metadata().at("config")).at("vocab_size") == 50);

  // Unmerged: the same parameters with the adapters beside the matrices.
  Pool pool(1);
  DecoderConfig config = DecoderConfig::parse(model.metadata().at("config"), "model");
  Parameters apart(
      {.config = config,
       .trainable = {.lora = true, .rank = 4, .alpha = 8, .targets = {"q_proj", "v_proj", "gate_proj", "down_proj"}},
       .first_trained_rows = {40, 40}});
  load_base(apart, BaseFiles::from_inputs(run.inputs), 99);
  for (int number = 0; number < static_cast<int>(apart.all().size()); ++number) {
    const Parameter& parameter = apart.at(number);
    if (parameter.train_rows == 0) continue;
    const auto values = model.as_f32(exported_name(apart, number), {parameter.train_rows, -1});
    std::copy(values.begin(), values.end(), apart.data(number) + parameter.train_first_row * parameter.row_elements());
  }
  const Parameters merged = load_model(outcome.outputs.at("model"), run.inputs);
  const auto expected = PoolDecoder(apart, pool, 16).logits(probe());
  const auto logits = PoolDecoder(merged, pool, 16).logits(probe());
  for (size_t i = 0; i < logits.size(); ++i)
    CHECK(std::fabs(logits[i] - expected[i]) < 1e-4f);  // another order of sums
}

TEST_CASE("tune: adapters give the same bytes at 1 and 3 ranks, and after a resume") {
  const TemporaryFolder folder;
  ToyRun run = lora_run(folder.path(), 6);
  TuneHost saving, resumed;
  run.checkpoint_interval = 4;
  run_rank_of(run, folder.path() / "alone", saving, nullptr);
  const std::string expected = output_bytes(folder.path() / "alone");
  run.checkpoint_interval = 0;
  run_gang(3, [&](Transport& transport) {
    TuneHost host;
    const auto own = folder.path() / ("rank-" + std::to_string(transport.rank()));
    run_rank_of(run, own, host, &transport);
    CHECK(output_bytes(own) == expected);
  });
  run.resume = saving.checkpoints.at(4);
  run_rank_of(run, folder.path() / "resumed", resumed, nullptr);
  CHECK(output_bytes(folder.path() / "resumed") == expected);
}

TEST_CASE("tune: a Hugging Face base can be trained in full, from several shards") {
  const TemporaryFolder folder;
  ToyRun run = lora_run(folder.path(), 2);
  run.recipe["trainable"] = {{"kind", "full"}};
  TuneHost host;
  run_rank_of(run, folder.path() / "one", host, nullptr);
  const SafetensorsFile whole = SafetensorsFile::open(base_folder() / "model.safetensors");
  std::vector<SafetensorsWriter> shards(2);
  for (const auto& [name, tensor] : whole.tensors()) {
    shards[name.find("layers.1") == std::string::npos ? 0 : 1].add(name, tensor.dtype, tensor.shape, tensor.data);
  }
  run.inputs.erase("base/model.safetensors");
  for (const size_t i : {0, 1}) {
    const std::string name = "model-0000" + std::to_string(i + 1) + "-of-00002.safetensors";
    shards[i].write(folder.path() / name);
    run.inputs["base/" + name] = folder.path() / name;
  }
  run_rank_of(run, folder.path() / "two", host, nullptr);
  CHECK(output_bytes(folder.path() / "one") == output_bytes(folder.path() / "two"));
  CHECK(SafetensorsFile::open(folder.path() / "two" / "out" / "model").get("lm_head.weight").shape ==
        std::vector<int64_t>{50, 32});
}

TEST_CASE("tune: a base that does not fit is refused by the name of what is wrong") {
  const TemporaryFolder folder;
  const ToyRun good = lora_run(folder.path(), 2);
  const SafetensorsFile whole = SafetensorsFile::open(base_folder() / "model.safetensors");
  const Json config = Json::parse(read_text_file(base_folder() / "config.json"));
  const auto with_config = [&](const char* field, const Json& value) {
    Json changed = config;
    changed[field] = value;
    write_text_atomically(folder.path() / "config.json", changed.dump());
    ToyRun run = good;
    run.inputs["base/config.json"] = folder.path() / "config.json";
    return failure_of(run);
  };
  CHECK(with_config("architectures", {"GPTNeoXForCausalLM"}).find("GPTNeoXForCausalLM") != std::string::npos);
  CHECK(with_config("intermediate_size", 64).find("model.layers.0.mlp.gate_proj.weight") != std::string::npos);
  CHECK(with_config("vocab_size", 60).find("vocabulary") != std::string::npos);
  CHECK(with_config("max_position_embeddings", 4).find("max_position_embeddings") != std::string::npos);

  SafetensorsWriter writer;
  for (const auto& [name, tensor] : whole.tensors()) {
    if (name != "model.layers.1.self_attn.k_proj.weight") writer.add(name, tensor.dtype, tensor.shape, tensor.data);
  }
  writer.write(folder.path() / "partial.safetensors");
  ToyRun run = good;
  run.inputs["base/model.safetensors"] = folder.path() / "partial.safetensors";
  CHECK(failure_of(run).find("model.layers.1.self_attn.k_proj.weight") != std::string::npos);
  // What the decoder would leave out, and a type that it does not read.
  const std::vector<float> ones(32, 1.0f);
  const std::vector<int32_t> integers(32, 1);
  const auto with_tensor = [&](const std::string& name, const auto& add) {
    SafetensorsWriter changed;
    for (const auto& [other, tensor] : whole.tensors())
      if (other != name) changed.add(other, tensor.dtype, tensor.shape, tensor.data);
    add(changed);
    changed.write(folder.path() / "changed.safetensors");
    run.inputs["base/model.safetensors"] = folder.path() / "changed.safetensors";
    return failure_of(run);
  };
  const std::string bias = "model.layers.0.self_attn.q_proj.bias", norm = "model.norm.weight";
  const std::string table = "model.layers.0.self_attn.rotary_emb.inv_freq";
  CHECK(with_tensor(bias, [&](auto& to) { to.add_f32(bias, {32}, ones); }).find(bias) != std::string::npos);
  CHECK(with_tensor(table, [&](auto& to) { to.add_f32(table, {32}, ones); }) == "no failure");
  CHECK(with_tensor(norm, [&](auto& to) { to.add_i32(norm, {32}, integers); }).find(norm) != std::string::npos);
  run.inputs.erase("base/model.safetensors");
  CHECK(failure_of(run).find("base/<shard>.safetensors") != std::string::npos);
}

}  // namespace collimate
