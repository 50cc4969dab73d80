// A decoder's matrices as the bf16 unit reads them: copies beside the fp32 parameters, which stay the
// masters of what is trained.
//
// Trained parameters are packed again after every update (`refresh`); frozen ones once.
#pragma once

#include <array>
#include <vector>

#include "core/model/parameters.h"
#include "core/ops_bf16.h"
#include "core/pool.h"

namespace collimate {

class Bf16Weights {
 public:
  // JobFailure(bad_input) where the processor has no bf16 unit.
  Bf16Weights(const Parameters& parameters, Pool& pool);
  void refresh(Pool& pool);
  // Frees the fp32 masters that nothing reads again: of the frozen matrices, but for an embedding that is also the
  // head. `parameters` are those that were packed.
  void release_frozen(Parameters& parameters) const;

  // By the number of the (first) parameter that the matrix is made of.
  const ops::Bf16Matrix& matrix(int number) const { return matrices_[static_cast<size_t>(at_[number])].packed; }

 private:
  struct Matrix {
    ops::Bf16Matrix packed{};
    ops::Bf16Matrix::Source source{};
    int64_t first_trained_row = -1;  // -1: frozen
    std::vector<int> numbers{};
  };
  void add(const std::vector<int>& numbers, float factor);

  const Parameters& parameters_;
  std::vector<Matrix> matrices_;
  std::vector<int> at_;  // by parameter; -1: not packed
};

}  // namespace collimate
