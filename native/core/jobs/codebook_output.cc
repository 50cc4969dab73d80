#include "core/jobs/codebook_output.h"

#include <algorithm>

#include "core/math.h"
#include "core/safetensors.h"
#include "core/tree_sum.h"

namespace collimate {
namespace {

// How unevenly things are spread: 0 when all counts are equal, towards 1 when one has everything.
double gini(std::vector<int64_t> counts) {
  std::sort(counts.begin(), counts.end());
  double weighted = 0, total = 0;  // whole numbers far below 2^53: exact
  for (size_t i = 0; i < counts.size(); ++i) {
    weighted += static_cast<double>(i + 1) * static_cast<double>(counts[i]);
    total += static_cast<double>(counts[i]);
  }
  const double n = static_cast<double>(counts.size());
  return total > 0 ? 2.0 * weighted / (n * total) - (n + 1.0) / n : 0.0;
}

std::vector<int64_t> count_codes(std::span<const int32_t> codes, int64_t level, const ResidualCodebooks& books) {
  std::vector<int64_t> counts(books.codes, 0);
  for (size_t i = level; i < codes.size(); i += books.levels) ++counts[codes[i]];
  return counts;
}

// Share of codes in use, exp(entropy) of their frequencies, codes never used, and how unevenly they are used.
Json describe_level(const std::vector<int64_t>& counts, int64_t items) {
  std::vector<double> terms;
  int64_t dead = 0;
  for (const int64_t count : counts) {
    dead += count == 0 ? 1 : 0;
    const double share = static_cast<double>(count) / static_cast<double>(items);
    terms.push_back(count > 0 ? -share * log_f64(share) : 0.0);
  }
  const double codes = static_cast<double>(counts.size());
  return {{"usage", (codes - static_cast<double>(dead)) / codes},
          {"perplexity", exp_f64(tree_sum(terms))},
          {"deadCodes", dead},
          {"gini", gini(counts)}};
}

double error_of(Pool& pool, const RowSource& rows, std::span<const float> errors, const std::vector<int64_t>& items) {
  std::vector<float> chosen;
  chosen.reserve(items.size());
  for (const int64_t item : items) chosen.push_back(errors[item]);
  return relative_error(pool, SelectedRows(rows, items), chosen);
}

}  // namespace

std::vector<int32_t> write_codes(JobContext& context, const RowSource& rows, const CodebookOutput& output,
                                 JobOutcome& outcome) {
  const ResidualCodebooks& books = output.books;
  std::vector<int32_t> nearest(rows.rows * books.levels);
  std::vector<float> errors(rows.rows);
  residual_encode(context.pool(), rows, books, {.beam = output.beam, .codes = nearest, .squared_distance = errors});
  const std::span<const int32_t> kept = output.published.codes;
  for (size_t i = 0; i < kept.size(); ++i)
    if (kept[i] >= 0) nearest[i] = kept[i];
  const UniqueIds ids = fit_unique_ids(context.pool(), rows, books, nearest, output.published);

  const std::filesystem::path path = context.spec().output_dir / "codes.safetensors";
  SafetensorsWriter writer;
  writer.add_i32("codes", {rows.rows, books.levels}, ids.codes);
  writer.add_i32("nearest", {rows.rows, books.levels}, nearest);
  writer.add_f32("centroids", {books.levels, books.codes, rows.dim}, books.centroids);
  writer.write(path);
  outcome.outputs["codes"] = path;

  Json levels = Json::array();
  std::vector<int64_t> all_counts;
  for (int64_t level = 0; level < books.levels; ++level) {
    const std::vector<int64_t> counts = count_codes(nearest, level, books);
    levels.push_back(describe_level(counts, rows.rows));
    all_counts.insert(all_counts.end(), counts.begin(), counts.end());
  }
  outcome.summary["levels"] = levels;
  outcome.summary["uniqueRateBeforeFit"] = ids.unique_rate_before_fit;
  outcome.summary["largestBucket"] = ids.largest_bucket;
  outcome.summary["gini"] = gini(all_counts);
  outcome.summary["relativeError"] = relative_error(context.pool(), rows, errors);
  outcome.summary["heldOut"] = nullptr;
  if (output.held_out != nullptr && !output.held_out->held.empty()) {
    outcome.summary["heldOut"] = {
        {"items", output.held_out->held.size()},
        {"relativeError", error_of(context.pool(), rows, errors, output.held_out->held)},
        {"trainedRelativeError", error_of(context.pool(), rows, errors, output.held_out->trained)}};
  }
  return nearest;
}

}  // namespace collimate
