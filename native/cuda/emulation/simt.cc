// Fibers with a switch of a dozen instructions, barriers by counting, and the runtime's memory calls.
#include "cuda/emulation/simt.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "cuda/emulation/cuda_runtime.h"

// void collimate_switch(void** save, void* next): callee-saved registers go to the old stack, and come from the new
// one.
asm(R"(
.text
.p2align 4
.globl collimate_switch
.hidden collimate_switch
.type collimate_switch, @function
collimate_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size collimate_switch, .-collimate_switch
)");
extern "C" void collimate_switch(void** save, void* next);

namespace collimate::simt {
namespace {

constexpr size_t kStackBytes = 128 << 10;
constexpr int kWarp = 32;

enum class State { ready, at_block_barrier, at_warp_barrier, done };

struct Fiber {
  Thread thread;
  State state = State::done;
  void* stack_pointer = nullptr;
  std::unique_ptr<unsigned char[]> stack;
};

struct Warp {
  alignas(64) unsigned char slots[kWarp][64];
  int threads = 0, arrived = 0, done = 0;
};

struct Engine {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  std::vector<unsigned char> shared;
  Grid grid;
  Index block;
  const std::function<void()>* body = nullptr;
  Fiber* current = nullptr;
  void* scheduler_stack = nullptr;
  int threads = 0, arrived = 0, done = 0;
};

Engine& engine() {
  static thread_local Engine instance;
  return instance;
}

void back_to_scheduler() {
  Engine& e = engine();
  collimate_switch(&e.current->stack_pointer, e.scheduler_stack);
}

[[noreturn]] void fiber_main() {
  Engine& e = engine();
  (*e.body)();
  e.current->state = State::done;
  ++e.done;
  ++e.warps[e.current->thread.warp].done;
  back_to_scheduler();
  std::abort();  // never resumed
}

void prepare(Fiber& fiber) {
  if (!fiber.stack) fiber.stack = std::make_unique<unsigned char[]>(kStackBytes);
  // Six registers and a return address; a function begins with the stack at 8 below a multiple of 16.
  auto top = reinterpret_cast<uintptr_t>(fiber.stack.get() + kStackBytes) & ~uintptr_t{15};
  auto* frame = reinterpret_cast<void**>(top) - 8;
  for (int i = 0; i < 6; ++i) frame[i] = nullptr;
  frame[6] = reinterpret_cast<void*>(&fiber_main);
  frame[7] = nullptr;
  fiber.stack_pointer = frame;
  fiber.state = State::ready;
}

// Frees what waits at a barrier that all living threads have reached.
bool open_barriers() {
  Engine& e = engine();
  bool opened = false;
  for (int w = 0; w < static_cast<int>(e.warps.size()); ++w) {
    Warp& warp = e.warps[w];
    if (warp.arrived == 0 || warp.arrived + warp.done < warp.threads) continue;
    warp.arrived = 0;
    for (int i = w * kWarp; i < w * kWarp + warp.threads; ++i)
      if (e.fibers[i].state == State::at_warp_barrier) e.fibers[i].state = State::ready;
    opened = true;
  }
  if (e.arrived > 0 && e.arrived + e.done == e.threads) {
    e.arrived = 0;
    for (int i = 0; i < e.threads; ++i)
      if (e.fibers[i].state == State::at_block_barrier) e.fibers[i].state = State::ready;
    opened = true;
  }
  return opened;
}

void run_block() {
  Engine& e = engine();
  e.arrived = e.done = 0;
  for (size_t w = 0; w < e.warps.size(); ++w) {
    Warp& warp = e.warps[w];
    warp.arrived = warp.done = 0;
    warp.threads = std::min(kWarp, e.threads - static_cast<int>(w) * kWarp);
  }
  for (int i = 0; i < e.threads; ++i) prepare(e.fibers[i]);
  while (e.done < e.threads) {
    bool ran = false;
    for (int i = 0; i < e.threads; ++i) {
      if (e.fibers[i].state != State::ready) continue;
      e.current = &e.fibers[i];
      collimate_switch(&e.scheduler_stack, e.current->stack_pointer);
      ran = true;
    }
    if (!open_barriers() && !ran) {
      std::fprintf(stderr, "emulated kernel: threads of a block wait at barriers that the others do not reach\n");
      std::abort();
    }
  }
}

}  // namespace

void run_grid(const Grid& grid, const std::function<void()>& body) {
  Engine& e = engine();
  e.grid = grid;
  e.body = &body;
  e.threads = static_cast<int>(grid.block.x * grid.block.y * grid.block.z);
  if (e.threads < 1 || e.threads > 1024) {
    std::fprintf(stderr, "emulated kernel: expected a block of 1 to 1024 threads, got %d\n", e.threads);
    std::abort();
  }
  if (static_cast<int>(e.fibers.size()) < e.threads) e.fibers.resize(e.threads);
  e.warps.resize((e.threads + kWarp - 1) / kWarp);
  for (int i = 0; i < e.threads; ++i) {
    const unsigned u = static_cast<unsigned>(i);
    e.fibers[i].thread = {.index = {u % grid.block.x, u / grid.block.x % grid.block.y, u / grid.block.x / grid.block.y},
                          .lane = i % kWarp,
                          .warp = i / kWarp};
  }
  for (unsigned z = 0; z < grid.grid.z; ++z)
    for (unsigned y = 0; y < grid.grid.y; ++y)
      for (unsigned x = 0; x < grid.grid.x; ++x) {
        e.block = {x, y, z};
        e.shared.assign(grid.shared_bytes + 128, 0xff);  // rubbish, as on the card
        run_block();
      }
}

const Thread& thread() { return engine().current->thread; }
Index thread_index() { return engine().current->thread.index; }
Index block_index() { return engine().block; }
Index block_size() { return engine().grid.block; }
Index grid_size() { return engine().grid.grid; }
void* dynamic_shared() {
  return reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(engine().shared.data()) + 127) & ~uintptr_t{127});
}

