// SwiGLU: act = silu(gate) * up.
#include "cuda/launch.h"
#include "cuda/math.h"
#include "cuda/ops.h"

namespace collimate::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void forward(ops::SwiGluForward args) {
  const int64_t element = global_thread();
  if (element >= args.rows * args.ffn_dim) return;
  const float* gate = args.gate_up + element / args.ffn_dim * 2 * args.ffn_dim + element % args.ffn_dim;
  const float g = gate[0];
  args.act[element] = g * sigmoid_f32(g) * gate[args.ffn_dim];
}

__global__ void backward(ops::SwiGluBackward args) {
  const int64_t element = global_thread();
  if (element >= args.rows * args.ffn_dim) return;
  const int64_t at = element / args.ffn_dim * 2 * args.ffn_dim + element % args.ffn_dim;
  const float g = args.gate_up[at], u = args.gate_up[at + args.ffn_dim], d = args.dact[element];
  const float s = sigmoid_f32(g);
  const float silu = g * s;
  args.dgate_up[at] = d * u * (s + silu * (1.0f - s));
  args.dgate_up[at + args.ffn_dim] = d * silu;
}

}  // namespace

void swiglu_forward(Device& device, const ops::SwiGluForward& args) {
  launch(device, "swiglu_forward", {blocks_for(args.rows * args.ffn_dim, kThreads), kThreads}, forward, args);
}

void swiglu_backward(Device& device, const ops::SwiGluBackward& args) {
  launch(device, "swiglu_backward", {blocks_for(args.rows * args.ffn_dim, kThreads), kThreads}, backward, args);
}

}  // namespace collimate::cuda
