// How much memory this process may still take, and giving some back.
#pragma once

#include <cstdint>
#include <span>

namespace collimate {

// The kernel's estimate for the machine (MemAvailable), or what the process's own cgroup leaves if that is less.
// Largest int64 where neither can be read.
int64_t available_memory_bytes();

// Gives the pages that lie wholly in `values`, memory of this process's own, back to the kernel; what was in them reads
// as zeros from then on.
void release_pages(std::span<float> values);

}  // namespace collimate
