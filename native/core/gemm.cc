// Tiling of products over the pool.
//
// 1. The cut of C is a function of (M, N, K): whole tiles, ascending, each one library call over all of K.
// 2. beta == 0 never reads C.
#include "core/gemm.h"

#include <algorithm>
#include <cstring>

#include "core/gemm_library.h"

namespace collimate {
namespace {

constexpr int64_t kTileRowsMax = 256;
constexpr int64_t kTileColsMax = 512;
constexpr int64_t kRowStep = 16;  // multiples of every kernel's register block
constexpr int64_t kColStep = 48;
constexpr int64_t kTilesWanted = 8;               // enough for four threads to share evenly
constexpr double kTileWorkMin = 1024.0 * 1024.0;  // multiply-adds, about 20 microseconds: below, hand-over costs more

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }
int64_t tiles_along(int64_t size, int64_t tile) { return (size + tile - 1) / tile; }

// C = beta * C, for products without terms.
void scale_only(const GemmArgs& args) {
  if (args.beta == 1.0f) return;
  for (int64_t row = 0; row < args.m; ++row) {
    float* c = args.c + row * args.ldc;
    if (args.beta == 0.0f) {
      std::fill_n(c, args.n, 0.0f);
    } else {
      for (int64_t col = 0; col < args.n; ++col) c[col] *= args.beta;
    }
  }
}

}  // namespace

GemmTiling gemm_tiling(int64_t m, int64_t n, int64_t k) {
  GemmTiling tile{std::min(m, kTileRowsMax), std::min(n, kTileColsMax)};
  for (;;) {
    const int64_t tiles = tiles_along(m, tile.rows) * tiles_along(n, tile.cols);
    const double work = static_cast<double>(tile.rows) * static_cast<double>(tile.cols) * static_cast<double>(k);
    if (tiles >= kTilesWanted || work < 2 * kTileWorkMin) return tile;
    // The longer side is halved: square tiles re-read the least of A and B.
    const bool rows_can = tile.rows >= 2 * kRowStep;
    const bool cols_can = tile.cols >= 2 * kColStep;
    if (rows_can && (tile.rows >= tile.cols || !cols_can)) {
      tile.rows = round_up((tile.rows + 1) / 2, kRowStep);
    } else if (cols_can) {
      tile.cols = round_up((tile.cols + 1) / 2, kColStep);
    } else {
      return tile;
    }
  }
}

void gemm_single(const GemmArgs& args) {
  if (args.m <= 0 || args.n <= 0) return;
  if (args.k <= 0 || args.alpha == 0.0f) return scale_only(args);
  gemm_library_call(args);
}

void gemm(Pool& pool, const GemmArgs& args) {
  if (args.m <= 0 || args.n <= 0) return;
  const GemmTiling tile = gemm_tiling(args.m, args.n, std::max<int64_t>(args.k, 1));
  const int64_t tiles_across = tiles_along(args.n, tile.cols);
  const int64_t tiles_down = tiles_along(args.m, tile.rows);
  pool.for_each(tiles_down * tiles_across, [&](int64_t item) {
    const int64_t row = item / tiles_across * tile.rows;
    const int64_t col = item % tiles_across * tile.cols;
    GemmArgs part = args;
    part.m = std::min(tile.rows, args.m - row);
    part.n = std::min(tile.cols, args.n - col);
    part.a = args.a + (args.transpose_a ? row : row * args.lda);
    part.b = args.b + (args.transpose_b ? col * args.ldb : col);
    part.c = args.c + row * args.ldc + col;
    gemm_single(part);
  });
}

void prepare_gemm_thread() { gemm_library_prepare_thread(); }
std::string gemm_identity() { return gemm_library_identity(); }

}  // namespace collimate
