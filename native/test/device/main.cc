// Runs the op cases on a CUDA device: as `cuda_tests` on a card, as `cuda_emulation_tests` with emulated kernels.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>

#include "cases/on_device.h"
#include "core/pool.h"
#include "cuda/device.h"

int main(int argc, char** argv) {
  using namespace collimate;
  prepare_compute_thread();
#ifdef COLLIMATE_CUDA_EMULATED
  // Real ones would be handed addresses of no card.
  setenv("COLLIMATE_CUBLASLT", "off", 0);
  setenv("COLLIMATE_NCCL", "off", 0);
  cases::set_backends({cases::device_backend({.name = "cuda, emulated", .tiny_only = true})});
#else
  if (cuda::device_count() == 0) {
    std::fprintf(stderr, "no CUDA device: nothing was tested\n");
    return 77;
  }
  cases::set_backends({cases::device_backend({.name = "cuda"})});
#endif
  return doctest::Context(argc, argv).run();
}
