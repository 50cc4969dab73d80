// Finding a level's best partial sums: scores up to a bound, a threshold, and the definition among what is left.
#include "core/residual_beam.h"

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/gemm.h"
#include "core/nearest_centroids.h"
#include "core/row_ops.h"

namespace collimate {
namespace {

constexpr int64_t kTableBytesMax = int64_t{256} << 20;
constexpr int64_t kRowsPerTile = CentroidTable::kRowsPerTile;
constexpr int64_t kScoresPerTile = 1 << 22;  // of the residuals of a tile's partial sums
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Partial {
  double total = 0;  // S
  float own = 0;     // the last level's part of it
  int32_t parent = 0, code = 0;
};

bool comes_before(const Partial& a, const Partial& b) {
  if (a.total != b.total) return a.total < b.total;
  if (a.parent != b.parent) return a.parent < b.parent;
  if (a.own != b.own) return a.own < b.own;
  return a.code < b.code;
}

// The partial sums of one row.
class RowBeam {
 public:
  RowBeam(int64_t beam, int64_t levels, int64_t dim) : levels_(levels), dim_(dim) {
    for (State& state : states_) {
      state.residuals.resize(beam * dim);
      state.codes.resize(beam * levels);
      state.totals.resize(beam);
    }
  }

  void start(const float* row) {
    now_ = 0;
    count_ = 1;
    states_[0].totals[0] = 0;
    std::copy_n(row, dim_, states_[0].residuals.begin());
  }
  int64_t count() const { return count_; }
  double total(int64_t rank) const { return states_[now_].totals[rank]; }
  const float* residual(int64_t rank) const { return &states_[now_].residuals[rank * dim_]; }
  const int32_t* codes(int64_t rank) const { return &states_[now_].codes[rank * levels_]; }

  // `best` are the next partial sums, in order; `centroids` the level's.
  void extend(int64_t level, std::span<const Partial> best, const float* centroids) {
    const State& from = states_[now_];
    State& to = states_[1 - now_];
    for (size_t rank = 0; rank < best.size(); ++rank) {
      const Partial& partial = best[rank];
      to.totals[rank] = partial.total;
      std::copy_n(&from.codes[partial.parent * levels_], level, &to.codes[rank * levels_]);
      to.codes[rank * levels_ + level] = partial.code;
      float* residual = &to.residuals[rank * dim_];
      std::copy_n(&from.residuals[partial.parent * dim_], dim_, residual);
      subtract(residual, centroids + partial.code * dim_, dim_);
    }
    count_ = static_cast<int64_t>(best.size());
    now_ = 1 - now_;
  }

 private:
  struct State {
    std::vector<float> residuals;  // [beam, dim]
    std::vector<int32_t> codes;    // [beam, levels]
    std::vector<double> totals;    // [beam]
  };
  int64_t levels_, dim_;
  State states_[2];
  int now_ = 0;
  int64_t count_ = 0;
};

// Scores of a level's codes for each partial sum of a row, S included, and how far they may be off: a code's norm times
// `scale`, and `constant`.
struct LevelScores {
  std::vector<float> values;  // [partial sums, codes]
  float scale = 0, constant = 0;
};

// Keeps the `wanted` least values seen, ascending.
class Least {
 public:
  explicit Least(int64_t wanted) : values_(wanted, kInfinity) {}
  void clear() { std::fill(values_.begin(), values_.end(), kInfinity); }
  void add(float value) {
    if (!(value < values_.back())) return;
    size_t at = values_.size() - 1;
    for (; at > 0 && values_[at - 1] > value; --at) values_[at] = values_[at - 1];
    values_[at] = value;
  }
  float greatest() const { return values_.back(); }

 private:
  std::vector<float> values_;
};

// A level's codes are a part of a table's centroids.
struct Level {
  int64_t index = 0;
  const CentroidTable* table = nullptr;
  int64_t first = 0, codes = 0;  // of the table's centroids
  const float* norms() const { return table->norms() + first; }
};

// Picks a level's best for one row.
class LevelChoice {
 public:
  std::span<const Partial> choose(const Level& level, int64_t most, const RowBeam& beam, const LevelScores& scores) {
    const int64_t sums = beam.count(), wanted = std::min(most, sums * level.codes);
    const float* norms = level.norms();
    collect(norms, level.codes, sums, limit_of(norms, level.codes, sums, wanted, scores), scores);
    if (static_cast<int64_t>(found_.size()) > wanted) drop_the_hopeless(norms, wanted, scores);
    best_.clear();
    for (const Found& found : found_) {
      const float own = level.table->score(beam.residual(found.parent), level.first + found.code);
      best_.push_back({beam.total(found.parent) + static_cast<double>(own), own, found.parent, found.code});
    }
    std::partial_sort(best_.begin(), best_.begin() + wanted, best_.end(), comes_before);
    return std::span<const Partial>(best_).first(wanted);
  }

