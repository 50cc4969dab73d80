// A device as the machine that a decoder's ops run on.
#pragma once

#include <memory>

#include "core/ops_backend.h"

namespace collimate::cuda {

// On a stream of its own, so that two of them may be used by two threads.
std::unique_ptr<OpsBackend> ops_on_device(int index);

}  // namespace collimate::cuda
