// The name of the machine's arithmetic: two machines of one class give the same bytes for the same job.
//
// 1. `cpu-<isa>[-<bf16 unit>]-<12 hex>`: the instruction set that computes, the unit of bf16 products where there is
//    one (amx, bf16), and a hash of what a start-up probe produced with them and of the GEMM library's file.
// 2. Of a process that uses a device: `cuda-<architecture>-<12 hex>`, the hash also over what the device makes of a
// probe.
// 3. COLLIMATE_ISA=avx2, or COLLIMATE_BF16=none, pins a machine to the lower class, so that a mixed fleet has one.
#pragma once

#include <string>

namespace collimate {

// Computed once a process, in about a tenth of a second.
const std::string& numerics_class();

}  // namespace collimate