 private:
  struct Found {
    float score = 0;
    int32_t parent = 0, code = 0;
  };

  // At most the `wanted`-th least of what the scores are at most: that of the least ones of disjoint groups.
  float limit_of(const float* norms, int64_t codes, int64_t sums, int64_t wanted, const LevelScores& scores) {
    constexpr int64_t kLanes = 8;  // groups of a segment
    int64_t segment = (codes + kLanes - 1) / kLanes * kLanes;
    while (segment > kLanes && sums * (codes / segment) * kLanes < 4 * wanted)
      segment = (segment / 2 + kLanes - 1) / kLanes * kLanes;
    Least least(wanted);
    const __m256 scale = _mm256_set1_ps(scores.scale);
    for (int64_t sum = 0; sum < sums; ++sum) {
      const float* values = &scores.values[sum * codes];
      for (int64_t begin = 0; begin + kLanes <= codes; begin += segment) {
        __m256 lanes = _mm256_set1_ps(kInfinity);
        for (int64_t j = begin; j + kLanes <= std::min(codes, begin + segment); j += kLanes) {
          const __m256 error = _mm256_mul_ps(scale, _mm256_loadu_ps(norms + j));
          lanes = _mm256_min_ps(_mm256_add_ps(_mm256_loadu_ps(values + j), error), lanes);
        }
        alignas(32) float uppers[kLanes];
        _mm256_store_ps(uppers, lanes);
        for (const float upper : uppers) least.add(upper);
      }
      for (int64_t j = codes / kLanes * kLanes; j < codes; ++j) least.add(values[j] + scores.scale * norms[j]);
    }
    return least.greatest() + 2.0f * scores.constant;
  }

  void collect(const float* norms, int64_t codes, int64_t sums, float limit, const LevelScores& scores) {
    found_.clear();
    const __m256 scale = _mm256_set1_ps(scores.scale), limits = _mm256_set1_ps(limit);
    for (int64_t sum = 0; sum < sums; ++sum) {
      const float* values = &scores.values[sum * codes];
      const auto parent = static_cast<int32_t>(sum);
      int64_t j = 0;
      for (; j + 8 <= codes; j += 8) {
        const __m256 lower =
            _mm256_sub_ps(_mm256_loadu_ps(values + j), _mm256_mul_ps(scale, _mm256_loadu_ps(norms + j)));
        // Not greater: a score that is no number (an overflow) is never ruled out.
        auto hits = static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(lower, limits, _CMP_NGT_UQ)));
        for (; hits != 0; hits &= hits - 1) {
          const int64_t code = j + __builtin_ctz(hits);
          found_.push_back({values[code], parent, static_cast<int32_t>(code)});
        }
      }
      for (; j < codes; ++j)
        if (!(values[j] - scores.scale * norms[j] > limit))
          found_.push_back({values[j], parent, static_cast<int32_t>(j)});
    }
  }

  // The groups' least may have let more through than the found ones' own do.
  void drop_the_hopeless(const float* norms, int64_t wanted, const LevelScores& scores) {
    Least least(wanted);
    for (const Found& found : found_) least.add(found.score + scores.scale * norms[found.code]);
    const float limit = least.greatest() + 2.0f * scores.constant;
    std::erase_if(found_, [&](const Found& found) { return found.score - scores.scale * norms[found.code] > limit; });
  }

  std::vector<Found> found_;
  std::vector<Partial> best_;
};

// What all rows share.
class Books {
 public:
  Books(Pool& pool, const ResidualCodebooks& books, bool with_products) : books_(books) {
    if (with_products) {
      tables_.emplace_back(pool, books.centroids, books.dim);
      multiply_centroids(pool);
    } else {
      for (int64_t level = 0; level < books.levels; ++level) tables_.emplace_back(pool, books.level(level), books.dim);
    }
    for (int64_t level = 0; level < books.levels; ++level) {
      norms_before_.push_back(longest_sum_);
      const float* norms = this->level(level).norms();
      longest_sum_ += *std::max_element(norms, norms + books.codes);
    }
  }

  const ResidualCodebooks& shape() const { return books_; }
  bool has_products() const { return !products_.empty(); }
  Level level(int64_t index) const {
    if (has_products()) return {index, &tables_[0], index * books_.codes, books_.codes};
    return {index, &tables_[index], 0, books_.codes};
  }
  // Of code `code` of level `from` with the codes of a later level.
  const float* products(int64_t from, int32_t code, int64_t level) const {
    const int64_t later = (books_.levels - 1 - from) * books_.codes;
    return &products_[from][code * later + (level - from - 1) * books_.codes];
  }

