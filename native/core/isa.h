// The instruction set that this process computes with: part of the numerics class, and the cap of the GEMM library.
//
// 1. Decided once, before the first product: the best that the processor has, or what COLLIMATE_ISA pins.
// 2. A processor below the floor (AVX2 and FMA), or a pin above the processor, is JobFailure(bad_input).
#pragma once

namespace collimate {

enum class Isa { avx2, avx512 };

const char* isa_name(Isa isa);  // "avx2", "avx512"
Isa selected_isa();

}  // namespace collimate
