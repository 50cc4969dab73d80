// Rotary positions: element i of a head turns with element i + D/2.
#include "cuda/launch.h"
#include "cuda/ops.h"

namespace collimate::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void rotate(ops::Rope args) {
  const int64_t half = args.head_dim / 2, pair = global_thread();
  if (pair >= args.rows * args.heads * half) return;
  const int64_t d = pair % half, head = pair / half % args.heads, row = pair / half / args.heads;
  const int64_t angle = static_cast<int64_t>(args.positions[row]) * half + d;
  const float c = args.cos[angle], s = args.inverse ? -args.sin[angle] : args.sin[angle];
  float* low = args.x + row * args.x_stride + head * args.head_dim + d;
  const float a = low[0], b = low[half];
  low[0] = a * c - b * s;
  low[half] = b * c + a * s;
}

}  // namespace

void rope(Device& device, const ops::Rope& args) {
  launch(device, "rope", {blocks_for(args.rows * args.heads * (args.head_dim / 2), kThreads), kThreads}, rotate, args);
}

}  // namespace collimate::cuda
