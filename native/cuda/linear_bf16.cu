// Linear layers with adapters on the tensor cores.
//
// 1. What a product reads comes in bf16, or is rounded once, into scratch memory; it serves all products of the op.
// 2. A weight gradient sums over all rows of a batch. Where its tiles are too few for a card those sums are cut into
//    blocks of rows, by the shape alone, and the blocks added in a tree.
#include <algorithm>

#include "core/failure.h"
#include "cuda/cublaslt.h"
#include "cuda/fp8.h"
#include "cuda/gemm.h"
#include "cuda/launch.h"
#include "cuda/linear_bf16.h"
#include "cuda/row_sums.h"
#include "cuda/scratch_layout.h"
#include "cuda/warp_matrix.h"

namespace collimate::cuda {
namespace {

constexpr int kThreads = 256;

// low [rows, room] to each adapter's own array, and rounded beside the rows it was made of.
struct LowRank {
  int64_t rows, room;
  const float* low;
  uint16_t* beside;
  int64_t beside_stride;
};

__global__ void spread_low_rank(LowRank g, AdapterPlaces adapters) {
  const int64_t row = global_thread() / g.room, column = global_thread() % g.room;
  if (row >= g.rows) return;
  const float value = g.low[row * g.room + column];
  g.beside[row * g.beside_stride + column] = static_cast<uint16_t>(bf16_bits(value));
  for (int i = 0; i < adapters.count; ++i) {
    const AdapterPlace& p = adapters.place[i];
    const int64_t own = column - p.first;
    if (own >= 0 && own < p.rank) p.low[row * p.rank + own] = value;
  }
}

void spread(Device& device, const LowRank& low, const AdapterPlaces& adapters) {
  launch(device, "spread_low_rank", {blocks_for(low.rows * low.room, kThreads), kThreads}, spread_low_rank, low,
         adapters);
}

// x or dy of a layer as its products read it: [T, width] and, beside it, room for what adapters add.
struct Side {
  int64_t rows = 0, width = 0;
  int64_t row = 0;     // columns with the room
  int64_t filled = 0;  // columns that must have a value before adapters have written theirs
  const float* fp32 = nullptr;
  int64_t fp32_stride = 0;
  ops::RowsOfBf16 given{};  // in place of fp32

