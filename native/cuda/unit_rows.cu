// Rows scaled to one length; one warp a row.
#include "cuda/launch.h"
#include "cuda/ops.h"

namespace collimate::cuda {
namespace {

constexpr int kThreads = 256, kWarpsPerBlock = kThreads / kWarpSize;
constexpr float kShortestSquared = 1e-24f;  // a shorter row has no direction

__device__ __forceinline__ int64_t row_of_warp() {
  return static_cast<int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarpSize;
}

__global__ void forward(ops::UnitRowsForward args) {
  const int64_t row = row_of_warp();
  if (row >= args.rows) return;
  const float* x = args.x + row * args.dim;
  float squared = 0.0f;
  for (int64_t c = lane_of_thread(); c < args.dim; c += kWarpSize) squared += x[c] * x[c];
  squared = warp_sum(squared);
  const float inverse = squared < kShortestSquared ? 0.0f : 1.0f / sqrtf(squared);
  const float factor = args.length * inverse;
  for (int64_t c = lane_of_thread(); c < args.dim; c += kWarpSize) args.y[row * args.dim + c] = x[c] * factor;
  if (lane_of_thread() == 0) args.inverse_length[row] = inverse;
}

// dx = length / |x| (dy - u (u dy)), with u = y / length the row's direction
__global__ void backward(ops::UnitRowsBackward args, float inverse_squared) {
  const int64_t row = row_of_warp();
  if (row >= args.rows) return;
  const float* y = args.y + row * args.dim;
  const float* dy = args.dy + row * args.dim;
  float along = 0.0f;
  for (int64_t c = lane_of_thread(); c < args.dim; c += kWarpSize) along += y[c] * dy[c];
  along = warp_sum(along) * inverse_squared;
  const float factor = args.length * args.inverse_length[row];
  for (int64_t c = lane_of_thread(); c < args.dim; c += kWarpSize)
    args.dx[row * args.dim + c] = factor * (dy[c] - y[c] * along);
}

}  // namespace

void unit_rows_forward(Device& device, const ops::UnitRowsForward& args) {
  launch(device, "unit_rows_forward", {blocks_for(args.rows, kWarpsPerBlock), kThreads}, forward, args);
}

void unit_rows_backward(Device& device, const ops::UnitRowsBackward& args) {
  launch(device, "unit_rows_backward", {blocks_for(args.rows, kWarpsPerBlock), kThreads}, backward, args,
         1.0f / (args.length * args.length));
}

}  // namespace collimate::cuda
