// Gradients of an adapter's two matrices: products of a tall wide matrix with a tall narrow one.
//
// 1. An element is the sum over the rows in order, each term a fused multiply-add: the same bits on every instruction
//    set and at every tile.
// 2. Ranks are a handful of columns, which a general product library is not made for: it took a fifth of a bf16 step
//    for a fortieth of its work.
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/isa.h"
#include "core/ops.h"

namespace collimate::ops {
namespace {

constexpr int64_t kColumns = 64;  // of the wide matrix, one tile
constexpr int64_t kRows = 64;     // at a time: a tile's rows stay in the first-level cache while the ranks pass
constexpr int64_t kRanks = 4;     // whose sums are in registers together

// sums[r][c] += sum over rows of narrow[row][r] * wide[row][c], for kRanks ranks and kColumns columns.
struct TileCall {
  const float* wide = nullptr;
  int64_t stride = 0;
  const float* narrow = nullptr;  // [rows][kRanks]
  int64_t rows = 0;
  float* sums = nullptr;  // [kRanks][kColumns]
};

__attribute__((target("avx512f"))) void tile_avx512(const TileCall& call) {
  constexpr int kVectors = kColumns / 16;
  __m512 sums[kRanks][kVectors];
  for (int r = 0; r < kRanks; ++r)
    for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm512_loadu_ps(call.sums + r * kColumns + 16 * v);
  for (int64_t row = 0; row < call.rows; ++row) {
    const float* wide = call.wide + row * call.stride;
    __m512 x[kVectors];
    for (int v = 0; v < kVectors; ++v) x[v] = _mm512_loadu_ps(wide + 16 * v);
    for (int r = 0; r < kRanks; ++r) {
      const __m512 factor = _mm512_set1_ps(call.narrow[row * kRanks + r]);
      for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm512_fmadd_ps(factor, x[v], sums[r][v]);
    }
  }
  for (int r = 0; r < kRanks; ++r)
    for (int v = 0; v < kVectors; ++v) _mm512_storeu_ps(call.sums + r * kColumns + 16 * v, sums[r][v]);
}

void tile_avx2(const TileCall& call) {
  constexpr int kVectors = 2;  // eight sums, two values and a factor fill the registers
  for (int64_t column = 0; column < kColumns; column += 8 * kVectors) {
    __m256 sums[kRanks][kVectors];
    for (int r = 0; r < kRanks; ++r)
      for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm256_loadu_ps(call.sums + r * kColumns + column + 8 * v);
    for (int64_t row = 0; row < call.rows; ++row) {
      const float* wide = call.wide + row * call.stride + column;
      __m256 x[kVectors];
      for (int v = 0; v < kVectors; ++v) x[v] = _mm256_loadu_ps(wide + 8 * v);
      for (int r = 0; r < kRanks; ++r) {
        const __m256 factor = _mm256_set1_ps(call.narrow[row * kRanks + r]);
        for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm256_fmadd_ps(factor, x[v], sums[r][v]);
      }
    }
    for (int r = 0; r < kRanks; ++r)
      for (int v = 0; v < kVectors; ++v) _mm256_storeu_ps(call.sums + r * kColumns + column + 8 * v, sums[r][v]);
  }
}

// narrowᵀ wide: narrow [rows, ranks] contiguous, wide [rows, width].
struct TallProduct {
  int64_t rows = 0, ranks = 0, width = 0;
  const float* narrow = nullptr;
  const float* wide = nullptr;
  int64_t stride = 0;
};

// `add(rank, column, sum)` for each element of a tile of columns.
template <typename Add>
void product_tile(const TallProduct& product, int64_t first_column, const Add& add) {
  const int64_t columns = std::min(kColumns, product.width - first_column);
  const int64_t groups = (product.ranks + kRanks - 1) / kRanks;
  std::vector<float> sums(static_cast<size_t>(groups * kRanks * kColumns), 0.0f);
  alignas(64) float narrow[kRows * kRanks];
  alignas(64) float edge[kRows * kColumns];
  if (columns < kColumns) std::fill_n(edge, kRows * kColumns, 0.0f);
  for (int64_t first = 0; first < product.rows; first += kRows) {
    const int64_t rows = std::min(kRows, product.rows - first);
    TileCall call{.wide = product.wide + first * product.stride + first_column,
                  .stride = product.stride,
                  .narrow = narrow,
                  .rows = rows};
    if (columns < kColumns) {  // the columns beyond the edge are zeros
      for (int64_t row = 0; row < rows; ++row)
        std::memcpy(edge + row * kColumns, call.wide + row * call.stride, static_cast<size_t>(columns) * sizeof(float));
      call.wide = edge;
      call.stride = kColumns;
    }
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t ranks = std::min(kRanks, product.ranks - group * kRanks);
      if (ranks < kRanks) std::fill_n(narrow, kRows * kRanks, 0.0f);
      for (int64_t row = 0; row < rows; ++row)
        std::memcpy(narrow + row * kRanks, product.narrow + (first + row) * product.ranks + group * kRanks,
                    static_cast<size_t>(ranks) * sizeof(float));
      call.sums = sums.data() + group * kRanks * kColumns;
      selected_isa() == Isa::avx512 ? tile_avx512(call) : tile_avx2(call);
    }
  }
  for (int64_t rank = 0; rank < product.ranks; ++rank)
    for (int64_t c = 0; c < columns; ++c) add(rank, first_column + c, sums[static_cast<size_t>(rank * kColumns + c)]);
}

template <typename Add>
void tall_product(Pool& pool, const TallProduct& product, const Add& add) {
  pool.for_blocks(product.width, kColumns, [&](int64_t begin, int64_t) { product_tile(product, begin, add); });
}

}  // namespace

void lora_gradient(Pool& pool, const LoraGradient& args) {
  tall_product(
      pool,
      {.rows = args.rows,
       .ranks = args.rank,
       .width = args.out,
       .narrow = args.xa,
       .wide = args.dy,
       .stride = args.dy_stride},
      [&](int64_t rank, int64_t column, float sum) { args.db[column * args.rank + rank] += args.scale * sum; });
  tall_product(pool,
               {.rows = args.rows,
                .ranks = args.rank,
                .width = args.in,
                .narrow = args.dxa,
                .wide = args.x,
                .stride = args.x_stride},
               [&](int64_t rank, int64_t column, float sum) { args.da[rank * args.in + column] += sum; });
}

}  // namespace collimate::ops
