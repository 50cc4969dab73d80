#include "core/jobs/published_ids.h"

#include <string>
#include <vector>

#include "core/alignment/map.h"
#include "core/failure.h"
#include "core/jobs/codebook_output.h"
#include "core/safetensors.h"

namespace collimate {
namespace {

void check_ids(std::span<const int32_t> ids, const PublishedShape& shape, bool may_lack) {
  for (size_t first = 0; first < ids.size(); first += shape.levels) {
    bool lacks = may_lack, fits = true;
    for (const int32_t code : ids.subspan(first, shape.levels)) {
      lacks = lacks && code == -1;
      fits = fits && code >= 0 && code < shape.codes;
    }
    if (!lacks && !fits)
      fail_bad_input("input `published`: expected ids of codes from 0 to " + std::to_string(shape.codes - 1) +
                     (may_lack ? ", or -1 throughout" : "") + ", got another in row " +
                     std::to_string(first / shape.levels) + "; carry the ids over again");
  }
}

}  // namespace

JobOutcome extend_published_ids(JobContext& context, const RowSource& rows, const PublishedShape& shape) {
  const SafetensorsFile file = SafetensorsFile::open(context.input("published"));
  const std::span<const float> centroids = file.f32("centroids", {shape.levels, shape.codes, -1});
  const std::span<const int32_t> codes = file.i32("codes", {rows.rows, shape.levels});
  const std::span<const int32_t> retired = file.i32("retired", {-1, shape.levels});
  check_ids(codes, shape, /*may_lack=*/true);
  check_ids(retired, shape, /*may_lack=*/false);
  const ResidualCodebooks books{shape.levels, shape.codes, file.get("centroids").shape[2], centroids};
  std::vector<int64_t> stay;
  for (int64_t item = 0; item < rows.rows; ++item)
    if (codes[item * shape.levels] >= 0) stay.push_back(item);
  if (stay.empty())
    fail_bad_input("input `published`: expected at least one item that has an id already, got none; publish anew");
  std::vector<int32_t> known(codes.begin(), codes.end());
  for (int32_t& code : known) code = code < 0 ? 0 : code;  // rows that are not among the pairs
  const alignment::DecodedRows decoded(books, known);
  const std::vector<float> map = alignment::ridge_map(context.pool(), alignment::RowPairs{rows, decoded, stay});
  const alignment::MappedRows mapped(rows, map);

  context.host().on_step(1, 1, {{"kept_ids", static_cast<double>(stay.size())}});
  JobOutcome outcome{.step = 1};
  write_codes(context, mapped, {.books = books, .beam = shape.beam, .published = {.codes = codes, .retired = retired}},
              outcome);
  outcome.summary["published"] = {{"kept", stay.size()},
                                  {"added", rows.rows - static_cast<int64_t>(stay.size())},
                                  {"retired", static_cast<int64_t>(retired.size()) / shape.levels}};
  return outcome;
}

}  // namespace collimate
