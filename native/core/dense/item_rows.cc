#include "core/dense/item_rows.h"

#include <algorithm>
#include <cmath>

#include "core/failure.h"
#include "core/ops.h"
#include "core/philox.h"
#include "core/safetensors.h"

namespace collimate::dense {

const char* const kTextIn = "text.in_proj.weight";
const char* const kTextOut = "text.out_proj.weight";

namespace {

constexpr int64_t kItemsPerBlock = 256;

}  // namespace

TextVectors TextVectors::read(const std::filesystem::path& path, int64_t items) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  const std::vector<int64_t> shape = file.get("items").shape;
  if (shape.size() != 2 || shape[0] != items || shape[1] < 1) {
    fail_bad_input("text_vectors: expected `items` of shape [" + std::to_string(items) +
                   ", width], one row for each item of the dataset, got " + Json(shape).dump());
  }
  TextVectors text{.items = items, .dim = shape[1], .rows = file.as_f32("items", shape)};
  for (int64_t i = 0; i < items; ++i) {
    const std::span<float> row =
        std::span(text.rows).subspan(static_cast<size_t>(i * text.dim), static_cast<size_t>(text.dim));
    double squares = 0.0;
    for (const float value : row) squares += static_cast<double>(value) * static_cast<double>(value);
    if (!std::isfinite(squares))
      fail_bad_input("text_vectors: expected finite numbers, got others for item " + std::to_string(i));
    if (squares < 1e-24) continue;
    const auto factor = static_cast<float>(std::sqrt(static_cast<double>(text.dim) / squares));
    for (float& value : row) value *= factor;
  }
  return text;
}

ItemRows::ItemRows(const Parameters& parameters, Pool& pool, const TextVectors* text)
    : parameters_(parameters),
      pool_(pool),
      text_(text),
      items_(parameters.config().vocabulary),
      dim_(parameters.config().dim),
      length_(std::sqrt(static_cast<float>(dim_))) {
  const auto items = static_cast<size_t>(items_), cells = static_cast<size_t>(items_ * dim_);
  dropped_.assign(items, 0);
  table_.resize(cells);
  inverse_length_.resize(items);
  if (text_ == nullptr) return;
  network_ = {.in = parameters.number_of(kTextIn), .out = parameters.number_of(kTextOut)};
  network_.hidden = parameters.at(network_.out).shape[1];
  const auto hidden = static_cast<size_t>(items_ * network_.hidden);
  gate_up_.resize(2 * hidden);
  act_.resize(hidden);
  dact_.resize(hidden);
  for (int64_t i = 0; i < items_; ++i) {
    const float* row = text_->rows.data() + i * text_->dim;
    has_text_.push_back(std::any_of(row, row + text_->dim, [](float value) { return value != 0.0f; }) ? 1 : 0);
  }
}

// table = what the network makes of the text.
void ItemRows::text_forward() {
  ops::linear_forward(pool_, {.rows = items_,
                              .in = text_->dim,
                              .out = 2 * network_.hidden,
                              .x = text_->rows.data(),
                              .x_stride = text_->dim,
                              .weight = parameters_.data(network_.in),
                              .y = gate_up_.data(),
                              .y_stride = 2 * network_.hidden});
  ops::swiglu_forward(pool_,
                      {.rows = items_, .ffn_dim = network_.hidden, .gate_up = gate_up_.data(), .act = act_.data()});
  ops::linear_forward(pool_, {.rows = items_,
                              .in = network_.hidden,
                              .out = dim_,
                              .x = act_.data(),
                              .x_stride = network_.hidden,
                              .weight = parameters_.data(network_.out),
                              .y = table_.data(),
                              .y_stride = dim_});
}

void ItemRows::make(const IdDrop& drop) {
  const float* ids = parameters_.data(parameters_.embedding());
  if (text_ != nullptr) text_forward();
  const RandomStream stream{
      .seed = drop.seed, .site = RandomSite::item_row, .stream = static_cast<uint64_t>(drop.step)};
  pool_.for_blocks(items_, kItemsPerBlock, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float* row = table_.data() + i * dim_;
      const float* id = ids + i * dim_;
      if (text_ == nullptr) {
        std::copy_n(id, dim_, row);
        continue;
      }
      const bool drops = drop.probability > 0.0f && has_text_[static_cast<size_t>(i)] != 0 &&
                         random_uniform(stream, static_cast<uint64_t>(i)) < drop.probability;
      dropped_[static_cast<size_t>(i)] = drops ? 1 : 0;
      if (drops) continue;
      for (int64_t c = 0; c < dim_; ++c) row[c] += id[c];
    }
  });
  ops::unit_rows_forward(pool_, {.rows = items_,
                                 .dim = dim_,
                                 .length = length_,
                                 .x = table_.data(),
                                 .y = table_.data(),
                                 .inverse_length = inverse_length_.data()});
}

// From the gradient of id row + text row, which is where the embedding's goes.
void ItemRows::text_backward(std::span<float> gradient) {
  const float* drows = gradient.data() + parameters_.at(parameters_.embedding()).gradient_offset;
  ops::linear_backward(pool_, {.rows = items_,
                               .in = network_.hidden,
                               .out = dim_,
                               .x = act_.data(),
                               .x_stride = network_.hidden,
                               .weight = parameters_.data(network_.out),
                               .dy = drows,
                               .dy_stride = dim_,
                               .dx = dact_.data(),
                               .dx_stride = network_.hidden,
                               .dweight = gradient.data() + parameters_.at(network_.out).gradient_offset});
  ops::swiglu_backward(pool_, {.rows = items_,
                               .ffn_dim = network_.hidden,
                               .gate_up = gate_up_.data(),
                               .dact = dact_.data(),
                               .dgate_up = gate_up_.data()});
  ops::linear_backward(pool_, {.rows = items_,
                               .in = text_->dim,
                               .out = 2 * network_.hidden,
                               .x = text_->rows.data(),
                               .x_stride = text_->dim,
                               .dy = gate_up_.data(),
                               .dy_stride = 2 * network_.hidden,
                               .dweight = gradient.data() + parameters_.at(network_.in).gradient_offset});
}

void ItemRows::backward(std::span<float> gradient) {
  float* drows = gradient.data() + parameters_.at(parameters_.embedding()).gradient_offset;
  ops::unit_rows_backward(pool_, {.rows = items_,
                                  .dim = dim_,
                                  .length = length_,
                                  .y = table_.data(),
                                  .inverse_length = inverse_length_.data(),
                                  .dy = drows,
                                  .dx = drows});
  if (text_ == nullptr) return;
  text_backward(gradient);
  pool_.for_blocks(items_, kItemsPerBlock, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      if (dropped_[static_cast<size_t>(i)] != 0) std::fill_n(drows + i * dim_, dim_, 0.0f);
  });
}

}  // namespace collimate::dense
