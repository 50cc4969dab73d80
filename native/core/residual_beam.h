// Residual encoding with a beam: at every level each of the best partial sums of a row meets every code.
//
// 1. A partial sum z of l codes has the residual r = x - z, subtracted level by level in fp32, and the score
//    S(z) = sum of the levels' scores |e|^2 / 2 - r . e (each by CentroidTable's definition, in fp32; the sum in
//    double). S(z) is (|x - z|^2 - |x|^2) / 2. The empty sum scores 0.
// 2. A level keeps the `beam` least of all (partial sum, code), in the order of S, then the partial sum's own rank,
//    then the level's own score, then the code. The last level's first is the row's code. So a beam of one is the
//    greedy encoding, code for code.
// 3. |x - z - e|^2 = |x - z|^2 + |e|^2 - 2 x.e + 2 z.e: one matrix product gives x.e for all levels, tables of the
//    centroids' products with each other give z.e. Like the product in core/nearest_centroids.h they give scores up to
//    a bound on their rounding; what the bound cannot rule out is scored by the definition. So the codes are a function
//    of the values alone. Where tables would be larger than what they save, products of the residuals take their place.
#pragma once

#include <cstdint>

#include "core/residual_quantizer.h"

namespace collimate {

enum class BeamScores { automatic, tables, residuals };

// out.beam >= 1; `scores` is how scores are found, never which codes result.
void beam_encode(Pool& pool, const RowSource& rows, const ResidualCodebooks& books, const ResidualEncoding& out,
                 BeamScores scores = BeamScores::automatic);

}  // namespace collimate
