// Ids of an earlier run that stay while items come and go.
//
// 1. An item that has a published id keeps it, and the codebooks are the published ones: a tuned model goes on reading
//    the same codes.
// 2. Vectors made anew lie elsewhere, however little the data changed. So today's rows are carried into the published
//    space by the linear map that fits the items in both (ridge); items that came later are encoded there.
// 3. They take free ids only: neither those of items that stay nor those of items that are gone (`retired`).
#pragma once

#include <cstdint>

#include "core/job.h"
#include "core/row_source.h"

namespace collimate {

struct PublishedShape {
  int64_t levels = 0, codes = 0;
  int64_t beam = 1;
};

// The result of job `codebooks` from the input `published` (native/JOBS.md).
JobOutcome extend_published_ids(JobContext& context, const RowSource& rows, const PublishedShape& shape);

}  // namespace collimate