void block_barrier() {
  Engine& e = engine();
  ++e.arrived;
  e.current->state = State::at_block_barrier;
  back_to_scheduler();
}

void warp_barrier() {
  Engine& e = engine();
  ++e.warps[e.current->thread.warp].arrived;
  e.current->state = State::at_warp_barrier;
  back_to_scheduler();
}

unsigned char* lane_slot(int lane) { return engine().warps[engine().current->thread.warp].slots[lane]; }
int lanes_of_warp() { return engine().warps[engine().current->thread.warp].threads; }

unsigned ballot(bool predicate) {
  const int lane = thread().lane;
  lane_slot(lane)[0] = predicate;
  warp_barrier();
  unsigned bits = 0;
  for (int i = 0; i < lanes_of_warp(); ++i) bits |= static_cast<unsigned>(lane_slot(i)[0]) << i;
  warp_barrier();
  return bits;
}

}  // namespace collimate::simt

// What a recording holds; the calls run again in order.
struct EmulatedGraph {
  std::vector<std::function<void()>> calls{};
  bool is_spoilt = false;
};
namespace {
thread_local std::unique_ptr<EmulatedGraph> recording;
}
bool collimate::simt::is_recording() { return recording != nullptr; }
void collimate::simt::record(std::function<void()> call) { recording->calls.push_back(std::move(call)); }

constexpr int kDevices = 4;
cudaError_t cudaGetDeviceCount(int* count) {
  *count = kDevices;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int index) { return index >= 0 && index < kDevices ? cudaSuccess : cudaErrorInvalidDevice; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int index) {
  *properties = {};
  return cudaSetDevice(index);
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  *stream = nullptr;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
// What may not be recorded also spoils the recording.
cudaError_t unless_recording() {
  if (!recording) return cudaSuccess;
  recording->is_spoilt = true;
  return cudaErrorStreamCaptureUnsupported;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) { return unless_recording(); }
cudaError_t cudaStreamQuery(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaMalloc(void** memory, size_t bytes) {
  if (const cudaError_t error = unless_recording(); error != cudaSuccess) return error;
  *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (!*memory) return cudaErrorMemoryAllocation;
  std::memset(*memory, 0xff, bytes);
  return cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* id, int length, int index) {
  std::snprintf(id, static_cast<size_t>(length), "0000:%02x:00.0", static_cast<unsigned>(index));
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *free = *total = size_t{1} << 30;
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  const auto copy = [=] {
    if (bytes > 0) std::memcpy(to, from, bytes);
  };
  if (kind != cudaMemcpyDeviceToDevice) {
    if (const cudaError_t error = unless_recording(); error != cudaSuccess) return error;
  }
  if (recording)
    recording->calls.push_back(copy);
  else
    copy();
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  const auto set = [=] { std::memset(memory, value, bytes); };
  if (recording)
    recording->calls.push_back(set);
  else
    set();
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  if (recording) return cudaErrorStreamCaptureUnsupported;
  recording = std::make_unique<EmulatedGraph>();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  const auto ended = std::move(recording);
  *graph = nullptr;
  if (!ended || ended->is_spoilt) return cudaErrorStreamCaptureUnsupported;
  *graph = new EmulatedGraph(*ended);
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long) {
  *made = new EmulatedGraph(*graph);
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t) {
  for (const auto& call : graph->calls) call();
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) { return cudaGraphDestroy(graph); }
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : "cudaErrorInvalidDevice";
}
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory" : "invalid device";
}
