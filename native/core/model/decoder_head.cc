// The decoder's head: logits of the labelled rows, their losses, and the gradient that enters the backward.
#include <algorithm>

#include "core/model/decoder_pass.h"
#include "core/model/preference_loss.h"
#include "core/tree_sum.h"

namespace collimate {

namespace {

constexpr int64_t kFloatBytes = sizeof(float), kDoubleBytes = sizeof(double);

}  // namespace

void Decoder::scale_hidden(const Pass& pass) {
  if (options_.hidden_length <= 0.0f) return;
  backend_.unit_rows_forward({.rows = pass.batch.labels(),
                              .dim = parameters_.config().dim,
                              .length = options_.hidden_length,
                              .x = pass.hidden,
                              .y = pass.hidden,
                              .inverse_length = pass.inverse_length});
}

void Decoder::head_logits(const HeadRows& head) {
  const DecoderConfig& c = parameters_.config();
  if (weights_.is_bf16()) {
    backend_.bf16_linear_forward({.rows = head.rows,
                                  .weight = &weights_.matrix(parameters_.head()),
                                  .x = head.hidden,
                                  .x_stride = c.dim,
                                  .y = head.logits,
                                  .y_stride = c.vocabulary});
    return;
  }
  backend_.linear_forward({.rows = head.rows,
                           .in = c.dim,
                           .out = c.vocabulary,
                           .x = head.hidden,
                           .x_stride = c.dim,
                           .weight = table(parameters_.head()),
                           .y = head.logits,
                           .y_stride = c.vocabulary});
}

// Of the head's rows only the trained ones get a gradient.
void Decoder::head_backward(const Pass& pass, const HeadRows& head) {
  const DecoderConfig& c = parameters_.config();
  const Parameter& table_of_head = parameters_.at(parameters_.head());
  float* dweight = gradient_of(pass, parameters_.head());
  if (weights_.is_bf16()) {
    backend_.bf16_linear_backward({.rows = head.rows,
                                   .weight = &weights_.matrix(parameters_.head()),
                                   .dy = head.logits,
                                   .dy_stride = c.vocabulary,
                                   .dy_bf16 = head.dlogits,
                                   .dx = head.dhidden,
                                   .dx_stride = c.dim,
                                   .x = head.hidden,
                                   .x_stride = c.dim,
                                   .dweight = dweight,
                                   .dweight_first = table_of_head.train_first_row,
                                   .dweight_rows = table_of_head.train_rows});
    return;
  }
  backend_.linear_backward({.rows = head.rows,
                            .in = c.dim,
                            .out = c.vocabulary,
                            .weight = table(parameters_.head()),
                            .dy = head.logits,
                            .dy_stride = c.vocabulary,
                            .dx = head.dhidden,
                            .dx_stride = c.dim});
  backend_.linear_backward({.rows = head.rows,
                            .in = c.dim,
                            .out = table_of_head.train_rows,
                            .x = head.hidden,
                            .x_stride = c.dim,
                            .dy = head.logits + table_of_head.train_first_row,
                            .dy_stride = c.vocabulary,
                            .dweight = dweight});
}

// Losses of a range of labels into pass.losses, a chunk of rows at a time.
void Decoder::head_losses(const Pass& pass, const LabelRange& range) {
  const DecoderConfig& c = parameters_.config();
  const int64_t chunk_rows = logits_rows();
  for (int64_t begin = range.begin; begin < range.end; begin += chunk_rows) {
    const int64_t rows = std::min(chunk_rows, range.end - begin);
    head_logits({.rows = rows, .hidden = pass.hidden + begin * c.dim, .logits = pass.logits});
    backend_.cross_entropy({.rows = rows,
                            .vocabulary = c.vocabulary,
                            .logits = pass.logits,
                            .targets = pass.targets + begin,
                            .losses = pass.losses + begin});
  }
}

// What the gradient of each label's cross-entropy is scaled by, into pass.row_scales. The labels of groups are gone
// over twice: their scales follow from the log-probabilities of the whole group. `group_losses` [N] gets each group's
// loss at its first label.
void Decoder::make_row_scales(const Pass& pass, std::span<double> group_losses) {
  const PackedBatch& batch = pass.batch;
  for (const PreferenceGroup& group : batch.groups) {
    head_losses(pass, {.begin = group.label_bounds.front(), .end = group.label_bounds.back()});
  }
  std::vector<float> scales(static_cast<size_t>(batch.labels()), pass.args->loss_scale);
  std::vector<double> losses(scales.size());
  backend_.download(losses.data(), pass.losses, batch.labels() * kDoubleBytes);
  for (const PreferenceGroup& group : batch.groups) {
    const std::vector<int64_t>& bounds = group.label_bounds;
    std::vector<double> ratios;  // log of how much likelier an answer is than it was under the reference
    for (size_t i = 0; i + 1 < bounds.size(); ++i) {
      double log_probability = 0.0;
      for (int64_t label = bounds[i]; label < bounds[i + 1]; ++label)
        log_probability -= losses[static_cast<size_t>(label)];
      ratios.push_back(log_probability - group.reference[i]);
    }
    const PreferenceLoss preference = preference_loss(ratios, pass.args->preference_beta);
    group_losses[static_cast<size_t>(bounds.front())] = preference.loss;
    for (size_t i = 0; i + 1 < bounds.size(); ++i) {
      // Cross-entropy falls as the log-probability rises.
      const auto scale = static_cast<float>(-preference.gradient[i] * static_cast<double>(pass.args->loss_scale));
      std::fill(scales.begin() + bounds[i], scales.begin() + bounds[i + 1], scale);
    }
  }
  backend_.upload(pass.row_scales, scales.data(), batch.labels() * kFloatBytes);
}

// The hidden rows that meet the head.
void Decoder::gather_hidden(const Pass& pass) {
  backend_.gather_rows({.rows = pass.batch.labels(),
                        .dim = parameters_.config().dim,
                        .index = pass.label_rows,
                        .from = pass.final_normed,
                        .to = pass.hidden});
  scale_hidden(pass);
}

// Loss over the labelled rows; leaves the gradient of the final norm's output in dnormed and adds the head's.
double Decoder::head_forward_backward(Pass& pass) {
  const DecoderConfig& c = parameters_.config();
  const int64_t labels = pass.batch.labels(), dim = c.dim, vocabulary = c.vocabulary;
  const int64_t chunk_rows = logits_rows();
  float *hidden = pass.hidden, *dhidden = pass.dhidden, *logits = pass.logits;
  gather_hidden(pass);
  const bool scaled_by_row = !pass.batch.groups.empty();
  std::vector<double> group_losses(scaled_by_row ? static_cast<size_t>(labels) : 0);
  if (scaled_by_row) make_row_scales(pass, group_losses);
  for (int64_t begin = 0; begin < labels; begin += chunk_rows) {
    const int64_t rows = std::min(chunk_rows, labels - begin);
    const HeadRows chunk{rows, hidden + begin * dim, logits, pass.dlogits, dhidden + begin * dim};
    head_logits(chunk);
    backend_.cross_entropy({.rows = rows,
                            .vocabulary = vocabulary,
                            .logits = logits,
                            .dlogits_bf16 = pass.dlogits,
                            .targets = pass.targets + begin,
                            .scale = pass.args->loss_scale,
                            .row_scales = scaled_by_row ? pass.row_scales + begin : nullptr,
                            .losses = pass.losses + begin});
    head_backward(pass, chunk);
  }
  if (options_.hidden_length > 0.0f) {
    backend_.unit_rows_backward({.rows = labels,
                                 .dim = dim,
                                 .length = options_.hidden_length,
                                 .y = hidden,
                                 .inverse_length = pass.inverse_length,
                                 .dy = dhidden,
                                 .dx = dhidden});
  }
  backend_.zero(pass.dnormed, pass.batch.rows() * dim * kFloatBytes);
  backend_.scatter_rows({.rows = labels, .dim = dim, .index = pass.label_rows, .from = dhidden, .to = pass.dnormed});
  std::vector<double> losses(static_cast<size_t>(labels));
  backend_.download(losses.data(), pass.losses, labels * kDoubleBytes);
  for (const PreferenceGroup& group : pass.batch.groups) {
    const int64_t first = group.label_bounds.front();
    std::copy(group_losses.begin() + first, group_losses.begin() + group.label_bounds.back(), losses.begin() + first);
  }
  if (!pass.args->label_losses.empty()) std::copy(losses.begin(), losses.end(), pass.args->label_losses.begin());
  return tree_sum(losses);
}

}  // namespace collimate
