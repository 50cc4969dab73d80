// State that every rank of a gang holds alike: told apart by its digest, and carried to ranks that lack it.
//
// 1. Ranks with equally many updates applied must hold equal bytes; anything else is JobFailure(nondeterminism).
// 2. The furthest rank is the source, of several the lowest. Ranks behind it, or without state, take all of its state.
// 3. A rank that is receiving has no state until it has all of it and its digest is the source's.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "collective/transport.h"
#include "core/failure.h"
#include "core/pool.h"

namespace collimate {

// The state in place. The sizes of the parts are equal on all ranks; the curve has a value a step.
struct ReplicatedState {
  int64_t& step;  // updates applied; -1: no state
  std::vector<float>& curve;
  std::vector<std::span<float>> parts;
};

// No rank of the gang has state: regrouping would not bring it back.
class StateLost : public JobFailure {
 public:
  StateLost() : JobFailure(FailureCause::peer_lost, "no rank holds the state; start from a checkpoint") {}
};

// SHA-256 over the SHA-256 of fixed blocks, which the pool's threads hash side by side.
std::string state_digest(Pool& pool, const ReplicatedState& state);

// Collective; `transport` is null for a gang of one. True when this rank took another's state. Throws StateLost, and
// JobFailure(peer_lost) when a peer goes: a rank that was receiving is then without state.
bool synchronise(Transport* transport, Pool& pool, const ReplicatedState& state);

}  // namespace collimate
