// The tree over blocks of rows.
#include "cuda/row_sums.h"

namespace collimate::cuda {
namespace {

constexpr int kThreads = 128;

// Neighbours first, as in cpu/row_sums.h; one thread a column, so that no thread waits for another.
__global__ void add_tree(float* partial, int64_t blocks, int64_t width, float* total) {
  const int64_t column = global_thread();
  if (column >= width) return;
  for (int64_t stride = 1; stride < blocks; stride *= 2)
    for (int64_t block = 0; block + stride < blocks; block += 2 * stride)
      partial[block * width + column] += partial[(block + stride) * width + column];
  total[column] += partial[column];
}

}  // namespace

void add_block_sums(Device& device, float* partial, int64_t blocks, int64_t width, float* total) {
  if (blocks == 0) return;
  launch(device, "add_block_sums", {blocks_for(width, kThreads), kThreads}, add_tree, partial, blocks, width, total);
}

}  // namespace collimate::cuda
