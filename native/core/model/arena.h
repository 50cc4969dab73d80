// Buffers of a backend for one pass, taken in order and given back all at once, so that passes reuse the same memory.
#pragma once

#include <cstdint>

#include "core/ops_backend.h"

namespace collimate {

class Arena {
 public:
  explicit Arena(OpsBackend& backend) : backend_(&backend) {}

  // All buffers are given back; from here on `elements` floats can be taken, each buffer counted as `rounded`.
  void reset(int64_t elements);
  // Uninitialised floats, 64-byte aligned; valid until reset().
  float* take(int64_t elements);
  // What a buffer of so many floats takes up.
  static int64_t rounded(int64_t elements);
  // What the arena holds, in use or not: that of the largest pass so far.
  int64_t bytes() const { return memory_.size() * static_cast<int64_t>(sizeof(float)); }

 private:
  OpsBackend* backend_;
  BackendArray<float> memory_;
  int64_t used_ = 0;
};

}  // namespace collimate
