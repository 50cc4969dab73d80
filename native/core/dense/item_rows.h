// The table of item rows: an id row of its own, plus what a small network makes of the item's text vector; all scaled
// to one length, so that dot products with them are cosines.
//
// 1. The table is made once a step, for all lanes. Lanes give the gradient of the table; what follows from it for id
//    rows and network is computed once from the sum, alike on every rank.
// 2. In training an id row is dropped with some probability (drawn per item and step), so that the text has to carry
//    the item; an item without text keeps its id.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/model/decoder_weights.h"
#include "core/ops_backend.h"
#include "core/pool.h"

namespace collimate::dense {

extern const char* const kTextIn;   // [2 h, text width]: gate, then up
extern const char* const kTextOut;  // [C, h]

// Rows of a `text_vectors` file, each scaled to root-mean-square one; rows of zeros stay.
struct TextVectors {
  int64_t items = 0, dim = 0;
  std::vector<float> rows;
  static TextVectors read(const std::filesystem::path& path, int64_t items);
};

class ItemRows {
 public:
  // Parameters: id rows as the decoder's embedding, the network as the appended kTextIn and kTextOut, where there is
  // text. Made where the weights are.
  ItemRows(const DecoderWeights& weights, Pool& pool, const TextVectors* text);

  struct IdDrop {
    float probability = 0.0f;
    uint64_t seed = 0;
    int64_t step = 0;
  };
  // [I, C], rows of length sqrt(C), where the weights' backend reads it.
  void make(const IdDrop& drop);
  const float* table() const { return table_.data(); }
  std::vector<float> host_table() const;
  float length() const { return length_; }
  // In: the table's gradient where the embedding's goes. Out: the embedding's, and the network's added to its own.
  // `gradient`: of all that is trained, in the backend's memory.
  void backward(float* gradient);

 private:
  struct Network {
    int in = -1, out = -1;  // parameter numbers
    int64_t hidden = 0;
  };
  // Of id row + text row, and of the network's two matrices.
  struct Gradients {
    float *rows = nullptr, *in = nullptr, *out = nullptr;
  };
  void text_forward();
  void text_backward(const Gradients& gradients);
  void choose_dropped(const IdDrop& drop);
  const int32_t* dropped() const { return backend_.is_host() ? dropped_.data() : dropped_there_.data(); }
  int64_t gradient_offset(int number) const { return weights_.parameters().at(number).gradient_offset; }

  const DecoderWeights& weights_;
  OpsBackend& backend_;
  Pool& pool_;
  const TextVectors* text_;
  Network network_;
  int64_t items_ = 0, dim_ = 0;
  float length_ = 1.0f;
  std::vector<int32_t> dropped_;   // [I], 0 or 1
  std::vector<uint8_t> has_text_;  // [I]
  // In the backend's memory.
  PlacedArray<float> text_rows_;
  BackendArray<float> table_, inverse_length_;  // [I, C], [I]
  BackendArray<float> gate_up_, act_, dact_;    // [I, 2h], [I, h], [I, h]
  BackendArray<int32_t> dropped_there_;         // on a device
  BackendArray<float> drows_;                   // [I, C], with text
};

}  // namespace collimate::dense
