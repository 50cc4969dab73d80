// CUDA devices as accelerators of core/accelerator.h.
#pragma once

namespace collimate::cuda {

// To be called once by a program that links these kernels, before use_device().
void register_devices();

}  // namespace collimate::cuda
