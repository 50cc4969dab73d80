#include "core/dccf/propagate.h"

#include <cmath>
#include <type_traits>

#include "core/row_ops.h"

namespace collimate::dccf {
namespace {

constexpr float kTinyNorm = 1e-12f;

template <int64_t kDim>
void spread_rows(const Graph& graph, const Spread& args, RowBlock block) {
  const int64_t dim = kDim > 0 ? kDim : args.dim;
  const float* scale = graph.inverse_root_degree().data();
  for (int64_t h = block.begin; h < block.end; ++h) {
    float* y = args.y + h * dim;
    if (!args.accumulate)
      for (int64_t c = 0; c < dim; ++c) y[c] = 0.0f;
    for (const int32_t t : graph.neighbours(h)) row_add_scaled(y, args.x + t * dim, scale[h] * scale[t], dim);
  }
}

void inverse_norm_rows(const float* x, int64_t dim, RowBlock block, float* result) {
  for (int64_t h = block.begin; h < block.end; ++h) {
    const float norm = std::sqrt(row_dot(x + h * dim, x + h * dim, dim));
    result[h] = norm > kTinyNorm ? 1.0f / norm : 0.0f;
  }
}

template <int64_t kDim>
void masked_forward_rows(const Graph& graph, const MaskedForward& args, RowBlock block) {
  const int64_t dim = kDim > 0 ? kDim : args.dim;
  for (int64_t h = block.begin; h < block.end; ++h) {
    for (const MaskedView& view : args.views) {
      const float* x = view.x + h * dim;
      const float inverse_norm = view.inverse_norm[h];
      float* out = view.h + h * dim;
      float sum = 0.0f;
      for (int64_t c = 0; c < dim; ++c) out[c] = 0.0f;
      for (const int32_t t : graph.neighbours(h)) {
        const float cosine = row_dot(x, view.x + t * dim, dim) * (inverse_norm * view.inverse_norm[t]);
        const float mask = (cosine + 1.0f) * 0.5f;
        sum += mask;
        row_add_scaled(out, args.e + t * dim, mask, dim);
      }
      // Opposite vectors on every edge would leave no mask at all.
      const float inverse_sum = sum > kTinyNorm ? 1.0f / sum : 0.0f;
      view.inverse_sum[h] = inverse_sum;
      for (int64_t c = 0; c < dim; ++c) out[c] *= inverse_sum;
    }
  }
}

// What a head h gives to its own masks: d loss / d a(h, t) = (dh[h] . E[t] - shift[h]) / s(h), shift = dh . H.
template <int64_t kDim>
void shift_rows(const MaskedBackward& args, int view, RowBlock block, float* shift) {
  const int64_t dim = kDim > 0 ? kDim : args.forward.dim;
  for (int64_t h = block.begin; h < block.end; ++h)
    shift[h] = row_dot(args.dh[view] + h * dim, args.forward.views[view].h + h * dim, dim);
}

// Row h collects, from each neighbour t: its share of E through t's mask, and both directions of the pair's mask
// gradient for x. `unit` is scratch of dim floats: the gradient with respect to x[h] / |x[h]|.
template <int64_t kDim>
void masked_backward_rows(const Graph& graph, const MaskedBackward& args, int index, const float* shift, RowBlock block,
                          float* unit) {
  const int64_t dim = kDim > 0 ? kDim : args.forward.dim;
  const MaskedView& view = args.forward.views[index];
  const float* e = args.forward.e;
  const float* dh = args.dh[index];
  for (int64_t h = block.begin; h < block.end; ++h) {
    const float* x = view.x + h * dim;
    float* de = args.de + h * dim;
    for (int64_t c = 0; c < dim; ++c) unit[c] = 0.0f;
    for (const int32_t t : graph.neighbours(h)) {
      const float* x_t = view.x + t * dim;
      const float cosine = row_dot(x, x_t, dim) * (view.inverse_norm[h] * view.inverse_norm[t]);
      const float mask = (cosine + 1.0f) * 0.5f;
      row_add_scaled(de, dh + t * dim, mask * view.inverse_sum[t], dim);
      const float from_h = (row_dot(dh + h * dim, e + t * dim, dim) - shift[h]) * view.inverse_sum[h];
      const float from_t = (row_dot(dh + t * dim, e + h * dim, dim) - shift[t]) * view.inverse_sum[t];
      row_add_scaled(unit, x_t, 0.5f * (from_h + from_t) * view.inverse_norm[t], dim);
    }
    // Through the normalisation: dx = (unit - (unit . x^) x^) / |x|.
    const float inverse_norm = view.inverse_norm[h];
    const float along = row_dot(unit, x, dim) * inverse_norm;
    float* dx = args.dx[index] + h * dim;
    for (int64_t c = 0; c < dim; ++c) dx[c] += (unit[c] - along * (x[c] * inverse_norm)) * inverse_norm;
  }
}

template <typename Body>
void for_row_blocks(Pool& pool, const Graph& graph, const Body& body) {
  const std::span<const RowBlock> blocks = graph.row_blocks();
  pool.for_each(static_cast<int64_t>(blocks.size()), [&](int64_t item) { body(blocks[item]); });
}

// Calls body with the width as a constant where it is a usual one, which unrolls its loops; 0 stands for any width.
template <typename Body>
void with_dim(int64_t dim, const Body& body) {
  if (dim == 32) return body(std::integral_constant<int64_t, 32>());
  if (dim == 64) return body(std::integral_constant<int64_t, 64>());
  return body(std::integral_constant<int64_t, 0>());
}

}  // namespace

void spread(Pool& pool, const Graph& graph, const Spread& args) {
  with_dim(args.dim, [&](auto dim) {
    for_row_blocks(pool, graph, [&](RowBlock block) { spread_rows<dim>(graph, args, block); });
  });
}

void inverse_norms(Pool& pool, const Graph& graph, const float* x, int64_t dim, float* result) {
  for_row_blocks(pool, graph, [&](RowBlock block) { inverse_norm_rows(x, dim, block, result); });
}

void masked_forward(Pool& pool, const Graph& graph, const MaskedForward& args) {
  with_dim(args.dim, [&](auto dim) {
    for_row_blocks(pool, graph, [&](RowBlock block) { masked_forward_rows<dim>(graph, args, block); });
  });
}

void masked_backward(Pool& pool, const Graph& graph, const MaskedBackward& args) {
  std::vector<float> shift(graph.nodes());
  with_dim(args.forward.dim, [&](auto dim) {
    for (int view = 0; view < 2; ++view) {
      for_row_blocks(pool, graph, [&](RowBlock block) { shift_rows<dim>(args, view, block, shift.data()); });
      for_row_blocks(pool, graph, [&](RowBlock block) {
        std::vector<float> unit(args.forward.dim);
        masked_backward_rows<dim>(graph, args, view, shift.data(), block, unit.data());
      });
    }
  });
}

}  // namespace collimate::dccf
