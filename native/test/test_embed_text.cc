// Job `embed_text`: hidden states and their means against transformers, and rows that no batch size or pool changes.
//
// The fixtures (test/parity/make_hidden_fixtures.py) were computed in float64 from fp32 weights: as for the logits
// (test_decoder_parity.cc) what differs is our rounding, about 1e-6 of the largest value.
#include <doctest/doctest.h>

#include <cmath>

#include "core/failure.h"
#include "core/model/decoder.h"
#include "core/safetensors.h"
#include "test/fixtures.h"
#include "test/job_fixture.h"
#include "test/pool_decoder.h"

namespace collimate {
namespace {

constexpr double kTolerance = 1e-5;

std::map<std::string, std::filesystem::path> base_inputs(const std::string& architecture) {
  std::map<std::string, std::filesystem::path> inputs;
  for (const auto& entry : std::filesystem::directory_iterator(parity_fixture(architecture) / "base"))
    inputs["base/" + entry.path().filename().string()] = entry.path();
  return inputs;
}

double relative_difference(std::span<const float> ours, std::span<const float> theirs) {
  REQUIRE(ours.size() == theirs.size());
  double worst = 0, largest = 1e-12;
  for (size_t i = 0; i < ours.size(); ++i) {
    worst = std::max(worst, std::fabs(static_cast<double>(ours[i]) - static_cast<double>(theirs[i])));
    largest = std::max(largest, std::fabs(static_cast<double>(theirs[i])));
  }
  return worst / largest;
}

// The fixture's sequences as texts, with an empty one in second place.
JobRequest request_in(const std::filesystem::path& folder, const std::string& architecture) {
  const SafetensorsFile file = SafetensorsFile::open(parity_fixture(architecture) / "hidden.safetensors");
  const auto tokens = file.i32("tokens", {-1});
  const auto sequences = file.i64("offsets", {-1});
  std::vector<int64_t> offsets(sequences.begin(), sequences.end());
  offsets.insert(offsets.begin() + 1, offsets[1]);
  SafetensorsWriter writer;
  writer.add_i32("tokens", {static_cast<int64_t>(tokens.size())}, tokens);
  writer.add_i64("offsets", {static_cast<int64_t>(offsets.size())}, offsets);
  writer.write(folder / "text_tokens");
  JobRequest request{
      .kind = "embed_text", .recipe = {{"tokensPerBatch", 14}, {"centre", 0}}, .inputs = base_inputs(architecture)};
  request.inputs["text_tokens"] = folder / "text_tokens";
  return request;
}

}  // namespace

TEST_CASE("embed_text: hidden states and normalised means agree with transformers for every architecture") {
  for (const char* architecture : {"llama", "llama_bias", "mistral", "qwen2", "qwen3"}) {
    CAPTURE(architecture);
    TemporaryFolder folder;
    const SafetensorsFile file = SafetensorsFile::open(parity_fixture(architecture) / "hidden.safetensors");
    const auto tokens = file.i32("tokens", {-1});
    const auto offsets = file.i64("offsets", {-1});
    const BaseFiles base = BaseFiles::from_inputs(base_inputs(architecture));
    Parameters parameters({.config = base.read_config()});
    load_base(parameters, base, 0);
    PackedBatch batch;
    for (size_t s = 0; s + 1 < offsets.size(); ++s) {
      const auto length = static_cast<size_t>(offsets[s + 1] - offsets[s]);
      batch.add(tokens.subspan(static_cast<size_t>(offsets[s]), length), std::vector<uint8_t>(length, 0));
    }
    Pool pool(2);
    PoolDecoder decoder(parameters, pool, 64);
    const std::vector<float> hidden = decoder.hidden_states(batch);
    CHECK(relative_difference(hidden, file.f32("hidden", {batch.rows(), -1})) < kTolerance);

    RecordingHost host;
    const JobRequest request = request_in(folder.path(), architecture);
    const JobOutcome outcome = run_in(folder.path(), "run", request, host, run_embed_text);
    const int64_t dim = parameters.config().dim;
    const auto rows = SafetensorsFile::open(outcome.outputs.at("text_vectors")).as_f32("items", {4, dim});
    const auto means = file.f32("means", {3, dim});
    std::vector<float> expected(4 * dim);  // the empty text has a zero row
    for (int64_t text = 0; text < 3; ++text) {
      double square = 0;
      for (int64_t c = 0; c < dim; ++c) square += static_cast<double>(means[text * dim + c]) * means[text * dim + c];
      for (int64_t c = 0; c < dim; ++c)
        expected[(text == 0 ? 0 : text + 1) * dim + c] = static_cast<float>(means[text * dim + c] / std::sqrt(square));
    }
    CHECK(relative_difference(rows, expected) < kTolerance);
    CHECK(host.steps.size() == 2);  // 9 + 4 tokens, then 17
    CHECK(outcome.summary["withoutText"] == 1);
  }
}

TEST_CASE("embed_text job: the same bytes on 1, 2 and 3 threads; centred rows add up to nothing in common") {
  TemporaryFolder folder;
  JobRequest request = request_in(folder.path(), "llama");
  RecordingHost host;
  const JobOutcome plain = run_in(folder.path(), "plain", request, host, run_embed_text);
  for (const int threads : {2, 3}) {
    request.threads = threads;
    const JobOutcome other = run_in(folder.path(), "threads" + std::to_string(threads), request, host, run_embed_text);
    CHECK(bytes_of(other, "text_vectors") == bytes_of(plain, "text_vectors"));
  }
  request.recipe["centre"] = 1;
  const JobOutcome centred = run_in(folder.path(), "centred", request, host, run_embed_text);
  const auto rows = SafetensorsFile::open(centred.outputs.at("text_vectors")).as_f32("items", {4, -1});
  const auto before = SafetensorsFile::open(plain.outputs.at("text_vectors")).as_f32("items", {4, -1});
  const size_t dim = rows.size() / 4;
  const auto sum_of_cosines = [&](const std::vector<float>& of) {
    double sum = 0;
    for (const auto& [a, b] : {std::pair{0, 2}, {0, 3}, {2, 3}})
      for (size_t c = 0; c < dim; ++c) sum += static_cast<double>(of[a * dim + c]) * of[b * dim + c];
    return sum;
  };
  CHECK(sum_of_cosines(rows) < 0.0);  // three centred vectors lean away from each other
  CHECK(sum_of_cosines(rows) < sum_of_cosines(before));
  for (size_t c = 0; c < dim; ++c) CHECK(rows[dim + c] == 0.0f);
}

TEST_CASE("embed_text job: bad input says what to do") {
  TemporaryFolder folder;
  RecordingHost host;
  JobRequest request = request_in(folder.path(), "llama");
  SafetensorsWriter writer;
  const std::vector<int32_t> tokens{1, 2, 40};
  const std::vector<int64_t> offsets{0, 3};
  writer.add_i32("tokens", {3}, tokens);
  writer.add_i64("offsets", {2}, offsets);
  writer.write(folder.path() / "foreign");
  request.inputs["text_tokens"] = folder.path() / "foreign";
  CHECK_THROWS_WITH_AS(run_in(folder.path(), "foreign-run", request, host, run_embed_text),
                       doctest::Contains("own tokenizer"), JobFailure);
  request.inputs.erase("base/config.json");
  CHECK_THROWS_WITH_AS(run_in(folder.path(), "no-config", request, host, run_embed_text),
                       doctest::Contains("base/config.json"), JobFailure);
}

}  // namespace collimate
