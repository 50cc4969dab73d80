#include "core/rqvae/loss.h"

#include <algorithm>

#include "core/ops.h"
#include "core/row_ops.h"
#include "core/tree_sum.h"

namespace collimate::rqvae {
namespace {

constexpr int64_t kItemsPerBlock = 64;

// One half: from [in] through a SwiGLU layer of width `hidden` to [out].
struct Half {
  int64_t in = 0, hidden = 0, out = 0;
  const float* first = nullptr;   // [2H, in]
  const float* second = nullptr;  // [out, H]
};

struct Halves {
  Half encoder, decoder;
};

Halves halves_of(const Shape& shape, std::span<const float> parameters) {
  const float* at = parameters.data();
  const Half encoder{shape.dim, shape.hidden, shape.latent, at, at + 2 * shape.hidden * shape.dim};
  at += shape.encoder_elements();
  return {encoder, {shape.latent, shape.hidden, shape.dim, at, at + 2 * shape.hidden * shape.latent}};
}

struct Activations {
  std::vector<float> gate_up, act, y;  // [B, 2H], [B, H], [B, out]
};

Activations half_forward(Pool& pool, const Half& half, const float* x, int64_t rows) {
  Activations made{std::vector<float>(rows * 2 * half.hidden), std::vector<float>(rows * half.hidden),
                   std::vector<float>(rows * half.out)};
  ops::linear_forward(pool, {.rows = rows,
                             .in = half.in,
                             .out = 2 * half.hidden,
                             .x = x,
                             .x_stride = half.in,
                             .weight = half.first,
                             .y = made.gate_up.data(),
                             .y_stride = 2 * half.hidden});
  ops::swiglu_forward(pool,
                      {.rows = rows, .ffn_dim = half.hidden, .gate_up = made.gate_up.data(), .act = made.act.data()});
  ops::linear_forward(pool, {.rows = rows,
                             .in = half.hidden,
                             .out = half.out,
                             .x = made.act.data(),
                             .x_stride = half.hidden,
                             .weight = half.second,
                             .y = made.y.data(),
                             .y_stride = half.out});
  return made;
}

struct HalfBackward {
  const float* x = nullptr;  // [B, in]
  const Activations* made = nullptr;
  const float* dy = nullptr;  // [B, out]
  float* dx = nullptr;        // [B, in] or null
  float* gradient = nullptr;  // of `first`, then of `second`; accumulates
};

void half_backward(Pool& pool, const Half& half, const HalfBackward& args, int64_t rows) {
  std::vector<float> dact(rows * half.hidden), dgate_up(rows * 2 * half.hidden);
  ops::linear_backward(pool, {.rows = rows,
                              .in = half.hidden,
                              .out = half.out,
                              .x = args.made->act.data(),
                              .x_stride = half.hidden,
                              .weight = half.second,
                              .dy = args.dy,
                              .dy_stride = half.out,
                              .dx = dact.data(),
                              .dx_stride = half.hidden,
                              .dweight = args.gradient + 2 * half.hidden * half.in});
  ops::swiglu_backward(pool, {.rows = rows,
                              .ffn_dim = half.hidden,
                              .gate_up = args.made->gate_up.data(),
                              .dact = dact.data(),
                              .dgate_up = dgate_up.data()});
  ops::linear_backward(pool, {.rows = rows,
                              .in = half.in,
                              .out = 2 * half.hidden,
                              .x = args.x,
                              .x_stride = half.in,
                              .weight = half.first,
                              .dy = dgate_up.data(),
                              .dy_stride = 2 * half.hidden,
                              .dx = args.dx,
                              .dx_stride = half.in,
                              .dweight = args.gradient});
}

struct Latents {
  Activations made;
  std::vector<float> z, inverse_length;  // [B, d], [B]
};

Latents encoder_forward(Pool& pool, const Half& encoder, std::span<const float> rows, int64_t items) {
  Latents latents{half_forward(pool, encoder, rows.data(), items), std::vector<float>(items * encoder.out),
                  std::vector<float>(items)};
  ops::unit_rows_forward(pool, {.rows = items,
                                .dim = encoder.out,
                                .x = latents.made.y.data(),
                                .y = latents.z.data(),
                                .inverse_length = latents.inverse_length.data()});
  return latents;
}

// mean |y - x|^2 / S; dy = its derivative.
double reconstruction(Pool& pool, std::span<const float> x, std::span<const float> y, double scale,
                      std::span<float> dy) {
  constexpr int64_t kElementsPerBlock = 16384;
  const int64_t size = static_cast<int64_t>(x.size());
  std::vector<double> terms((size + kElementsPerBlock - 1) / kElementsPerBlock);
  const float slope = static_cast<float>(2.0 * scale);
  pool.for_blocks(size, kElementsPerBlock, [&](int64_t begin, int64_t end) {
    terms[begin / kElementsPerBlock] = wide_squared_distance(&y[begin], &x[begin], end - begin);
    for (int64_t c = begin; c < end; ++c) dy[c] = slope * (y[c] - x[c]);
  });
  return scale * tree_sum(terms);
}

// What the levels leave: differences [levels, B, d] = r_l - e_l, and the sum of their squares.
double residuals(Pool& pool, const ResidualCodebooks& books, std::span<const float> z, std::span<const int32_t> codes,
                 std::span<float> differences) {
  const int64_t dim = books.dim, items = static_cast<int64_t>(z.size()) / dim;
  std::vector<double> terms((items + kItemsPerBlock - 1) / kItemsPerBlock);
  pool.for_blocks(items, kItemsPerBlock, [&](int64_t begin, int64_t end) {
    double sum = 0;
    for (int64_t i = begin; i < end; ++i) {
      const float* left = &z[i * dim];
      for (int64_t level = 0; level < books.levels; ++level) {
        const float* code = &books.centroids[(level * books.codes + codes[i * books.levels + level]) * dim];
        float* difference = &differences[(level * items + i) * dim];
        for (int64_t c = 0; c < dim; ++c) difference[c] = left[c] - code[c];
        sum += static_cast<double>(row_dot(difference, difference, dim));
        left = difference;
      }
    }
    terms[begin / kItemsPerBlock] = sum;
  });
  return tree_sum(terms);
}

}  // namespace

std::vector<float> encode(Pool& pool, const Shape& shape, std::span<const float> rows,
                          std::span<const float> parameters) {
  const int64_t items = static_cast<int64_t>(rows.size()) / shape.dim;
  return encoder_forward(pool, halves_of(shape, parameters).encoder, rows, items).z;
}

std::vector<float> decode(Pool& pool, const Shape& shape, std::span<const float> sums,
                          std::span<const float> parameters) {
  const int64_t items = static_cast<int64_t>(sums.size()) / shape.latent;
  return half_forward(pool, halves_of(shape, parameters).decoder, sums.data(), items).y;
}

Loss loss(Pool& pool, const Shape& shape, const Options& options, std::span<const float> rows,
          std::span<const float> parameters, std::span<float> gradient) {
  const int64_t dim = shape.latent, items = static_cast<int64_t>(rows.size()) / shape.dim, size = items * dim;
  const Halves halves = halves_of(shape, parameters);
  const Latents latents = encoder_forward(pool, halves.encoder, rows, items);
  const ResidualCodebooks books = codebooks(shape, parameters);
  std::vector<int32_t> codes;
  std::vector<float> seen = latents.z;  // by the decoder
  if (options.quantized) {
    codes.resize(items * shape.levels);
    residual_encode(pool, RowMatrix(latents.z.data(), items, dim), books, {.codes = codes});
    residual_decode(pool, codes, books, seen);
  }

  Loss result;
  const Activations decoded = half_forward(pool, halves.decoder, seen.data(), items);
  std::vector<float> dy(items * shape.dim), dz(size);
  const double share = 1.0 / (static_cast<double>(items) * options.mean_squared_norm);
  result.reconstruction = reconstruction(pool, rows, decoded.y, share, dy);
  float* network = gradient.data();
  half_backward(pool, halves.decoder,
                {.x = seen.data(),
                 .made = &decoded,
                 .dy = dy.data(),
                 .dx = dz.data(),
                 .gradient = network + shape.encoder_elements()},
                items);

  if (options.quantized) {
    const double each = 1.0 / static_cast<double>(items * shape.levels);
    std::vector<float> differences(shape.levels * size);
    result.distance = each * residuals(pool, books, latents.z, codes, differences);
    const float to_codes = static_cast<float>(-2.0 * each),
                to_rows = static_cast<float>(2.0 * options.commitment * each);
    pool.for_each(shape.levels, [&](int64_t level) {  // a level's codes in batch order
      float* to = &gradient[shape.network_elements() + level * shape.codes * dim];
      for (int64_t i = 0; i < items; ++i)
        row_add_scaled(to + codes[i * shape.levels + level] * dim, &differences[(level * items + i) * dim], to_codes,
                       dim);
    });
    for (int64_t level = 0; level < shape.levels; ++level)
      row_add_scaled(dz.data(), &differences[level * size], to_rows, size);
  }
  ops::unit_rows_backward(pool, {.rows = items,
                                 .dim = dim,
                                 .y = latents.z.data(),
                                 .inverse_length = latents.inverse_length.data(),
                                 .dy = dz.data(),
                                 .dx = dz.data()});
  half_backward(pool, halves.encoder, {.x = rows.data(), .made = &latents.made, .dy = dz.data(), .gradient = network},
                items);
  result.total = result.reconstruction + (1.0 + options.commitment) * result.distance;
  return result;
}

}  // namespace collimate::rqvae
