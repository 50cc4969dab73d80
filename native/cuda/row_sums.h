// Column sums over rows, for the gradients of weights that all rows share: blocks of rows, then a tree over the blocks.
#pragma once

#include "cuda/launch.h"

namespace collimate::cuda {

constexpr int64_t kRowsPerSum = 64;

// total[c] += tree over blocks of partial[block, c]; `partial` [blocks, width] is overwritten.
void add_block_sums(Device& device, float* partial, int64_t blocks, int64_t width, float* total);

inline int64_t sum_blocks(int64_t rows) { return (rows + kRowsPerSum - 1) / kRowsPerSum; }

}  // namespace collimate::cuda
