// A device as the one that this process's jobs use, for as long as this lives.
#pragma once

#include "core/accelerator.h"
#include "cuda/accelerator.h"

namespace collimate {

struct DeviceInUse {
  DeviceInUse() {
    cuda::register_devices();
    use_device("cuda:0");
  }
  ~DeviceInUse() { use_device("cpu"); }
};

}  // namespace collimate
