// Clustering on the processor, over core/kmeans.h and core/residual_quantizer.h.
#include "core/clusterer.h"

#include <algorithm>

namespace collimate {
namespace {

class ProcessorClusterer final : public Clusterer {
 public:
  ProcessorClusterer(Pool& pool, const RowSource& rows, int64_t levels) : Clusterer(rows, levels), pool_(pool) {}

  LloydStep lloyd_step(const ResidualCodebooks& before, std::span<float> centroids) override {
    return collimate::lloyd_step(pool_, residuals(before), centroids);
  }
  void assign(const ResidualCodebooks& before, std::span<const float> centroids) override {
    std::vector<int32_t> assignment(rows_.rows);
    assign_rows(pool_, residuals(before), centroids, assignment, {});
    set_codes(before.levels, assignment);
  }
  void encode(const ResidualCodebooks& books, const ResidualEncoding& out) override {
    residual_encode(pool_, rows_, books, out);
  }

 private:
  ResidualRows residuals(const ResidualCodebooks& before) const { return {rows_, before, {codes_, levels_}}; }
  Pool& pool_;
};

}  // namespace

Clusterer::Clusterer(const RowSource& rows, int64_t levels)
    : rows_(rows), levels_(levels), codes_(static_cast<size_t>(rows.rows * levels)) {}

void Clusterer::set_codes(int64_t level, std::span<const int32_t> of_level) {
  for (int64_t i = 0; i < rows_.rows; ++i) codes_[i * levels_ + level] = of_level[i];
}

void Clusterer::resume(const ResidualCodebooks& books) {
  if (books.levels == 0) return;
  std::vector<int32_t> codes(rows_.rows * books.levels);
  encode(books, {.codes = codes});
  for (int64_t i = 0; i < rows_.rows; ++i) std::copy_n(&codes[i * books.levels], books.levels, &codes_[i * levels_]);
  codes_changed();
}

std::unique_ptr<Clusterer> cluster_on_processor(Pool& pool, const RowSource& rows, int64_t levels) {
  return std::make_unique<ProcessorClusterer>(pool, rows, levels);
}

}  // namespace collimate
