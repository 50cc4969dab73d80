// Recording by stream capture.
#include <cuda_runtime.h>

#include "core/failure.h"
#include "cuda/launch.h"
#include "cuda/recorded_work.h"

namespace collimate::cuda {

void RecordedWork::forget() {
  if (graph_ == nullptr) return;
  device_.make_current();
  cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph_));
  graph_ = nullptr;
}

bool RecordedWork::record(const std::function<void()>& body) {
  device_.make_current();
  const auto stream = static_cast<cudaStream_t>(device_.stream());
  if (cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess) return false;
  bool is_whole = true;
  try {
    body();
  } catch (const JobFailure&) {
    is_whole = false;  // a call that may not be recorded; what is wrong beside that shows when the body is run
  }
  cudaGraph_t graph = nullptr;
  is_whole = cudaStreamEndCapture(stream, &graph) == cudaSuccess && is_whole && graph != nullptr;
  cudaGraphExec_t made = nullptr;
  if (is_whole) is_whole = cudaGraphInstantiateWithFlags(&made, graph, 0) == cudaSuccess;
  if (graph != nullptr) cudaGraphDestroy(graph);
  cudaGetLastError();  // a failed recording is no error of what comes next
  if (is_whole) graph_ = made;
  return is_whole;
}

void RecordedWork::run(const std::function<void()>& body) {
#ifndef NDEBUG
  state_ = State::unrecordable;
#endif
  if (state_ == State::recorded && scratch_generation_ != device_.scratch_generation()) {
    forget();
    state_ = State::warm;
  }
  if (state_ == State::warm) {
    scratch_generation_ = device_.scratch_generation();
    state_ = record(body) ? State::recorded : State::unrecordable;
  }
  if (state_ != State::recorded) {
    body();
    if (state_ == State::unknown) state_ = State::warm;
    return;
  }
  device_.make_current();
  const cudaError_t error =
      cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph_), static_cast<cudaStream_t>(device_.stream()));
  if (error != cudaSuccess) fail_cuda(static_cast<int>(error), "starting recorded work");
}

}  // namespace collimate::cuda
