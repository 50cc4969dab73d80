// Bump allocation over a few chunks that are merged between steps.
#include "core/model/arena.h"

#include <algorithm>
#include <new>

#include "core/failure.h"

namespace collimate {

namespace {
constexpr int64_t kAlignFloats = 16;
constexpr int64_t kChunkFloats = int64_t{1} << 20;
int64_t round_up(int64_t n) { return (n + kAlignFloats - 1) / kAlignFloats * kAlignFloats; }
}  // namespace

Arena::Chunk Arena::make_chunk(int64_t elements) {
  Chunk chunk;
  try {
    chunk.memory.resize(static_cast<size_t>(elements));
  } catch (const std::bad_alloc&) {
    throw JobFailure(FailureCause::out_of_memory,
                     "activations need " + std::to_string(elements * 4) +
                         " more bytes than there are; use more lanes or shorter sequences");
  }
  chunk.size = elements;
  return chunk;
}

float* Arena::take(int64_t elements) {
  const int64_t wanted = round_up(elements);
  if (chunks_.empty() || chunks_.back().used + wanted > chunks_.back().size) {
    chunks_.push_back(make_chunk(std::max(wanted, kChunkFloats)));
  }
  Chunk& chunk = chunks_.back();
  float* taken = chunk.memory.data() + chunk.used;
  chunk.used += wanted;
  return taken;
}

void Arena::reset() {
  int64_t total = 0;
  for (const Chunk& chunk : chunks_) total += chunk.size;
  if (chunks_.size() > 1) {
    chunks_.clear();
    chunks_.push_back(make_chunk(total));
  } else if (!chunks_.empty()) {
    chunks_[0].used = 0;
  }
}

int64_t Arena::bytes() const {
  int64_t total = 0;
  for (const Chunk& chunk : chunks_) total += chunk.size * static_cast<int64_t>(sizeof(float));
  return total;
}

}  // namespace collimate
