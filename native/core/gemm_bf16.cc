// Packing and tiling of bf16 products.
#include "core/gemm_bf16.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

#include "core/failure.h"
#include "core/gemm_bf16_kernels.h"
#include "core/isa.h"

namespace collimate {
namespace {

constexpr int64_t kItemBlocks = 32;  // 512 rows of A stay in the second-level cache while the panels pass
constexpr int64_t kItemPanels = 8;
constexpr int64_t kDepthStep = 1024;  // of k at a time: 64 KiB of a panel

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }
int64_t pieces(int64_t size, int64_t piece) { return (size + piece - 1) / piece; }

Bf16Unit best_unit() {
  if (selected_isa() != Isa::avx512 || !avx512_bf16_is_there()) return Bf16Unit::none;
  return amx_is_there() ? Bf16Unit::amx : Bf16Unit::avx512;
}

Bf16Unit decide() {
  const Bf16Unit best = best_unit();
  const char* pin = std::getenv("COLLIMATE_BF16");
  if (pin == nullptr || *pin == '\0') return best;
  for (const Bf16Unit unit : {Bf16Unit::none, Bf16Unit::avx512, Bf16Unit::amx}) {
    if (std::string(pin) == bf16_unit_name(unit) && unit <= best) return unit;
  }
  fail_bad_input("COLLIMATE_BF16 is \"" + std::string(pin) +
                 "\"; expected \"none\", \"avx512\" or \"amx\", and no more than this processor's \"" +
                 bf16_unit_name(best) + "\"; leave it unset for that");
}

void call_unit(const Bf16PanelCall& call) {
  switch (bf16_unit()) {
    case Bf16Unit::amx:
      return bf16_panel_amx(call);
    case Bf16Unit::avx512:
      return bf16_panel_avx512(call);
    case Bf16Unit::none:
      fail_bad_input(
          "expected a processor with AVX512-BF16 or AMX for bf16 products, this one (or COLLIMATE_ISA, COLLIMATE_BF16) "
          "has neither; compute in fp32");
  }
}

// Copies `rows` x `columns` between C and a scratch tile.
struct Corner {
  int64_t rows = 0, columns = 0;
};
void copy_corner(const Corner& corner, const float* from, int64_t from_stride, float* to, int64_t to_stride) {
  for (int64_t row = 0; row < corner.rows; ++row) {
    std::memcpy(to + row * to_stride, from + row * from_stride, static_cast<size_t>(corner.columns) * sizeof(float));
  }
}

// One panel whose columns or whose rows are not all wanted: by way of a scratch tile, block by block.
void partial_panel(Bf16PanelCall call, const Corner& corner) {
  alignas(64) float scratch[Bf16Rows::kRows * Bf16Panels::kColumns];
  alignas(64) float bias[Bf16Panels::kColumns] = {};
  if (call.bias) {  // the caller's ends with the columns that are wanted, the unit reads all of a panel's
    std::copy_n(call.bias, corner.columns, bias);
    call.bias = bias;
  }
  float* c = call.c;
  const int64_t ldc = call.ldc;
  call.c = scratch;
  call.ldc = Bf16Panels::kColumns;
  call.blocks = 1;
  for (int64_t row = 0; row < corner.rows; row += Bf16Rows::kRows, call.a += call.a_block) {
    const Corner part{std::min(Bf16Rows::kRows, corner.rows - row), corner.columns};
    if (call.accumulate) copy_corner(part, c + row * ldc, ldc, scratch, Bf16Panels::kColumns);
    call_unit(call);
    copy_corner(part, scratch, Bf16Panels::kColumns, c + row * ldc, ldc);
  }
}

}  // namespace

const char* bf16_unit_name(Bf16Unit unit) {
  return unit == Bf16Unit::amx ? "amx" : unit == Bf16Unit::avx512 ? "avx512" : "none";
}

Bf16Unit bf16_unit() {
  static const Bf16Unit unit = decide();
  return unit;
}

void Bf16Rows::resize(int64_t rows, int64_t k) {
  blocks_ = pieces(rows, kRows);
  block_size_ = kRows * round_up(k, kDepth);
  if (static_cast<int64_t>(values_.size()) < blocks_ * block_size_) values_.resize(blocks_ * block_size_);
}

void Bf16Rows::pack_block(const Source& source, int64_t block) {
  const int64_t first = block * kRows, count = std::min(kRows, source.rows - first);
  uint16_t* to = values_.data() + block * block_size_;
  if (count < kRows) std::fill_n(to, block_size_, uint16_t{0});
  for (int64_t row = 0; row < count; ++row) {
    bf16_round_row(source.values + (first + row) * source.stride, source.k, to + row * kDepth, kRows * kDepth);
  }
}

void Bf16Rows::pack(const Source& source) {
  resize(source.rows, source.k);
  for (int64_t block = 0; block < blocks_; ++block) pack_block(source, block);
}

