// Float buffers for one step, taken in order and given back all at once, so that steps reuse the same memory.
#pragma once

#include <cstdint>
#include <vector>

#include "core/large_buffer.h"

namespace collimate {

class Arena {
 public:
  // Uninitialised floats, 64-byte aligned; valid until reset().
  float* take(int64_t elements);
  // All buffers are given back. After the first step the arena is one chunk as large as a step needs.
  void reset();
  // What the arena holds, in use or not.
  int64_t bytes() const;

 private:
  struct Chunk {
    LargeBuffer<float> memory;
    int64_t size = 0, used = 0;
  };
  static Chunk make_chunk(int64_t elements);
  std::vector<Chunk> chunks_;
};

}  // namespace collimate
