// The matrix of a linear layer and of its adapters on a device, as the tensor cores take it.
//
// 1. One copy of a matrix serves both directions: the tensor cores take it transposed or not.
// 2. A layer and its adapters are one matrix [W B; A 0] with the scaled B right of W and A below it. With
//    X = [x, x Aᵀ] the output is X [W B]ᵀ, and with D = [dy, dy B] the input's gradient is D [W; A]: adapters cost
//    their share of a product and no pass over its result.
// 3. A frozen W may be in eight bits: then x and dy are rounded to eight bits for W alone. cuBLASLt multiplies the
//    codes; elsewhere bf16 values that hold the same are multiplied, which makes the same products.
// 4. At most kAdaptersMax adapters a layer (q, k, v).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/ops_bf16.h"
#include "cuda/device.h"

namespace collimate::cuda {

constexpr int kAdaptersMax = 3;  // q, k and v; gate and up

// W [out, in] in bf16, with room for `room` columns to its right and as many rows below. Columns and rows are counted
// up to multiples of eight, which are zero.
class Bf16Matrix final : public ops::PackedMatrix {
 public:
  // `source.values` lie on the device.
  Bf16Matrix(Device& device, const Source& source);
  // The same matrix from other values, its rows from `first_row` on.
  void pack_again(Device& device, const Source& source, int64_t first_row);
  // Brings these adapters into the room, unless they are there.
  void place(Device& device, std::span<const ops::Bf16Adapter> adapters) const;

  // Eight-bit products: values() are what eight bits hold of W.
  bool is_fp8() const { return scales_.size() > 0; }
  const uint8_t* codes() const { return codes_.data(); }                // [out, in], scaled
  const uint8_t* codes_across() const { return codes_across_.data(); }  // [in, out]
  const float* inverse_scale() const { return scales_.data() + 1; }

  int64_t out() const { return out_; }
  int64_t in() const { return in_; }
  int64_t room() const { return room_; }
  int64_t rows() const { return rows_; }           // at least out + room
  int64_t row_stride() const { return columns_; }  // at least in + room
  const uint16_t* values() const { return values_.data(); }

 private:
  // What stands in the room: by the stamps of the adapters' matrices.
  struct Placed {
    uint64_t a, b;
    int64_t column;
    bool operator==(const Placed&) const = default;
  };

  int64_t out_, in_, room_, rows_, columns_;
  DeviceArray<uint16_t> values_;
  DeviceArray<uint8_t> codes_, codes_across_;
  DeviceArray<float> scales_;  // largest magnitude, inverse scale
  uint64_t stamp_ = 0;         // no other packing in this process has it
  mutable std::vector<Placed> placed_;
};

// A packed matrix of this backend's.
inline const Bf16Matrix& here(const ops::PackedMatrix* matrix) { return static_cast<const Bf16Matrix&>(*matrix); }

// The adapters of a layer as kernels see them: each has columns [first, first + rank) of the room.
struct AdapterPlace {
  const uint16_t *a = nullptr, *b = nullptr;
  int64_t a_stride = 0, b_stride = 0;
  int64_t column = 0, width = 0, first = 0, rank = 0;
  float* low = nullptr;  // [rows, rank]: x A or dy B
};
struct AdapterPlaces {
  int count = 0;
  AdapterPlace place[kAdaptersMax];
};
AdapterPlaces places_of(std::span<const ops::Bf16Adapter> adapters);

}  // namespace collimate::cuda
