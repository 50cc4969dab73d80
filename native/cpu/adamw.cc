// AdamW with decoupled weight decay (Loshchilov & Hutter), in PyTorch's order of operations.
#include <cmath>

#include "core/ops.h"
#include "cpu/vector.h"

namespace collimate::ops {

namespace {

constexpr int64_t kElementsPerItem = 16384;

void update(const AdamW& args, int64_t begin, int64_t end) {
  float* __restrict parameter = args.parameter;
  float* __restrict first = args.first_moment;
  float* __restrict second = args.second_moment;
  const float* __restrict gradient = args.gradient;
  const float keep = 1.0f - args.learning_rate * args.weight_decay;
  const float step = args.learning_rate / args.bias_correction1;
  const float inverse_root = 1.0f / std::sqrt(args.bias_correction2);
  const float beta1 = args.beta1, beta2 = args.beta2, epsilon = args.epsilon, scale = args.gradient_scale;
  for (int64_t i = begin; i < end; ++i) {
    const float g = gradient[i] * scale;
    const float m = beta1 * first[i] + (1.0f - beta1) * g;
    const float v = beta2 * second[i] + (1.0f - beta2) * (g * g);
    first[i] = m;
    second[i] = v;
    parameter[i] = parameter[i] * keep - step * (m / (__builtin_sqrtf(v) * inverse_root + epsilon));
  }
}

}  // namespace

void adamw(Pool& pool, const AdamW& args) {
  pool.for_blocks(args.elements, kElementsPerItem, [&](int64_t begin, int64_t end) { update(args, begin, end); });
}

}  // namespace collimate::ops
