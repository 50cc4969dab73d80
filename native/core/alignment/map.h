// The map W from sums of codes to text vectors: where its training starts, and how well it finds the right text.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/alignment/loss.h"
#include "core/residual_quantizer.h"
#include "core/row_source.h"

namespace collimate::alignment {

// Unit rows of a tensor, made as they are read; zero rows stay zero.
class UnitRows final : public RowSource {
 public:
  explicit UnitRows(const RowSource& from) : RowSource(from.rows, from.dim), from_(from) {}
  const float* read(int64_t first, int64_t count, float* scratch) const override;

 private:
  const RowSource& from_;
};

// Sums of codes and the unit text vectors of the items that have a text. Everything stays the caller's.
struct CodedTexts {
  const ResidualCodebooks& books;
  std::span<const int32_t> codes;  // [items, levels]
  const RowSource& text;           // [items, T], unit rows
  std::span<const int64_t> items;  // those with a text
};

// The map W [to.dim, from.dim] that minimises sum_i |W from_i - to_i|^2 + ridge |W|^2 over the items given, where ridge
// is a thousandth of the mean diagonal of sum z zᵀ: solved in double, so that training starts from the best linear
// image of the codebooks as they are, and what it adds is its own.
struct RowPairs {
  const RowSource& from;
  const RowSource& to;
  std::span<const int64_t> items;
};
std::vector<float> ridge_map(Pool& pool, const RowPairs& pairs);
// The same from the sums of codes to their texts.
std::vector<float> ridge_map(Pool& pool, const CodedTexts& texts);

// Sums of the codes of items: [items, D].
class DecodedRows final : public RowSource {
 public:
  DecodedRows(const ResidualCodebooks& books, std::span<const int32_t> codes)
      : RowSource(static_cast<int64_t>(codes.size()) / books.levels, books.dim), books_(books), codes_(codes) {}
  const float* read(int64_t first, int64_t count, float* scratch) const override;

 private:
  const ResidualCodebooks& books_;
  std::span<const int32_t> codes_;  // [items, levels]
};

// Rows under a linear map [D, from.dim], made as they are read.
class MappedRows final : public RowSource {
 public:
  MappedRows(const RowSource& from, std::span<const float> map)
      : RowSource(from.rows, static_cast<int64_t>(map.size()) / from.dim), from_(from), map_(map) {}
  const float* read(int64_t first, int64_t count, float* scratch) const override;

 private:
  const RowSource& from_;
  std::span<const float> map_;
};

// How many of the items find their own text first, or among the first ten, when all texts are ranked by their cosine
// with W z_i. At most kRetrievalItemsMax items, evenly spaced, ask; all texts answer. Ties go to the lower item.
constexpr int64_t kRetrievalItemsMax = 2048;
struct Retrieval {
  int64_t items = 0;  // that asked
  double recall_at_1 = 0, recall_at_10 = 0;
};
Retrieval retrieve(Pool& pool, const CodedTexts& texts, std::span<const float> map);

// Whether a loss curve had come to rest. The curve is cut into twenty windows of equal length; its fall is the first
// window's mean less the last's. Converged: it fell, and over the last five windows no mean is further from the last
// one than a twentieth of the fall. `step` is then the end of the first window from which on that holds, else 0.
struct Verdict {
  bool converged = false;
  int64_t step = 0;
  double first = 0, last = 0;  // means of the first and of the last window
};
Verdict judge_curve(std::span<const float> losses);

}  // namespace collimate::alignment
