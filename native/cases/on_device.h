// The op cases on a CUDA device: one more entry of backends(), on a card or with emulated kernels.
#pragma once

#include <set>
#include <string>

#include "cases/case.h"

namespace collimate::cases {

struct DeviceBackend {
  std::string name;
  bool tiny_only = false;  // emulated kernels are far too slow for the bench shapes
};
// Uploads the tensors when a case is loaded; a run then runs the op there and brings its results back. Ops without a
// kernel are not run.
Backend device_backend(const DeviceBackend& options);

std::set<std::string> ops_with_kernels();

}  // namespace collimate::cases
