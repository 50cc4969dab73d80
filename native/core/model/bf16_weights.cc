// Which parameters make a matrix, and packing them.
#include "core/model/bf16_weights.h"

#include "core/failure.h"

namespace collimate {

Bf16Weights::Bf16Weights(const Parameters& parameters, Pool& pool)
    : parameters_(parameters), at_(parameters.all().size(), -1) {
  if (bf16_unit() == Bf16Unit::none) {
    fail_bad_input(
        "precision: \"bf16\" expects a processor with AVX512-BF16 or AMX, this one (or COLLIMATE_ISA, COLLIMATE_BF16) "
        "has "
        "neither; use precision: \"fp32\", or workers that have it");
  }
  for (const LayerNumbers& layer : parameters.layers()) {
    add({layer.q.weight, layer.k.weight, layer.v.weight}, 1.0f);
    add({layer.o.weight}, 1.0f);
    add({layer.gate.weight, layer.up.weight}, 1.0f);
    add({layer.down.weight}, 1.0f);
    for (const LinearNumbers& linear : {layer.q, layer.k, layer.v, layer.o, layer.gate, layer.up, layer.down}) {
      if (linear.lora_a < 0) continue;
      add({linear.lora_a}, 1.0f);
      add({linear.lora_b}, parameters.trainable().scale());
    }
  }
  add({parameters.head()}, 1.0f);
  for (Matrix& matrix : matrices_) matrix.packed.pack(pool, matrix.source);
}

void Bf16Weights::add(const std::vector<int>& numbers, float factor) {
  Matrix matrix;
  const Parameter& first = parameters_.at(numbers[0]);
  for (const int number : numbers) matrix.source.out += parameters_.at(number).shape[0];
  matrix.source.values = parameters_.data(numbers[0]);
  matrix.source.in = first.shape[1];
  matrix.source.factor = factor;
  // Parts of one matrix are all trained or all frozen.
  if (first.train_rows > 0) matrix.first_trained_row = first.train_first_row;
  matrix.numbers = numbers;
  at_[static_cast<size_t>(numbers[0])] = static_cast<int>(matrices_.size());
  matrices_.push_back(std::move(matrix));
}

void Bf16Weights::refresh(Pool& pool) {
  for (Matrix& matrix : matrices_) {
    if (matrix.first_trained_row < 0) continue;
    matrix.packed.pack_again(pool, matrix.source, matrix.first_trained_row);
  }
}

void Bf16Weights::release_frozen(Parameters& parameters) const {
  for (const Matrix& matrix : matrices_) {
    if (matrix.first_trained_row >= 0) continue;
    for (const int number : matrix.numbers) {
      if (number != parameters.embedding()) parameters.release(number);
    }
  }
}

}  // namespace collimate