  int64_t scratch_values() const { return given.values ? 0 : rows * row; }
  RowsToRound unrounded() const {
    if (given.values) return {.bf16 = given.values, .stride = given.stride};
    return {.fp32 = fp32, .stride = fp32_stride};
  }
};

// Products read whole rows; what adapters do not write in their room is zero.
int64_t filled_columns(int64_t width, const Bf16Matrix& weight, int64_t row, bool has_adapters) {
  return has_adapters && width + weight.room() == row ? width : row;
}

// The side in bf16: as it was given, or rounded into `scratch`.
ops::RowsOfBf16 in_bf16(Device& device, const Side& side, uint16_t* scratch) {
  const bool is_given = side.given.values != nullptr;
  const ops::RowsOfBf16 rows = is_given ? side.given : ops::RowsOfBf16{scratch, side.row};
  const int64_t begin = is_given ? side.width : 0;
  if (rows.stride < side.row)
    throw JobFailure(FailureCause::internal,
                     "rows of bf16 have less room beside them than their layer's adapters need");
  if (begin == side.filled) return rows;
  round_rows(device, {.rows = side.rows,
                      .width = side.width - begin,
                      .from = side.fp32,
                      .from_stride = side.fp32_stride,
                      .to = rows.values + begin,
                      .to_stride = rows.stride,
                      .filled = side.filled - begin});
  return rows;
}

// Where y or dx goes.
struct Result {
  float* fp32 = nullptr;
  uint16_t* bf16 = nullptr;
  int64_t stride = 0;
};
Result result_of(float* fp32, int64_t stride, const ops::RowsOfBf16& given) {
  if (given.values) return {.bf16 = given.values, .stride = given.stride};
  return {.fp32 = fp32, .stride = stride};
}

// Blocks that the sum of a gradient over `k` rows is cut into: two tiles for each multiprocessor of a large card, but
// no block below 256 rows.
int64_t gradient_blocks(int64_t m, int64_t n, int64_t k) {
  constexpr int64_t kTile = 128, kTilesWanted = 264, kRowsMin = 256;
  const int64_t tiles = ((m + kTile - 1) / kTile) * ((n + kTile - 1) / kTile);
  if (tiles == 0) return 1;
  return std::clamp<int64_t>(std::min(kTilesWanted / tiles, k / kRowsMin), 1, 64);
}
int64_t partial_elements(int64_t m, int64_t n, int64_t k) {
  const int64_t blocks = gradient_blocks(m, n, k);
  return blocks > 1 ? blocks * m * n : 0;
}

// c [m, n] += alpha aᵀ b, a [k, m] and b [k, n]. `partial`: partial_elements().
void add_gradient(Device& device, Bf16Product g, float* partial) {
  g.transpose_a = true;
  g.ldc = g.n;
  const int64_t blocks = gradient_blocks(g.m, g.n, g.k);
  if (blocks == 1) {
    g.accumulate = true;
    gemm_bf16(device, g);
    return;
  }
  float* total = g.c;
  constexpr int64_t kSlice = 32;
  g.k_block = ((g.k + blocks - 1) / blocks + kSlice - 1) / kSlice * kSlice;
  g.c = partial;
  gemm_bf16(device, g);
  add_block_sums(device, partial, (g.k + g.k_block - 1) / g.k_block, g.m * g.n, total);
}

// Scratch memory of a product with W in eight bits: the left operand of `width` columns.
struct Fp8Scratch {
  Fp8Scratch(ScratchLayout& layout, const Bf16Matrix& weight, int64_t rows, int64_t width)
      : scales(layout.add<float>(weight.is_fp8() ? 2 : 0)),
        codes(layout.add<uint8_t>(weight.is_fp8() ? rows * width : 0)),
        values(layout.add<uint16_t>(weight.is_fp8() ? rows * width : 0)) {}
  int64_t scales, codes, values;
};

// c = a W'ᵀ, or a W' (`is_backward`), both in eight bits.
struct Fp8Layer {
  const Bf16Matrix* weight = nullptr;
  bool is_backward = false;
  int64_t rows = 0;
  RowsToRound a{};
  Result c{};
};
void multiply_fp8(Device& device, const Fp8Layer& g, unsigned char* base, const Fp8Scratch& at) {
  const Bf16Matrix& weight = *g.weight;
  const int64_t k = g.is_backward ? weight.out() : weight.in(), n = g.is_backward ? weight.in() : weight.out();
  float* scales = array_at<float>(base, at.scales);
  largest_magnitude(device, {g.rows, k, g.a, scales});
  Fp8Rows rounded{.format = g.is_backward ? Fp8Format::e5m2 : Fp8Format::e4m3,
                  .rows = g.rows / Fp8Product::kMultiple * Fp8Product::kMultiple,
                  .width = k,
                  .from = g.a,
                  .largest = scales,
                  .codes = array_at<uint8_t>(base, at.codes),
                  .inverse_scale = scales + 1};
  const Fp8Product product{.m = rounded.rows,
                           .n = n,
                           .k = k,
                           .a_format = rounded.format,
                           .a = rounded.codes,
                           .b = g.is_backward ? weight.codes_across() : weight.codes(),
                           .a_inverse_scale = scales + 1,
                           .b_inverse_scale = weight.inverse_scale(),
                           .c = g.c.fp32,
                           .c_bf16 = g.c.bf16,
                           .ldc = g.c.stride};
  int64_t done = 0;  // rows that the library has multiplied
  if (device.cublaslt().takes(product)) {
    round_to_fp8(device, rounded);
    if (device.cublaslt().multiply(device, product)) done = product.m;
  }
  if (done == g.rows) return;
  uint16_t* values = array_at<uint16_t>(base, at.values);
  rounded.rows = g.rows - done;
  rounded.from = g.a.from_row(done);
  rounded.codes = nullptr;
  rounded.values = values;
  rounded.values_stride = k;
  round_to_fp8(device, rounded);
  gemm_bf16(device, {.transpose_b = !g.is_backward,
                     .m = rounded.rows,
                     .n = n,
                     .k = k,
                     .a = values,
                     .lda = k,
                     .b = weight.values(),
                     .ldb = weight.row_stride(),
                     .c = g.c.fp32 ? g.c.fp32 + done * g.c.stride : nullptr,
                     .c_bf16 = g.c.bf16 ? g.c.bf16 + done * g.c.stride : nullptr,
                     .ldc = g.c.stride});
}

}  // namespace

void bf16_linear_forward(Device& device, const ops::Bf16LinearForward& args) {
  const Bf16Matrix& weight = here(args.weight);
  weight.place(device, args.adapters);
  const int64_t rows = args.rows, in = weight.in(), room = weight.room(), stride = weight.row_stride();
  const Side x{.rows = rows,
               .width = in,
               .row = stride,
               .filled = filled_columns(in, weight, stride, !args.adapters.empty()),
               .fp32 = args.x,
               .fp32_stride = args.x_stride,
               .given = args.x_bf16};
  const Result y = result_of(args.y, args.y_stride, args.y_bf16);
  ScratchLayout layout;
  const int64_t wide_at = layout.add<uint16_t>(x.scratch_values()), low_at = layout.add<float>(rows * room);
  const Fp8Scratch fp8(layout, weight, rows, in);
  unsigned char* base = device.scratch<unsigned char>(layout.bytes());
  const auto [wide, ldx] = in_bf16(device, x, array_at<uint16_t>(base, wide_at));  // [x, x Aᵀ]
  if (!args.adapters.empty()) {
    AdapterPlaces places = places_of(args.adapters);
    for (int i = 0; i < places.count; ++i) places.place[i].low = args.adapters[static_cast<size_t>(i)].xa;
    float* low = array_at<float>(base, low_at);
    gemm_bf16(device, {.transpose_b = true,
                       .m = rows,
                       .n = room,
                       .k = in,
                       .a = wide,
                       .lda = ldx,
                       .b = weight.values() + weight.out() * stride,
                       .ldb = stride,
                       .c = low,
                       .ldc = room});
    spread(device, {rows, room, low, wide + in, ldx}, places);
  }
  if (weight.is_fp8()) {
    multiply_fp8(device, {.weight = &weight, .rows = rows, .a = x.unrounded(), .c = y}, base, fp8);
    if (args.adapters.empty()) return;
    gemm_bf16(device, {.transpose_b = true,
                       .m = rows,
                       .n = weight.out(),
                       .k = room,
                       .a = wide + in,
                       .lda = ldx,
                       .b = weight.values() + in,
                       .ldb = stride,
                       .accumulate = true,
                       .c = y.fp32,
                       .c_bf16 = y.bf16,
                       .ldc = y.stride});
    return;
  }
  gemm_bf16(device, {.transpose_b = true,
                     .m = rows,
                     .n = weight.out(),
                     .k = stride,
                     .a = wide,
                     .lda = ldx,
                     .b = weight.values(),
                     .ldb = stride,
                     .c = y.fp32,
                     .c_bf16 = y.bf16,
                     .ldc = y.stride});
}

void bf16_linear_backward(Device& device, const ops::Bf16LinearBackward& args) {
  const Bf16Matrix& weight = here(args.weight);
  weight.place(device, args.adapters);
  const int64_t rows = args.rows, out = weight.out(), in = weight.in(), room = weight.room();
  const int64_t stride = weight.row_stride();
  const bool is_trained = args.dweight != nullptr || !args.adapters.empty();
  AdapterPlaces places = places_of(args.adapters);
  int64_t partial = args.dweight != nullptr ? partial_elements(args.dweight_rows, in, rows) : 0;
  for (int i = 0; i < places.count; ++i) {
    AdapterPlace& place = places.place[i];
    place.low = args.dxa + place.first * rows;
    partial =
        std::max({partial, partial_elements(place.rank, in, rows), partial_elements(place.width, place.rank, rows)});
  }
  const Side dy{.rows = rows,
                .width = out,
                .row = weight.rows(),
                .filled = filled_columns(out, weight, weight.rows(), !args.adapters.empty()),
                .fp32 = args.dy,
                .fp32_stride = args.dy_stride,
                .given = args.dy_bf16};
  const Side x{.rows = rows,
               .width = in,
               .row = stride,
               .filled = in,  // no product of this op reads on
               .fp32 = args.x,
               .fp32_stride = args.x_stride,
               .given = args.x_bf16};
  const Result dx = result_of(args.dx, args.dx_stride, args.dx_bf16);
  ScratchLayout layout;
  const int64_t dwide_at = layout.add<uint16_t>(dy.scratch_values()), low_at = layout.add<float>(rows * room);
  const int64_t wide_at = layout.add<uint16_t>(is_trained ? x.scratch_values() : 0);
  const int64_t partial_at = layout.add<float>(partial);
  const Fp8Scratch fp8(layout, weight, rows, out);
  unsigned char* base = device.scratch<unsigned char>(layout.bytes());
  const auto [dwide, ldd] = in_bf16(device, dy, array_at<uint16_t>(base, dwide_at));  // [dy, dy B]
  if (!args.adapters.empty()) {
    float* low = array_at<float>(base, low_at);
    gemm_bf16(device, {.m = rows,
                       .n = room,
                       .k = out,
                       .a = dwide,
                       .lda = ldd,
                       .b = weight.values() + in,
                       .ldb = stride,
                       .c = low,
                       .ldc = room});
    spread(device, {rows, room, low, dwide + out, ldd}, places);
  }
  if (weight.is_fp8()) {
    multiply_fp8(device, {.weight = &weight, .is_backward = true, .rows = rows, .a = dy.unrounded(), .c = dx}, base,
                 fp8);
    if (!args.adapters.empty())
      gemm_bf16(device, {.m = rows,
                         .n = in,
                         .k = room,
                         .a = dwide + out,
                         .lda = ldd,
                         .b = weight.values() + out * stride,
                         .ldb = stride,
                         .accumulate = true,
                         .c = dx.fp32,
                         .c_bf16 = dx.bf16,
                         .ldc = dx.stride});
  } else {
    gemm_bf16(device, {.m = rows,
                       .n = in,
                       .k = weight.rows(),
                       .a = dwide,
                       .lda = ldd,
                       .b = weight.values(),
                       .ldb = stride,
                       .c = dx.fp32,
                       .c_bf16 = dx.bf16,
                       .ldc = dx.stride});
  }
  if (!is_trained) return;
  const auto [wide, ldx] = in_bf16(device, x, array_at<uint16_t>(base, wide_at));  // [x, x Aᵀ]
  float* sums = array_at<float>(base, partial_at);
  if (args.dweight != nullptr)
    add_gradient(device,
                 {.m = args.dweight_rows,
                  .n = in,
                  .k = rows,
                  .a = dwide + args.dweight_first,
                  .lda = ldd,
                  .b = wide,
                  .ldb = ldx,
                  .c = args.dweight},
                 sums);
  for (int i = 0; i < places.count; ++i) {
    const AdapterPlace& place = places.place[i];
    const ops::Bf16Adapter& adapter = args.adapters[static_cast<size_t>(i)];
    uint16_t* xa = wide + in + place.first;
    round_rows(device, {.rows = rows,
                        .width = place.rank,
                        .from = adapter.xa,
                        .from_stride = place.rank,
                        .to = xa,
                        .to_stride = ldx,
                        .filled = place.rank});
    // dy B holds the scale.
    add_gradient(device,
                 {.m = place.rank,
                  .n = in,
                  .k = rows,
                  .a = dwide + out + place.first,
                  .lda = ldd,
                  .b = wide,
                  .ldb = ldx,
                  .c = adapter.da},
                 sums);
    add_gradient(device,
                 {.m = place.width,
                  .n = place.rank,
                  .k = rows,
                  .alpha = adapter.scale,
                  .a = dwide + place.column,
                  .lda = ldd,
                  .b = xa,
                  .ldb = ldx,
                  .c = adapter.db},
                 sums);
  }
}

}  // namespace collimate::cuda
