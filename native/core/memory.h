// How much memory this process may still take.
#pragma once

#include <cstdint>

namespace collimate {

// The kernel's estimate for the machine (MemAvailable), or what the process's own cgroup leaves if that is less.
// Largest int64 where neither can be read.
int64_t available_memory_bytes();

}  // namespace collimate