  // How far a level's scores may be off. `product_norm` is that of the rows in the matrix product. Sums of fp32 terms,
  // ours and the definition's, stay below `reach` times a code's norm; a score goes through at most `dim + 3 levels` of
  // their roundings on each side.
  void bound(double row_norm, double product_norm, int64_t level, LevelScores& scores) const {
    constexpr double kSlack = 1.01, kUnderflow = 1e-32;
    const double rounding = 2.0 * static_cast<double>(books_.dim + 3 * books_.levels + 8) * 0x1p-24;
    const double reach = row_norm + norms_before_[level], longest = row_norm + longest_sum_;
    scores.scale = static_cast<float>(kSlack * (tables_[0].product_rounding() * product_norm + rounding * reach));
    scores.constant = static_cast<float>(kSlack * rounding * longest * longest + kUnderflow);
  }

 private:
  void multiply_centroids(Pool& pool) {
    const int64_t codes = books_.codes, dim = books_.dim;
    products_.resize(books_.levels);
    for (int64_t from = 0; from + 1 < books_.levels; ++from) {
      const int64_t later = (books_.levels - 1 - from) * codes;
      products_[from].resize(codes * later);
      gemm(pool, {.transpose_b = true,
                  .m = codes,
                  .n = later,
                  .k = dim,
                  .a = books_.level(from).data(),
                  .lda = dim,
                  .b = books_.level(from + 1).data(),
                  .ldb = dim,
                  .c = products_[from].data(),
                  .ldc = later});
    }
  }

  const ResidualCodebooks& books_;
  std::vector<CentroidTable> tables_;         // one of all levels' codes with products, else one a level
  std::vector<std::vector<float>> products_;  // of each level with all later ones: [codes, later codes]
  std::vector<double> norms_before_;          // of each level: the longest sum of codes of the levels before
  double longest_sum_ = 0;
};

double norm_of(const float* row, int64_t dim) { return std::sqrt(static_cast<double>(wide_dot(row, row, dim))); }

// One thread's encoder of tiles.
class TileBeam {
 public:
  TileBeam(const Books& books, const ResidualEncoding& out, FiniteRows& finite)
      : books_(books), out_(out), finite_(finite) {}

  int64_t rows_per_tile() const {
    if (books_.has_products()) return kRowsPerTile;
    const int64_t by_scores = kScoresPerTile / (out_.beam * shape().codes);
    return std::max<int64_t>(std::min(by_scores, kRowsPerTile / out_.beam), 1);
  }

  void encode(const RowSource& rows, int64_t first, int64_t count) {
    values_.resize(count * rows.dim);
    const float* values = rows.read(first, count, values_.data());
    if (!finite_.check(first, count, values)) return;
    books_.has_products() ? encode_by_tables(values, first, count) : encode_by_residuals(values, first, count);
  }

 private:
  const ResidualCodebooks& shape() const { return books_.shape(); }
  void make_beams(int64_t count) {
    while (static_cast<int64_t>(beams_.size()) < count) beams_.emplace_back(out_.beam, shape().levels, shape().dim);
  }

  // Row by row: a row's few residuals stay in the nearest cache.
  void encode_by_tables(const float* values, int64_t first, int64_t count) {
    const int64_t dim = shape().dim, codes = shape().codes;
    books_.level(0).table->products(values, count, scratch_);
    make_beams(1);
    RowBeam& beam = beams_[0];
    for (int64_t i = 0; i < count; ++i) {
      const float* row = values + i * dim;
      const double norm = norm_of(row, dim);
      beam.start(row);
      for (int64_t level = 0; level < shape().levels; ++level) {
        books_.bound(norm, norm, level, scores_);
        add_tables(beam, level, &scratch_.scores[(i * shape().levels + level) * codes]);
        extend(beam, books_.level(level));
      }
      store(beam, first + i);
    }
  }

