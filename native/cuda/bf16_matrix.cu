// Packing a layer's matrix, and its adapters beside it.
#include <atomic>

#include "core/failure.h"
#include "cuda/bf16_matrix.h"
#include "cuda/fp8.h"
#include "cuda/gemm.h"
#include "cuda/launch.h"

namespace collimate::cuda {
namespace {

constexpr int kThreads = 256;

// The room of a matrix: `out` rows of its right part, then those below, one thread an element.
struct Room {
  int64_t out, in, room, stride;
  uint16_t* values;
};

__global__ void fill_room(Room m, AdapterPlaces adapters) {
  const int64_t element = global_thread(), right = m.out * m.room;
  if (element >= right + m.room * m.in) return;
  const bool is_right = element < right;
  const int64_t row = is_right ? element / m.room : (element - right) / m.in;
  const int64_t column = is_right ? element % m.room : (element - right) % m.in;
  uint16_t value = 0;
  for (int i = 0; i < adapters.count; ++i) {
    const AdapterPlace& p = adapters.place[i];
    const int64_t low = (is_right ? column : row) - p.first;
    if (low < 0 || low >= p.rank) continue;
    if (!is_right)
      value = p.a[low * p.a_stride + column];
    else if (row >= p.column && row < p.column + p.width)
      value = p.b[(row - p.column) * p.b_stride + low];
  }
  m.values[is_right ? row * m.stride + m.in + column : (m.out + row) * m.stride + column] = value;
}

}  // namespace

AdapterPlaces places_of(std::span<const ops::Bf16Adapter> adapters) {
  if (adapters.size() > kAdaptersMax)
    throw JobFailure(FailureCause::internal, "a layer has more adapters than its kernels expect");
  AdapterPlaces result;
  int64_t first = 0;
  for (const ops::Bf16Adapter& adapter : adapters) {
    const Bf16Matrix &a = here(adapter.a), &b = here(adapter.b);
    result.place[result.count++] = {.a = a.values(),
                                    .b = b.values(),
                                    .a_stride = a.row_stride(),
                                    .b_stride = b.row_stride(),
                                    .column = adapter.column,
                                    .width = adapter.width,
                                    .first = first,
                                    .rank = a.out()};
    first += a.out();
  }
  return result;
}

Bf16Matrix::Bf16Matrix(Device& device, const Source& source)
    : out_(source.out),
      in_(source.in),
      room_(source.room),
      rows_(ops::row_with_room(out_, room_)),
      columns_(ops::row_with_room(in_, room_)),
      values_(device, rows_ * columns_) {
  device.zero(values_.data(), static_cast<size_t>(rows_ * columns_) * sizeof(uint16_t));
  if (source.fp8) {
    scales_ = DeviceArray<float>(device, 2);
    codes_ = DeviceArray<uint8_t>(device, out_ * in_);
    codes_across_ = DeviceArray<uint8_t>(device, out_ * in_);
  }
  pack_again(device, source, 0);
}

void Bf16Matrix::pack_again(Device& device, const Source& source, int64_t first_row) {
  static std::atomic<uint64_t> stamps{0};
  stamp_ = ++stamps;
  if (is_fp8()) {  // frozen, and whole
    const RowsToRound values{.fp32 = source.values, .stride = in_};
    largest_magnitude(device, {out_, in_, values, scales_.data()});
    round_to_fp8(device, {.rows = out_,
                          .width = in_,
                          .from = values,
                          .largest = scales_.data(),
                          .codes = codes_.data(),
                          .codes_across = codes_across_.data(),
                          .inverse_scale = scales_.data() + 1,
                          .values = values_.data(),
                          .values_stride = columns_});
    return;
  }
  round_rows(device, {.rows = out_ - first_row,
                      .width = in_,
                      .from = source.values + first_row * in_,
                      .from_stride = in_,
                      .factor = source.factor,
                      .to = values_.data() + first_row * columns_,
                      .to_stride = columns_,
                      .filled = in_});
}

void Bf16Matrix::place(Device& device, std::span<const ops::Bf16Adapter> adapters) const {
  if (adapters.empty()) return;  // nothing reads the room
  std::vector<Placed> wanted;
  for (const ops::Bf16Adapter& adapter : adapters)
    wanted.push_back({here(adapter.a).stamp_, here(adapter.b).stamp_, adapter.column});
  if (wanted == placed_) return;
  const AdapterPlaces places = places_of(adapters);
  const AdapterPlace& last = places.place[places.count - 1];
  if (last.first + last.rank != room_)
    throw JobFailure(FailureCause::internal, "a packed matrix has another room than its adapters need");
  const Room room{out_, in_, room_, columns_, values_.data()};
  launch(device, "fill_room", {blocks_for(room_ * (out_ + in_), kThreads), kThreads}, fill_room, room, places);
  placed_ = std::move(wanted);
}

}  // namespace collimate::cuda
