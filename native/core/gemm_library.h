// The one call behind gemm(): a product on the calling thread, by oneDNN or by the built-in kernel.
#pragma once

#include <string>

#include "core/gemm.h"

namespace collimate {

// m, n, k > 0 and alpha != 0 are the caller's to ensure.
void gemm_library_call(const GemmArgs& args);
void gemm_library_prepare_thread();
std::string gemm_library_identity();

}  // namespace collimate
