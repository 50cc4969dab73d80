// bf16 products on AMX tiles: 32 x 32 of C in four tiles, one load of A and B for every two products.
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/gemm_bf16_kernels.h"

#define COLLIMATE_AMX __attribute__((target("amx-tile,amx-bf16,avx512f")))

namespace collimate {
namespace {

constexpr int kTileRows = 16;
constexpr int64_t kTileBytes = 64;   // of one row
constexpr int64_t kBlock = 16 * 32;  // values of one A tile
constexpr int64_t kPairRow = 64;     // values of one pair of k in a panel: 32 columns, two each

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

TileConfig eight_full_tiles() {
  TileConfig config;
  for (int tile = 0; tile < 8; ++tile) {
    config.row_bytes[tile] = kTileBytes;
    config.rows[tile] = kTileRows;
  }
  return config;
}

// Tiles 0..3 are C (rows x columns), 4 and 5 are A, 6 and 7 are B.
COLLIMATE_AMX void start_from(const Bf16PanelCall& call, const float* c, bool two) {
  const int64_t stride = call.ldc * 4;
  if (call.accumulate) {
    _tile_loadd(0, c, stride);
    _tile_loadd(1, c + 16, stride);
    if (two) {
      _tile_loadd(2, c + 16 * call.ldc, stride);
      _tile_loadd(3, c + 16 * call.ldc + 16, stride);
    }
  } else if (call.bias) {  // a stride of 0 repeats the row
    _tile_loadd(0, call.bias, 0);
    _tile_loadd(1, call.bias + 16, 0);
    _tile_loadd(2, call.bias, 0);
    _tile_loadd(3, call.bias + 16, 0);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
}

}  // namespace

bool amx_is_there() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  if ((d & kAmxBf16) == 0 || (d & kAmxTile) == 0) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

COLLIMATE_AMX void bf16_panel_amx(const Bf16PanelCall& call) {
  static const TileConfig config = eight_full_tiles();
  _tile_loadconfig(&config);
  const int64_t depth = call.k / 32;
  for (int64_t block = 0; block < call.blocks; block += 2) {
    const bool two = block + 1 < call.blocks;
    const uint16_t* above = call.a + block * call.a_block;
    const uint16_t* below = above + call.a_block;
    float* c = call.c + block * 16 * call.ldc;
    start_from(call, c, two);
    const uint16_t* b = call.panel;
    if (two) {
      for (int64_t k = 0; k < depth; ++k, b += 16 * kPairRow, above += kBlock, below += kBlock) {
        _tile_loadd(6, b, kPairRow * 2);
        _tile_loadd(4, above, kTileBytes);
        _tile_loadd(5, below, kTileBytes);
        _tile_loadd(7, b + kPairRow / 2, kPairRow * 2);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
      }
    } else {
      for (int64_t k = 0; k < depth; ++k, b += 16 * kPairRow, above += kBlock) {
        _tile_loadd(6, b, kPairRow * 2);
        _tile_loadd(4, above, kTileBytes);
        _tile_loadd(7, b + kPairRow / 2, kPairRow * 2);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
      }
    }
    const int64_t stride = call.ldc * 4;
    _tile_stored(0, c, stride);
    _tile_stored(1, c + 16, stride);
    if (two) {
      _tile_stored(2, c + 16 * call.ldc, stride);
      _tile_stored(3, c + 16 * call.ldc + 16, stride);
    }
  }
  _tile_release();
}

}  // namespace collimate
