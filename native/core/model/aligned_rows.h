// Token rows of item codes that begin where the alignment of stage 1 put the codes, instead of at random.
//
// 1. Row of code c of level l = projection of the image W e_(l,c) (input `aligned`, tensor `rows` [levels, codes, T]).
// 2. T = model width: the image itself, so that vectors of the same model's hidden states stay where they are.
//    Otherwise a fixed random rotation into, or onto, the model's width (orthonormal, drawn from the seed): it keeps
//    angles, and spreads an image over all coordinates as the table's own rows are. Principal components would keep
//    no angle better and put nearly all of an image into the first few coordinates.
// 3. Each level is scaled as a whole to the spread of the table's other rows: lengths within a level keep their ratio.
//    Codes whose image is zero keep the row that they have.
#pragma once

#include <cstdint>
#include <filesystem>

#include "core/model/parameters.h"
#include "core/pool.h"

namespace collimate {

struct AlignedRows {
  std::filesystem::path path;  // of the input `aligned`
  int64_t first_item_token = 0;
  uint64_t seed = 0;
};
// Embedding, and head where untied. JobFailure(bad_input) where levels x codes is not the number of item tokens, but
// for the unused ones that round the vocabulary up: their rows stay.
void initialise_aligned_rows(Pool& pool, Parameters& parameters, const AlignedRows& rows);

}  // namespace collimate
