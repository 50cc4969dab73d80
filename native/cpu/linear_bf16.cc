// Linear layers with adapters on the bf16 unit.
//
// 1. Activations are packed once and serve the matrix and all its adapters.
// 2. A panel of the output takes the matrix's product and then the adapter's while it is in cache.
#include <algorithm>
#include <vector>

#include "core/ops.h"
#include "core/ops_bf16.h"

namespace collimate::ops {

namespace {

constexpr int64_t kItemRows = 512;  // of packed activations, in the second-level cache while the panels pass
constexpr int64_t kItemPanels = 8;

const Bf16Matrix& here(const PackedMatrix* matrix) { return static_cast<const Bf16Matrix&>(*matrix); }

int64_t pieces(int64_t size, int64_t piece) { return (size + piece - 1) / piece; }

void pack_rows(Pool& pool, const Bf16Rows::Source& source, Bf16Rows& to) {
  to.resize(source.rows, source.k);
  pool.for_each(to.blocks(), [&](int64_t block) { to.pack_block(source, block); });
}

// out[T, n] = rows B, all columns.
struct Product {
  int64_t rows = 0;
  const Bf16Rows* a = nullptr;
  int64_t first_k = 0;
  const Bf16Panels* b = nullptr;
  bool accumulate = false;
  float* c = nullptr;
  int64_t ldc = 0;
};
void multiply(Pool& pool, const Product& product) {
  const int64_t across = pieces(product.b->panels(), kItemPanels);
  pool.for_each(pieces(product.rows, kItemRows) * across, [&](int64_t item) {
    const int64_t row = item / across * kItemRows, panel = item % across * kItemPanels;
    gemm_bf16_tile({.a = product.a,
                    .first_block = row / Bf16Rows::kRows,
                    .rows = std::min(kItemRows, product.rows - row),
                    .first_k = product.first_k,
                    .b = product.b,
                    .first_panel = panel,
                    .panels = std::min(kItemPanels, product.b->panels() - panel),
                    .accumulate = product.accumulate,
                    .c = product.c + row * product.ldc + panel * Bf16Panels::kColumns,
                    .ldc = product.ldc});
  });
}

// A low-rank term of an output: its packed left factor, and where its columns begin (a multiple of 32).
struct Term {
  const Bf16Rows* left = nullptr;
  const Bf16Panels* right = nullptr;
  int64_t first_panel = 0;
};

// out[T, n] = a B + the terms, panel by panel.
void multiply_with_terms(Pool& pool, const Product& product, std::span<const Term> terms) {
  const int64_t across = pieces(product.b->panels(), kItemPanels);
  pool.for_each(pieces(product.rows, kItemRows) * across, [&](int64_t item) {
    const int64_t row = item / across * kItemRows, first = item % across * kItemPanels;
    for (int64_t panel = first; panel < std::min(first + kItemPanels, product.b->panels()); ++panel) {
      Bf16Tile tile{.a = product.a,
                    .first_block = row / Bf16Rows::kRows,
                    .rows = std::min(kItemRows, product.rows - row),
                    .b = product.b,
                    .first_panel = panel,
                    .panels = 1,
                    .c = product.c + row * product.ldc + panel * Bf16Panels::kColumns,
                    .ldc = product.ldc};
      gemm_bf16_tile(tile);
      for (const Term& term : terms) {
        tile.first_panel = panel - term.first_panel;
        if (tile.first_panel < 0 || tile.first_panel >= term.right->panels()) continue;
        tile.a = term.left;
        tile.b = term.right;
        tile.accumulate = true;
        gemm_bf16_tile(tile);
      }
    }
  });
}

void add_gradients(Pool& pool, const Bf16LinearBackward& args) {
  const int64_t in = here(args.weight).forward.k();
  linear_backward(pool, {.rows = args.rows,
                         .in = in,
                         .out = args.dweight_rows,
                         .x = args.x,
                         .x_stride = args.x_stride,
                         .dy = args.dy + args.dweight_first,
                         .dy_stride = args.dy_stride,
                         .dweight = args.dweight});
  const float* dxa = args.dxa;
  for (const Bf16Adapter& adapter : args.adapters) {
    const int64_t rank = here(adapter.a).forward.n();
    lora_gradient(pool, {.rows = args.rows,
                         .in = in,
                         .out = adapter.width,
                         .rank = rank,
                         .scale = adapter.scale,
                         .x = args.x,
                         .x_stride = args.x_stride,
                         .xa = adapter.xa,
                         .dy = args.dy + adapter.column,
                         .dy_stride = args.dy_stride,
                         .dxa = dxa,
                         .da = adapter.da,
                         .db = adapter.db});
    dxa += args.rows * rank;
  }
}

// The calling thread's packed operands, kept from call to call.
struct Scratch {
  Bf16Rows wide, part;
  std::vector<Bf16Rows> low;
};
Scratch& scratch_for(size_t adapters) {
  thread_local Scratch scratch;
  if (scratch.low.size() < adapters) scratch.low.resize(adapters);
  return scratch;
}

bool on_panel(int64_t column) { return column % Bf16Panels::kColumns == 0; }

}  // namespace

void Bf16Matrix::pack(Pool& pool, const Source& s) {
  forward.pack(pool, {s.values, /*transposed=*/true, s.in, s.out, s.in, s.factor});
  backward.pack(pool, {s.values, /*transposed=*/false, s.out, s.in, s.in, s.factor});
}

void Bf16Matrix::pack_again(Pool& pool, const Source& s, int64_t first_row) {
  forward.pack_again(pool, {s.values, /*transposed=*/true, s.in, s.out, s.in, s.factor}, 0, first_row);
  backward.pack_again(pool, {s.values, /*transposed=*/false, s.out, s.in, s.in, s.factor}, first_row, 0);
}

void bf16_linear_forward(Pool& pool, const Bf16LinearForward& args) {
  Scratch& scratch = scratch_for(args.adapters.size());
  pack_rows(pool, {args.x, args.rows, here(args.weight).forward.k(), args.x_stride}, scratch.wide);
  const auto low = [&](size_t i) { return &scratch.low[i]; };
  std::vector<Term> terms;
  for (size_t i = 0; i < args.adapters.size(); ++i) {
    const Bf16Adapter& adapter = args.adapters[i];
    const int64_t rank = here(adapter.a).forward.n();
    multiply(pool, {args.rows, &scratch.wide, 0, &here(adapter.a).forward, false, adapter.xa, rank});
    pack_rows(pool, {adapter.xa, args.rows, rank, rank}, *low(i));
    if (on_panel(adapter.column))
      terms.push_back({low(i), &here(adapter.b).forward, adapter.column / Bf16Panels::kColumns});
  }
  const Product product{args.rows, &scratch.wide, 0, &here(args.weight).forward, false, args.y, args.y_stride};
  multiply_with_terms(pool, product, terms);
  for (size_t i = 0; i < args.adapters.size(); ++i) {
    const Bf16Adapter& adapter = args.adapters[i];
    if (on_panel(adapter.column)) continue;
    multiply(pool, {args.rows, low(i), 0, &here(adapter.b).forward, true, args.y + adapter.column, args.y_stride});
  }
}

void bf16_linear_backward(Pool& pool, const Bf16LinearBackward& args) {
  Scratch& scratch = scratch_for(args.adapters.size());
  pack_rows(pool, {args.dy, args.rows, here(args.weight).backward.k(), args.dy_stride}, scratch.wide);
  std::vector<Term> terms;
  for (size_t i = 0; i < args.adapters.size(); ++i) {
    const Bf16Adapter& adapter = args.adapters[i];
    const int64_t rank = here(adapter.b).backward.n();
    float* dxa = args.dxa + static_cast<int64_t>(i) * args.rows * rank;
    const bool aligned = on_panel(adapter.column);
    if (!aligned) pack_rows(pool, {args.dy + adapter.column, args.rows, adapter.width, args.dy_stride}, scratch.part);
    multiply(pool, {.rows = args.rows,
                    .a = aligned ? &scratch.wide : &scratch.part,
                    .first_k = aligned ? adapter.column : 0,
                    .b = &here(adapter.b).backward,
                    .c = dxa,
                    .ldc = rank});
    pack_rows(pool, {dxa, args.rows, rank, rank}, scratch.low[i]);
    terms.push_back({&scratch.low[i], &here(adapter.a).backward, 0});
  }
  const Product product{args.rows, &scratch.wide, 0, &here(args.weight).backward, false, args.dx, args.dx_stride};
  multiply_with_terms(pool, product, terms);
  add_gradients(pool, args);
}

}  // namespace collimate::ops
