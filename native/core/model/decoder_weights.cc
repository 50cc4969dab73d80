// Which parameters make a matrix, packing them, and copies on a device.
#include "core/model/decoder_weights.h"

#include <algorithm>

#include "core/failure.h"

namespace collimate {

DecoderWeights::DecoderWeights(const Parameters& parameters, OpsBackend& backend, Precision precision)
    : parameters_(parameters), backend_(backend), precision_(precision), at_(parameters.all().size(), -1) {
  if (is_bf16()) {
    for (const LayerNumbers& layer : parameters.layers()) {
      pack_site({layer.q, layer.k, layer.v});
      pack_site({layer.o});
      pack_site({layer.gate, layer.up});
      pack_site({layer.down});
    }
    pack({parameters.head()}, 1.0f, 0);
    const auto is_fp8 = [](const Matrix& matrix) { return matrix.source.fp8; };
    if (precision == Precision::fp8 && std::ranges::none_of(matrices_, is_fp8))
      fail_bad_input(
          "precision: \"fp8\" is for frozen matrices, and here all are trained; use \"bf16\", or train adapters "
          "(trainable: lora)");
  }
  if (!backend.is_host()) place();
}

// Layers that are fused into one matrix, and their adapters.
void DecoderWeights::pack_site(const std::vector<LinearNumbers>& parts) {
  std::vector<int> weights;
  for (const LinearNumbers& part : parts) weights.push_back(part.weight);
  pack(weights, 1.0f, parameters_.ranks_of(parts), /*is_layer=*/true);
  for (const LinearNumbers& part : parts) {
    if (part.lora_a < 0) continue;
    pack({part.lora_a}, 1.0f, 0);
    pack({part.lora_b}, parameters_.trainable().scale(), 0);
  }
}

void DecoderWeights::pack(const std::vector<int>& numbers, float factor, int64_t room, bool is_layer) {
  Matrix matrix;
  const Parameter& first = parameters_.at(numbers[0]);
  for (const int number : numbers) matrix.source.out += parameters_.at(number).shape[0];
  matrix.source.values = parameters_.data(numbers[0]);
  matrix.source.in = first.shape[1];
  matrix.source.factor = factor;
  matrix.source.room = room;
  matrix.source.fp8 = precision_ == Precision::fp8 && is_layer && first.train_rows == 0;
  // Parts of one matrix are all trained or all frozen.
  if (first.train_rows > 0) matrix.first_trained_row = first.train_first_row;
  matrix.numbers = numbers;
  matrix.packed = backend_.pack(matrix.source);
  if (!matrix.packed && matrix.source.fp8)
    fail_bad_input(
        "precision: \"fp8\" expects a worker with a GPU (--device cuda:N), this one computes on a processor; "
        "use \"bf16\" or \"fp32\"");
  if (!matrix.packed) {
    fail_bad_input(
        "precision: \"bf16\" expects a processor with AVX512-BF16 or AMX, this one (or COLLIMATE_ISA, COLLIMATE_BF16) "
        "has "
        "neither; use precision: \"fp32\", or workers that have it");
  }
  at_[static_cast<size_t>(numbers[0])] = static_cast<int>(matrices_.size());
  matrices_.push_back(std::move(matrix));
}

// Parameters side by side stay so: fused matrices and biases are read as one.
void DecoderWeights::place() {
  std::vector<bool> packed(parameters_.all().size(), false);
  for (const Matrix& matrix : matrices_)
    for (const int number : matrix.numbers) packed[static_cast<size_t>(number)] = true;
  packed[static_cast<size_t>(parameters_.embedding())] = false;  // rows of it are looked up
  copies_.resize(packed.size());
  for (size_t first = 0; first < packed.size();) {
    if (packed[first]) {
      ++first;
      continue;
    }
    size_t end = first;
    int64_t elements = 0;
    for (; end < packed.size() && !packed[end]; ++end) elements += parameters_.at(static_cast<int>(end)).elements();
    BackendArray<float> block(backend_, elements);
    const float* from = parameters_.data(static_cast<int>(first));
    block.upload(std::span(from, static_cast<size_t>(elements)));
    for (size_t i = first; i < end; ++i)
      copies_[i].there = block.data() + (parameters_.data(static_cast<int>(i)) - from);
    blocks_.push_back(std::move(block));
    first = end;
  }
}

void DecoderWeights::refresh(const float* trained) {
  if ((trained == nullptr) != backend_.is_host())
    throw JobFailure(FailureCause::internal, "trained values are elsewhere than the weights that they belong to");
  for (const Matrix& matrix : matrices_) {
    if (matrix.first_trained_row < 0) continue;
    ops::PackedMatrix::Source source = matrix.source;
    // The parts of a matrix lie side by side among the trained values too; frozen rows have no place there.
    if (trained != nullptr)
      source.values =
          trained + parameters_.at(matrix.numbers[0]).gradient_offset - matrix.first_trained_row * source.in;
    backend_.pack_again(*matrix.packed, source, matrix.first_trained_row);
  }
  for (size_t i = 0; i < copies_.size(); ++i) {
    const Parameter& parameter = parameters_.at(static_cast<int>(i));
    if (copies_[i].there == nullptr || parameter.train_rows == 0) continue;
    backend_.copy(copies_[i].there + parameter.train_first_row * parameter.row_elements(),
                  trained + parameter.gradient_offset,
                  parameter.trained_elements() * static_cast<int64_t>(sizeof(float)));
  }
}

void DecoderWeights::release_frozen(Parameters& parameters) const {
  for (const Matrix& matrix : matrices_) {
    if (matrix.first_trained_row >= 0) continue;
    for (const int number : matrix.numbers) {
      if (number != parameters.embedding()) parameters.release(number);
    }
  }
}

}  // namespace collimate
