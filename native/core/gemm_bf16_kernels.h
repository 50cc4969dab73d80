// The two kernels behind gemm_bf16_tile: rows of A against one panel of 32 columns.
#pragma once

#include <cstdint>

namespace collimate {

// Sixteen rows a block, `blocks` blocks one behind the other; C is written in whole blocks.
struct Bf16PanelCall {
  const uint16_t* a = nullptr;  // [blocks][k / 32][16][32]
  int64_t a_block = 0;          // values from one block to the next
  int64_t blocks = 0;
  int64_t k = 0;                    // a multiple of 32
  const uint16_t* panel = nullptr;  // [k / 2][32][2]
  const float* bias = nullptr;      // [32], or null
  bool accumulate = false;
  float* c = nullptr;
  int64_t ldc = 0;
};

bool amx_is_there();  // and the kernel lets this process use it
void bf16_panel_amx(const Bf16PanelCall& call);
bool avx512_bf16_is_there();
void bf16_panel_avx512(const Bf16PanelCall& call);

// Rounds a row to bf16 (nearest even, denormals to zero), zero-padded to a multiple of 32; each 32 lie `step` values
// behind the 32 before. Needs avx512_bf16_is_there().
void bf16_round_row(const float* from, int64_t count, uint16_t* to, int64_t step);

}  // namespace collimate
