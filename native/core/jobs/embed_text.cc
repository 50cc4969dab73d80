// Job `embed_text`: the mean of a base model's last hidden states over the tokens of each item's text.
//
// 1. Texts are packed in the order of their items, as many as fit into `tokensPerBatch`: batches are a function of
//    texts and recipe. A text longer than a batch is a batch of its own.
// 2. A text's hidden states do not depend on its neighbours in a batch (attention is block-diagonal); their bytes may,
//    which is why the batch size is part of the recipe.
// 3. With `centre` the mean over all texts is taken off before rows are normalised: hidden states share one large
//    direction, beside which what tells texts apart would be small. Items without a text have zero rows.
// 4. A gang of one, no checkpoints: a batch takes seconds, and what is lost is made again.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/failure.h"
#include "core/job.h"
#include "core/jobs/recipe_fields.h"
#include "core/model/decoder.h"
#include "core/model/parameters.h"
#include "core/safetensors.h"

namespace collimate {
namespace {

struct Texts {
  SafetensorsFile file;
  std::span<const int32_t> tokens;
  std::span<const int64_t> offsets;

  Texts(const std::filesystem::path& path, int64_t vocabulary)
      : file(SafetensorsFile::open(path)), tokens(file.i32("tokens", {-1})), offsets(file.i64("offsets", {-1})) {
    const bool fits = offsets.size() > 1 && offsets.front() == 0 &&
                      offsets.back() == static_cast<int64_t>(tokens.size()) &&
                      std::is_sorted(offsets.begin(), offsets.end());
    if (!fits)
      fail_bad_input("text_tokens: expected offsets ascending from 0 to the number of tokens, " +
                     std::to_string(tokens.size()) + ", got others; make the tokens again");
    for (const int32_t token : tokens)
      if (token < 0 || token >= vocabulary)
        fail_bad_input("text_tokens: expected tokens below the base model's vocabulary of " +
                       std::to_string(vocabulary) + ", got " + std::to_string(token) +
                       "; tokenize with the base's own tokenizer");
  }
  int64_t count() const { return static_cast<int64_t>(offsets.size()) - 1; }
  int64_t length(int64_t item) const { return offsets[item + 1] - offsets[item]; }
  std::span<const int32_t> at(int64_t item) const { return tokens.subspan(offsets[item], length(item)); }
  int64_t longest() const {
    int64_t most = 1;
    for (int64_t item = 0; item < count(); ++item) most = std::max(most, length(item));
    return most;
  }
};

// rows[item] = mean of the item's hidden rows, for items [begin, end).
void add_means(Decoder& decoder, const Texts& texts, int64_t begin, int64_t end, int64_t dim, float* rows) {
  PackedBatch batch;
  for (int64_t item = begin; item < end; ++item)
    if (texts.length(item) > 0)
      batch.add(texts.at(item), std::vector<uint8_t>(static_cast<size_t>(texts.length(item)), 0));
  if (batch.rows() == 0) return;
  const std::vector<float> hidden = decoder.hidden_states(batch);
  const float* from = hidden.data();
  std::vector<double> sum(dim);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t length = texts.length(item);
    if (length == 0) continue;
    std::fill(sum.begin(), sum.end(), 0.0);
    for (int64_t t = 0; t < length; ++t, from += dim)
      for (int64_t c = 0; c < dim; ++c) sum[c] += static_cast<double>(from[c]);
    for (int64_t c = 0; c < dim; ++c) rows[item * dim + c] = static_cast<float>(sum[c] / static_cast<double>(length));
  }
}

void centre_rows(const Texts& texts, int64_t dim, std::vector<float>& rows) {
  std::vector<double> mean(dim);
  int64_t with_text = 0;
  for (int64_t item = 0; item < texts.count(); ++item) {
    if (texts.length(item) == 0) continue;
    ++with_text;
    for (int64_t c = 0; c < dim; ++c) mean[c] += static_cast<double>(rows[item * dim + c]);
  }
  if (with_text < 2) return;  // a single text would be all mean
  for (int64_t item = 0; item < texts.count(); ++item)
    for (int64_t c = 0; c < dim && texts.length(item) > 0; ++c)
      rows[item * dim + c] -= static_cast<float>(mean[c] / static_cast<double>(with_text));
}

void normalise_rows(int64_t dim, std::vector<float>& rows) {
  for (size_t first = 0; first < rows.size(); first += static_cast<size_t>(dim)) {
    double square = 0;
    for (int64_t c = 0; c < dim; ++c)
      square += static_cast<double>(rows[first + c]) * static_cast<double>(rows[first + c]);
    if (!std::isfinite(square))
      throw JobFailure(FailureCause::nan_loss, "embed_text: the hidden states of item " +
                                                   std::to_string(first / static_cast<size_t>(dim)) +
                                                   " are not finite; look at the base model's weights");
    const double scale = square > 0 ? 1.0 / std::sqrt(square) : 0.0;
    for (int64_t c = 0; c < dim; ++c)
      rows[first + c] = static_cast<float>(static_cast<double>(rows[first + c]) * scale);
  }
}

Parameters frozen_base(const BaseFiles& base) {
  Parameters parameters({.config = base.read_config(), .trainable = {.lora = true, .rank = 1, .alpha = 1.0}});
  load_base(parameters, base, /*seed=*/0);
  return parameters;
}

}  // namespace

JobOutcome run_embed_text(JobContext& context) {
  const int64_t tokens_per_batch = recipe_integer(context.recipe(), "tokensPerBatch", {1, 1 << 20});
  const bool centre = recipe_integer(context.recipe(), "centre", {0, 1}) == 1;
  const Parameters parameters = frozen_base(BaseFiles::from_inputs(context.spec().inputs));
  const Texts texts(context.input("text_tokens"), parameters.config().vocabulary);
  const int64_t dim = parameters.config().dim, items = texts.count();
  const DecoderWeights weights(parameters, context.ops());
  Decoder decoder(weights, texts.longest());

  std::vector<int64_t> batches{0};  // first items
  int64_t tokens = 0;
  for (int64_t item = 0; item < items; ++item) {
    if (tokens > 0 && tokens + texts.length(item) > tokens_per_batch) {
      batches.push_back(item);
      tokens = 0;
    }
    tokens += texts.length(item);
  }
  batches.push_back(items);
  std::vector<float> rows(items * dim);
  const int64_t steps = static_cast<int64_t>(batches.size()) - 1;
  for (int64_t step = 0; step < steps; ++step) {
    context.throw_if_aborted();
    add_means(decoder, texts, batches[step], batches[step + 1], dim, rows.data());
    context.host().on_step(
        step + 1, steps,
        {{"items", static_cast<double>(batches[step + 1] - batches[step])},
         {"tokens", static_cast<double>(texts.offsets[batches[step + 1]] - texts.offsets[batches[step]])}});
  }
  if (centre) centre_rows(texts, dim, rows);
  normalise_rows(dim, rows);
  const std::filesystem::path path = context.spec().output_dir / "text_vectors.safetensors";
  SafetensorsWriter writer;
  writer.add_f32("items", {items, dim}, rows);
  writer.write(path);
  int64_t without_text = 0;
  for (int64_t item = 0; item < items; ++item) without_text += texts.length(item) == 0 ? 1 : 0;
  return {.step = steps,
          .outputs = {{"text_vectors", path}},
          .summary = {{"items", items}, {"withoutText", without_text}, {"dim", dim}, {"tokens", texts.tokens.size()}}};
}

}  // namespace collimate
