// What the jobs that make codes end with: items encoded, ids made unique, the file of form `codes`, and how good they
// are.
#pragma once

#include <cstdint>
#include <vector>

#include "core/job.h"
#include "core/jobs/held_out.h"
#include "core/residual_quantizer.h"
#include "core/unique_ids.h"

namespace collimate {

struct CodebookOutput {
  ResidualCodebooks books;
  int64_t beam = 1;
  const HeldOut* held_out = nullptr;  // null: nothing was held out
  PublishedIds published{};           // items that have one keep it
};

// Writes output `codes` and adds to the summary: `levels`, a list of {usage, perplexity, deadCodes, gini} of the
// nearest codes, and overall uniqueRateBeforeFit, largestBucket, gini, relativeError, heldOut. Returns the nearest
// codes [items, levels].
std::vector<int32_t> write_codes(JobContext& context, const RowSource& rows, const CodebookOutput& output,
                                 JobOutcome& outcome);

}  // namespace collimate
