// Processor check and the COLLIMATE_ISA pin.
#include "core/isa.h"

#include <cstdlib>
#include <string>

#include "core/failure.h"

namespace collimate {
namespace {

Isa best_isa() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    fail_bad_input(
        "this processor lacks AVX2 or FMA, the least that Collimate's native code needs; run the worker on an x86-64 "
        "machine of 2013 or later, and check that the hypervisor passes both features on");
  }
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return avx512 ? Isa::avx512 : Isa::avx2;
}

Isa decide() {
  const Isa best = best_isa();
  const char* pin = std::getenv("COLLIMATE_ISA");
  if (pin == nullptr || *pin == '\0') return best;
  const std::string name = pin;
  if (name == "avx2") return Isa::avx2;
  if (name == "avx512" && best == Isa::avx512) return Isa::avx512;
  fail_bad_input("COLLIMATE_ISA is \"" + name + "\"; expected \"avx2\"" +
                 (best == Isa::avx512 ? " or \"avx512\"" : " (this processor has no AVX-512)") +
                 ", or leave it unset for the best that the processor has");
}

}  // namespace

const char* isa_name(Isa isa) { return isa == Isa::avx512 ? "avx512" : "avx2"; }

Isa selected_isa() {
  static const Isa isa = decide();
  return isa;
}

}  // namespace collimate