  // Level by level: the residuals of all the tile's partial sums meet the codes in one product.
  void encode_by_residuals(const float* values, int64_t first, int64_t count) {
    const int64_t dim = shape().dim, codes = shape().codes;
    make_beams(count);
    for (int64_t i = 0; i < count; ++i) beams_[i].start(values + i * dim);
    for (int64_t level = 0; level < shape().levels; ++level) {
      residuals_.clear();
      for (int64_t i = 0; i < count; ++i)
        residuals_.insert(residuals_.end(), beams_[i].residual(0), beams_[i].residual(0) + beams_[i].count() * dim);
      books_.level(level).table->products(residuals_.data(), static_cast<int64_t>(residuals_.size()) / dim, scratch_);
      const float* products = scratch_.scores.data();
      for (int64_t i = 0; i < count; ++i) {
        RowBeam& beam = beams_[i];
        double longest = 0;
        for (int64_t sum = 0; sum < beam.count(); ++sum) longest = std::max(longest, norm_of(beam.residual(sum), dim));
        books_.bound(norm_of(values + i * dim, dim), longest, level, scores_);
        scores_.values.resize(beam.count() * codes);
        for (int64_t sum = 0; sum < beam.count(); ++sum, products += codes)
          for (int64_t j = 0; j < codes; ++j)
            scores_.values[sum * codes + j] = products[j] + static_cast<float>(beam.total(sum));
        extend(beam, books_.level(level));
      }
    }
    for (int64_t i = 0; i < count; ++i) store(beams_[i], first + i);
  }

  // scores[sum, j] = S(sum) + (|e_j|^2 / 2 - x . e_j) + sum over the sum's codes e' of e' . e_j
  void add_tables(const RowBeam& beam, int64_t level, const float* products) {
    const int64_t codes = shape().codes;
    scores_.values.resize(beam.count() * codes);
    for (int64_t sum = 0; sum < beam.count(); ++sum) {
      const auto total = static_cast<float>(beam.total(sum));
      float* to = &scores_.values[sum * codes];
      const int32_t* path = beam.codes(sum);
      if (level == 0) {
        for (int64_t j = 0; j < codes; ++j) to[j] = products[j] + total;
      } else if (level == 2) {
        const float *a = books_.products(0, path[0], level), *b = books_.products(1, path[1], level);
        for (int64_t j = 0; j < codes; ++j) to[j] = (products[j] + total) + (a[j] + b[j]);
      } else if (level == 3) {
        const float *a = books_.products(0, path[0], level), *b = books_.products(1, path[1], level),
                    *c = books_.products(2, path[2], level);
        for (int64_t j = 0; j < codes; ++j) to[j] = ((products[j] + total) + a[j]) + (b[j] + c[j]);
      } else {
        const float* a = books_.products(0, path[0], level);
        for (int64_t j = 0; j < codes; ++j) to[j] = (products[j] + total) + a[j];
        for (int64_t from = 1; from < level; ++from) {
          const float* more = books_.products(from, path[from], level);
          for (int64_t j = 0; j < codes; ++j) to[j] += more[j];
        }
      }
    }
  }

  void extend(RowBeam& beam, const Level& level) {
    const int64_t most = level.index + 1 == shape().levels ? 1 : out_.beam;
    beam.extend(level.index, choice_.choose(level, most, beam, scores_), shape().level(level.index).data());
  }

  void store(const RowBeam& beam, int64_t row) {
    if (!out_.codes.empty()) std::copy_n(beam.codes(0), shape().levels, &out_.codes[row * shape().levels]);
    if (!out_.squared_distance.empty())
      out_.squared_distance[row] = wide_dot(beam.residual(0), beam.residual(0), shape().dim);
  }

  const Books& books_;
  const ResidualEncoding& out_;
  FiniteRows& finite_;
  std::vector<float> values_, residuals_;
  CentroidTable::Scratch scratch_;
  std::vector<RowBeam> beams_;
  LevelScores scores_;
  LevelChoice choice_;
};

// Tables cost codes x codes products a pair of levels; residuals (beam - 1) x codes more a row and level.
bool tables_pay(const RowSource& rows, const ResidualCodebooks& books, int64_t beam) {
  const double pairs = 0.5 * static_cast<double>(books.levels) * static_cast<double>(books.levels - 1);
  const double codes = static_cast<double>(books.codes);
  const double saved =
      static_cast<double>(rows.rows) * static_cast<double>(beam - 1) * static_cast<double>(books.levels);
  return pairs * codes <= saved && pairs * codes * codes * sizeof(float) <= static_cast<double>(kTableBytesMax);
}

}  // namespace

void beam_encode(Pool& pool, const RowSource& rows, const ResidualCodebooks& books, const ResidualEncoding& out,
                 BeamScores scores) {
  check_books(books, rows.dim);
  const bool with_tables =
      scores == BeamScores::tables || (scores == BeamScores::automatic && tables_pay(rows, books, out.beam));
  const Books shared(pool, books, with_tables);
  FiniteRows finite(rows);
  pool.for_blocks(rows.rows, kRowsPerItem, [&](int64_t begin, int64_t end) {
    TileBeam tile(shared, out, finite);
    const int64_t step = tile.rows_per_tile();
    for (int64_t first = begin; first < end; first += step) tile.encode(rows, first, std::min(step, end - first));
  });
  finite.fail_if_bad("residual encode rows");
}

}  // namespace collimate
