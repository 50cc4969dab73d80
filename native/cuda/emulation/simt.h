// Runs the threads of a CUDA block on one thread of a processor, as fibers: the engine below cuda_runtime.h here.
//
// 1. A fiber runs until it meets a barrier (block, warp) or ends; then the next one runs. A thread that has ended
//    counts as arrived, as on the card.
// 2. Every exchange within a warp is write, barrier, read, barrier; all 32 lanes (or those of a short last warp)
//    have to take part. A barrier that not all reach is found out and ends the program, which a card would answer by
//    hanging.
#pragma once

#include <cstddef>
#include <cstring>
#include <functional>

namespace collimate::simt {

struct Index {
  unsigned x = 1, y = 1, z = 1;
};
struct Grid {
  Index grid, block;
  size_t shared_bytes = 0;
};
struct Thread {
  Index index;
  int lane = 0, warp = 0;
};

// Calls body once for each thread of each block.
void run_grid(const Grid& grid, const std::function<void()>& body);

const Thread& thread();
Index thread_index();
Index block_index();
Index block_size();
Index grid_size();
void* dynamic_shared();

void block_barrier();
void warp_barrier();
// A place for 64 bytes of each lane of the calling thread's warp.
unsigned char* lane_slot(int lane);
int lanes_of_warp();

template <typename T, typename Source>
T exchange(T value, const Source& source) {
  static_assert(sizeof(T) <= 64);
  const int lane = thread().lane;
  std::memcpy(lane_slot(lane), &value, sizeof value);
  warp_barrier();
  std::memcpy(&value, lane_slot(source(lane)), sizeof value);
  warp_barrier();
  return value;
}
unsigned ballot(bool predicate);

// ---- recording, as by stream capture: of the calling thread ----
bool is_recording();
void record(std::function<void()> call);

}  // namespace collimate::simt
