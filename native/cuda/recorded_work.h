// A sequence of kernels that a device starts with one call, as a CUDA graph.
//
// 1. The first run starts the kernels one by one, which brings scratch memory and plans of products to their sizes; the
//    second records them; later ones start the graph.
// 2. A graph holds addresses: where the device's scratch memory has moved since, the next run records anew.
// 3. What cannot be recorded is run as it is, each time. Debug builds, which wait after each kernel, record nothing.
#pragma once

#include <cstdint>
#include <functional>

#include "cuda/device.h"

namespace collimate::cuda {

class RecordedWork {
 public:
  explicit RecordedWork(Device& device) : device_(device) {}
  ~RecordedWork() { forget(); }
  RecordedWork(const RecordedWork&) = delete;
  RecordedWork& operator=(const RecordedWork&) = delete;

  // `body` starts the same kernels with the same arguments each time, and does nothing else.
  void run(const std::function<void()>& body);

 private:
  enum class State { unknown, warm, recorded, unrecordable };
  bool record(const std::function<void()>& body);
  void forget();

  Device& device_;
  State state_ = State::unknown;
  void* graph_ = nullptr;            // cudaGraphExec_t
  uint64_t scratch_generation_ = 0;  // that the graph was recorded with
};

}  // namespace collimate::cuda