void Bf16Panels::pack(Pool& pool, const Source& source) {
  k_ = source.k;
  n_ = source.n;
  k_padded_ = round_up(k_, Bf16Rows::kDepth);
  values_.assign(static_cast<size_t>(panels() * k_padded_ * kColumns), 0);
  pool.for_each(panels(), [&](int64_t index) { pack_panel(source, index, 0); });
}

void Bf16Panels::pack_again(Pool& pool, const Source& source, int64_t first_k, int64_t first_n) {
  const int64_t first = first_n / kColumns;
  pool.for_each(panels() - first, [&](int64_t index) { pack_panel(source, first + index, first_k / 2 * 2); });
}

// Writes k in [first_k, k) of one panel; first_k is even.
void Bf16Panels::pack_panel(const Source& source, int64_t index, int64_t first_k) {
  constexpr int64_t kPair = 2 * kColumns;
  uint16_t* panel = values_.data() + index * k_padded_ * kColumns;
  const int64_t column = index * kColumns, columns = std::min(kColumns, n_ - column), depth = k_ - first_k;
  thread_local std::vector<float> line;
  thread_local std::vector<uint16_t> rounded;
  const auto round = [&](const float* from, int64_t count) {
    line.resize(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) line[i] = source.factor * from[i];
    rounded.assign(static_cast<size_t>(round_up(count + 1, Bf16Rows::kDepth)), 0);
    bf16_round_row(line.data(), count, rounded.data(), Bf16Rows::kDepth);
  };
  if (source.transposed) {
    for (int64_t j = 0; j < columns; ++j) {
      round(source.values + (column + j) * source.stride + first_k, depth);
      uint16_t* to = panel + first_k / 2 * kPair + 2 * j;
      for (int64_t k = 0; k < depth; k += 2, to += kPair) std::memcpy(to, &rounded[k], 2 * sizeof(uint16_t));
    }
    return;
  }
  for (int64_t k = first_k; k < k_; ++k) {
    round(source.values + k * source.stride + column, columns);
    uint16_t* to = panel + k / 2 * kPair + k % 2;
    for (int64_t j = 0; j < columns; ++j) to[2 * j] = rounded[j];
  }
}

void gemm_bf16_tile(const Bf16Tile& tile) {
  const int64_t whole_blocks = tile.rows / Bf16Rows::kRows, whole_rows = whole_blocks * Bf16Rows::kRows;
  for (int64_t p = 0; p < tile.panels; ++p) {
    const int64_t first_column = (tile.first_panel + p) * Bf16Panels::kColumns;
    const int64_t columns = std::min(Bf16Panels::kColumns, tile.b->n() - first_column);
    for (int64_t k = 0; k < tile.b->k_padded(); k += kDepthStep) {
      Bf16PanelCall call{.a = tile.a->block(tile.first_block) + (tile.first_k + k) * Bf16Rows::kRows,
                         .a_block = tile.a->block_size(),
                         .blocks = whole_blocks,
                         .k = std::min(kDepthStep, tile.b->k_padded() - k),
                         .panel = tile.b->panel(tile.first_panel + p) + k * Bf16Panels::kColumns,
                         .bias = tile.bias && k == 0 ? tile.bias + p * Bf16Panels::kColumns : nullptr,
                         .accumulate = tile.accumulate || k > 0,
                         .c = tile.c + p * Bf16Panels::kColumns,
                         .ldc = tile.ldc};
      if (columns < Bf16Panels::kColumns) {
        partial_panel(call, {tile.rows, columns});
        continue;
      }
      if (whole_blocks > 0) call_unit(call);
      if (whole_rows == tile.rows) continue;
      call.a += whole_blocks * call.a_block;
      call.c += whole_rows * call.ldc;
      partial_panel(call, {tile.rows - whole_rows, columns});
    }
  }
}

void gemm_bf16(Pool& pool, const Bf16GemmArgs& args) {
  const Bf16Panels& b = *args.b;
  if (args.m <= 0 || b.n() <= 0) return;
  thread_local Bf16Rows packed;
  Bf16Rows& a = packed;  // the caller's, in every pool item
  a.resize(args.m, b.k());
  const Bf16Rows::Source source{args.a, args.m, b.k(), args.lda};
  pool.for_each(a.blocks(), [&](int64_t block) { a.pack_block(source, block); });
  const int64_t across = pieces(b.panels(), kItemPanels), down = pieces(a.blocks(), kItemBlocks);
  pool.for_each(down * across, [&](int64_t item) {
    const int64_t first_block = item / across * kItemBlocks, first_panel = item % across * kItemPanels;
    const int64_t row = first_block * Bf16Rows::kRows;
    gemm_bf16_tile({.a = &a,
                    .first_block = first_block,
                    .rows = std::min(kItemBlocks * Bf16Rows::kRows, args.m - row),
                    .b = &b,
                    .first_panel = first_panel,
                    .panels = std::min(kItemPanels, b.panels() - first_panel),
                    .accumulate = args.accumulate,
                    .c = args.c + row * args.ldc + first_panel * Bf16Panels::kColumns,
                    .ldc = args.ldc});
  });
}

}  // namespace collimate
