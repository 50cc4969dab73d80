#include "core/dense/item_rows.h"

#include <algorithm>
#include <cmath>

#include "core/failure.h"
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

ItemRows::ItemRows(const DecoderWeights& weights, Pool& pool, const TextVectors* text)
    : weights_(weights),
      backend_(weights.backend()),
      pool_(pool),
      text_(text),
      items_(weights.parameters().config().vocabulary),
      dim_(weights.parameters().config().dim),
      length_(std::sqrt(static_cast<float>(dim_))),
      dropped_(static_cast<size_t>(items_), 0),
      table_(backend_, items_ * dim_),
      inverse_length_(backend_, items_) {
  if (text_ == nullptr) return;
  const Parameters& parameters = weights.parameters();
  network_ = {.in = parameters.number_of(kTextIn), .out = parameters.number_of(kTextOut)};
  network_.hidden = parameters.at(network_.out).shape[1];
  text_rows_ = PlacedArray<float>(backend_, text_->rows);
  gate_up_ = BackendArray<float>(backend_, 2 * items_ * network_.hidden);
  act_ = BackendArray<float>(backend_, items_ * network_.hidden);
  dact_ = BackendArray<float>(backend_, items_ * network_.hidden);
  drows_ = BackendArray<float>(backend_, items_ * dim_);
  if (!backend_.is_host()) dropped_there_ = BackendArray<int32_t>(backend_, items_);
  for (int64_t i = 0; i < items_; ++i) {
    const float* row = text_->rows.data() + i * text_->dim;
    has_text_.push_back(std::any_of(row, row + text_->dim, [](float value) { return value != 0.0f; }) ? 1 : 0);
  }
}

// table = what the network makes of the text.
void ItemRows::text_forward() {
  backend_.linear_forward({.rows = items_,
                           .in = text_->dim,
                           .out = 2 * network_.hidden,
                           .x = text_rows_.data(),
                           .x_stride = text_->dim,
                           .weight = weights_.data(network_.in),
                           .y = gate_up_.data(),
                           .y_stride = 2 * network_.hidden});
  backend_.swiglu_forward({.rows = items_, .ffn_dim = network_.hidden, .gate_up = gate_up_.data(), .act = act_.data()});
  backend_.linear_forward({.rows = items_,
                           .in = network_.hidden,
                           .out = dim_,
                           .x = act_.data(),
                           .x_stride = network_.hidden,
                           .weight = weights_.data(network_.out),
                           .y = table_.data(),
                           .y_stride = dim_});
}

void ItemRows::choose_dropped(const IdDrop& drop) {
  const RandomStream stream{
      .seed = drop.seed, .site = RandomSite::item_row, .stream = static_cast<uint64_t>(drop.step)};
  pool_.for_blocks(items_, kItemsPerBlock, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const bool drops = drop.probability > 0.0f && has_text_[static_cast<size_t>(i)] != 0 &&
                         random_uniform(stream, static_cast<uint64_t>(i)) < drop.probability;
      dropped_[static_cast<size_t>(i)] = drops ? 1 : 0;
    }
  });
}

void ItemRows::make(const IdDrop& drop) {
  const float* ids = weights_.data(weights_.parameters().embedding());
  if (text_ == nullptr) {
    backend_.copy(table_.data(), ids, items_ * dim_ * static_cast<int64_t>(sizeof(float)));
  } else {
    text_forward();
    choose_dropped(drop);
    if (!backend_.is_host()) dropped_there_.upload(dropped_);
    backend_.add_rows({.rows = items_, .dim = dim_, .left_out = dropped(), .from = ids, .to = table_.data()});
  }
  backend_.unit_rows_forward({.rows = items_,
                              .dim = dim_,
                              .length = length_,
                              .x = table_.data(),
                              .y = table_.data(),
                              .inverse_length = inverse_length_.data()});
}

std::vector<float> ItemRows::host_table() const {
  std::vector<float> table(static_cast<size_t>(items_ * dim_));
  table_.download(table);
  return table;
}

// From the gradient of id row + text row, which is where the embedding's goes.
void ItemRows::text_backward(const Gradients& gradients) {
  backend_.linear_backward({.rows = items_,
                            .in = network_.hidden,
                            .out = dim_,
                            .x = act_.data(),
                            .x_stride = network_.hidden,
                            .weight = weights_.data(network_.out),
                            .dy = gradients.rows,
                            .dy_stride = dim_,
                            .dx = dact_.data(),
                            .dx_stride = network_.hidden,
                            .dweight = gradients.out});
  backend_.swiglu_backward({.rows = items_,
                            .ffn_dim = network_.hidden,
                            .gate_up = gate_up_.data(),
                            .dact = dact_.data(),
                            .dgate_up = gate_up_.data()});
  backend_.linear_backward({.rows = items_,
                            .in = text_->dim,
                            .out = 2 * network_.hidden,
                            .x = text_rows_.data(),
                            .x_stride = text_->dim,
                            .dy = gate_up_.data(),
                            .dy_stride = 2 * network_.hidden,
                            .dweight = gradients.in});
}

void ItemRows::backward(float* gradient) {
  float* drows = gradient + gradient_offset(weights_.parameters().embedding());
  backend_.unit_rows_backward({.rows = items_,
                               .dim = dim_,
                               .length = length_,
                               .y = table_.data(),
                               .inverse_length = inverse_length_.data(),
                               .dy = drows,
                               .dx = drows});
  if (text_ == nullptr) return;
  text_backward(
      {.rows = drows, .in = gradient + gradient_offset(network_.in), .out = gradient + gradient_offset(network_.out)});
  // An id row that was dropped has no part in its item's row.
  const int64_t bytes = items_ * dim_ * static_cast<int64_t>(sizeof(float));
  backend_.copy(drows_.data(), drows, bytes);
  backend_.zero(drows, bytes);
  backend_.add_rows({.rows = items_, .dim = dim_, .left_out = dropped(), .from = drows_.data(), .to = drows});
}

}  // namespace collimate::dense
