// SwiGLU: act = silu(gate) * up, silu(g) = g * sigmoid(g).
#include "core/math.h"
#include "core/ops.h"
#include "cpu/vector.h"

namespace collimate::ops {

namespace {

constexpr int64_t kRowsPerItem = 16;

void forward_rows(const SwiGluForward& args, int64_t begin, int64_t end) {
  const int64_t ffn = args.ffn_dim;
  for (int64_t i = begin; i < end; ++i) {
    const float* __restrict gate = args.gate_up + i * 2 * ffn;
    const float* __restrict up = gate + ffn;
    float* __restrict act = args.act + i * ffn;
    for (int64_t f = 0; f < ffn; ++f) act[f] = gate[f] * sigmoid_f32(gate[f]) * up[f];
  }
}

void backward_rows(const SwiGluBackward& args, int64_t begin, int64_t end) {
  const int64_t ffn = args.ffn_dim;
  for (int64_t i = begin; i < end; ++i) {
    const float* gate = args.gate_up + i * 2 * ffn;
    const float* up = gate + ffn;
    const float* dact = args.dact + i * ffn;
    float* dgate = args.dgate_up + i * 2 * ffn;
    float* dup = dgate + ffn;
    // Element f is read before it is written, so aliasing gate_up is safe in any vector width.
#pragma GCC ivdep
    for (int64_t f = 0; f < ffn; ++f) {
      const float g = gate[f], u = up[f], d = dact[f];
      const float s = sigmoid_f32(g);
      const float silu = g * s;
      dgate[f] = d * u * (s + silu * (1.0f - s));
      dup[f] = d * silu;
    }
  }
}

}  // namespace

void swiglu_forward(Pool& pool, const SwiGluForward& args) {
  pool.for_blocks(args.rows, kRowsPerItem, [&](int64_t begin, int64_t end) { forward_rows(args, begin, end); });
}

void swiglu_backward(Pool& pool, const SwiGluBackward& args) {
  pool.for_blocks(args.rows, kRowsPerItem, [&](int64_t begin, int64_t end) { backward_rows(args, begin, end); });
}

}  // namespace collimate::ops
