// One warp a row.
#include "cuda/launch.h"
#include "cuda/math.h"
#include "cuda/softmax_rows.h"

namespace collimate::cuda {
namespace {

constexpr int kThreads = 128, kWarpsPerBlock = kThreads / kWarpSize;

__device__ __forceinline__ int64_t row_of_warp() {
  return static_cast<int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarpSize;
}

__global__ void forward(float* x, int64_t rows, int64_t columns) {
  const int64_t row = row_of_warp();
  if (row >= rows) return;
  float* values = x + row * columns;
  float top = -INFINITY;
  for (int64_t c = lane_of_thread(); c < columns; c += kWarpSize) top = values[c] > top ? values[c] : top;
  top = warp_largest(top);
  float sum = 0.0f;
  for (int64_t c = lane_of_thread(); c < columns; c += kWarpSize) {
    values[c] = exp_f32(values[c] - top);
    sum += values[c];
  }
  const float inverse = 1.0f / warp_sum(sum);
  for (int64_t c = lane_of_thread(); c < columns; c += kWarpSize) values[c] *= inverse;
}

__global__ void backward(const float* p, float* dp, int64_t rows, int64_t columns) {
  const int64_t row = row_of_warp();
  if (row >= rows) return;
  const float* weights = p + row * columns;
  float* gradient = dp + row * columns;
  float mean = 0.0f;
  for (int64_t c = lane_of_thread(); c < columns; c += kWarpSize) mean += weights[c] * gradient[c];
  mean = warp_sum(mean);
  for (int64_t c = lane_of_thread(); c < columns; c += kWarpSize) gradient[c] = weights[c] * (gradient[c] - mean);
}

}  // namespace

void softmax_rows(Device& device, float* x, int64_t rows, int64_t columns) {
  launch(device, "softmax_rows", {blocks_for(rows, kWarpsPerBlock), kThreads}, forward, x, rows, columns);
}

void softmax_rows_backward(Device& device, const float* p, float* dp, int64_t rows, int64_t columns) {
  launch(device, "softmax_rows_backward", {blocks_for(rows, kWarpsPerBlock), kThreads}, backward, p, dp, rows, columns);
}

}  // namespace collimate::cuda
