// Embedding lookup and its gradient, which adds the rows of a token in the order of their positions.
//
// The gradient's warps each own one row of the table and look through all tokens: reading 4 bytes a token and row is
// little beside the rows themselves while tables are those of new tokens or of a small vocabulary.
#include "cuda/launch.h"
#include "cuda/ops.h"

namespace collimate::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarpsPerBlock = kThreads / kWarpSize;

__global__ void lookup(ops::EmbeddingForward args) {
  const int64_t element = global_thread();
  if (element >= args.rows * args.dim) return;
  const int64_t row = element / args.dim;
  args.y[element] = args.table[args.tokens[row] * args.dim + element % args.dim];
}

__global__ void add_rows_of_token(ops::EmbeddingBackward args) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarpSize;
  if (row >= args.table_rows) return;
  const int lane = lane_of_thread();
  const int64_t token = args.first_row + row;
  float* to = args.dtable + row * args.dim;
  for (int64_t first = 0; first < args.rows; first += kWarpSize) {
    const int64_t at = first + lane;
    unsigned found = __ballot_sync(kAllLanes, at < args.rows && args.tokens[at] == token);
    for (; found != 0; found &= found - 1) {
      const float* from = args.dy + (first + __ffs(static_cast<int>(found)) - 1) * args.dim;
      for (int64_t c = lane; c < args.dim; c += kWarpSize) to[c] += from[c];
    }
  }
}

}  // namespace

void embedding_forward(Device& device, const ops::EmbeddingForward& args) {
  launch(device, "embedding_forward", {blocks_for(args.rows * args.dim, kThreads), kThreads}, lookup, args);
}

void embedding_backward(Device& device, const ops::EmbeddingBackward& args) {
  launch(device, "embedding_backward", {blocks_for(args.table_rows, kWarpsPerBlock), kThreads}, add_rows_of_token,
         args);
}

}  // namespace collimate::cuda
