// A decoder's parameters where a backend's ops read them: the parameters themselves on the processor in fp32, copies
// beside them otherwise. The fp32 parameters stay the masters of what is trained.
//
// 1. What has been trained is brought here after every update (`refresh`); what is frozen once.
// 2. In bf16 the matrices of linear layers and of the head are packed, and nothing reads them in fp32: a device holds
//    no fp32 copy of them.
#pragma once

#include <memory>
#include <vector>

#include "core/model/parameters.h"
#include "core/ops_backend.h"

namespace collimate {

// fp8: as bf16, but the frozen matrices of layers are multiplied in eight bits; devices only.
enum class Precision { fp32, bf16, fp8 };

class DecoderWeights {
 public:
  // Parameters and backend must outlive this. JobFailure(bad_input) for bf16 or fp8 where the backend has no such
  // products, and for fp8 where no matrix of a layer is frozen.
  DecoderWeights(const Parameters& parameters, OpsBackend& backend, Precision precision = Precision::fp32);
  // `trained`: the trained values in a device's memory, as Optimizer::trained() gives them; on the host they are the
  // parameters, and it is null.
  void refresh(const float* trained = nullptr);
  // Frees the fp32 masters that nothing reads again in bf16: of the frozen matrices, but for an embedding that is also
  // the head. `parameters` are those that were given.
  void release_frozen(Parameters& parameters) const;

  const Parameters& parameters() const { return parameters_; }
  OpsBackend& backend() const { return backend_; }
  bool is_bf16() const { return precision_ != Precision::fp32; }  // or narrower
  // Whether products read rows of bf16 (ops::RowsOfBf16) that the op before leaves.
  bool reads_bf16_rows() const { return is_bf16() && !backend_.is_host(); }
  // In fp32; in bf16 not of packed matrices.
  const float* data(int number) const {
    return backend_.is_host() ? parameters_.data(number) : copies_[static_cast<size_t>(number)].data();
  }
  // By the number of the (first) parameter that the matrix is made of.
  const ops::PackedMatrix& matrix(int number) const { return *matrices_[static_cast<size_t>(at_[number])].packed; }

 private:
  struct Matrix {
    std::unique_ptr<ops::PackedMatrix> packed{};
    ops::PackedMatrix::Source source{};
    int64_t first_trained_row = -1;  // -1: frozen
    std::vector<int> numbers{};
  };
  void pack_site(const std::vector<LinearNumbers>& parts);
  void pack(const std::vector<int>& numbers, float factor, int64_t room, bool is_layer = false);
  void place();

  const Parameters& parameters_;
  OpsBackend& backend_;
  Precision precision_;
  std::vector<Matrix> matrices_;
  std::vector<int> at_;  // by parameter; -1: not packed
  // On a device: the fp32 copies by parameter, in blocks that lie side by side as the parameters do.
  struct Copy {
    float* there = nullptr;
    float* data() const { return there; }
  };
  std::vector<Copy> copies_;
  std::vector<BackendArray<float>> blocks_;
};

}  // namespace collimate
