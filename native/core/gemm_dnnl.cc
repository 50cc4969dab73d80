// oneDNN as the GEMM library: capped to the class's instruction set, one thread per call.
#ifdef COLLIMATE_USE_DNNL

#include <dlfcn.h>
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>

#include <string>

#include "core/failure.h"
#include "core/gemm_library.h"
#include "core/isa.h"
#include "core/sha256.h"

namespace collimate {
namespace {

// The cap must precede the library's first use, which freezes it.
void cap_isa_once() {
  static const bool capped = [] {
    const auto isa = selected_isa() == Isa::avx512 ? dnnl_cpu_isa_avx512_core : dnnl_cpu_isa_avx2;
    const dnnl_status_t status = dnnl_set_max_cpu_isa(isa);
    if (status != dnnl_success) {
      throw JobFailure(FailureCause::internal,
                       "oneDNN refused the instruction set " + std::string(isa_name(selected_isa())) + " (status " +
                           std::to_string(status) +
                           "); it was used before, or built without this control: rebuild with COLLIMATE_GEMM=builtin");
    }
    return true;
  }();
  (void)capped;
}

}  // namespace

void gemm_library_call(const GemmArgs& args) {
  thread_local const bool prepared = (gemm_library_prepare_thread(), true);
  (void)prepared;
  const dnnl_status_t status =
      dnnl_sgemm(args.transpose_a ? 'T' : 'N', args.transpose_b ? 'T' : 'N', args.m, args.n, args.k, args.alpha, args.a,
                 args.lda, args.b, args.ldb, args.beta, args.c, args.ldc);
  if (status == dnnl_success) return;
  const std::string shape = std::to_string(args.m) + " x " + std::to_string(args.n) + " x " + std::to_string(args.k);
  if (status == dnnl_out_of_memory) throw JobFailure(FailureCause::out_of_memory, "no memory for a product " + shape);
  throw JobFailure(FailureCause::internal, "oneDNN refused a product " + shape + " (status " + std::to_string(status) +
                                               "); the row strides are probably too small");
}

// OpenMP's thread count is a setting of each calling thread.
void gemm_library_prepare_thread() {
  cap_isa_once();
  omp_set_num_threads(1);
}

std::string gemm_library_identity() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&dnnl_sgemm), &info) == 0 || info.dli_fname == nullptr) {
    throw JobFailure(FailureCause::internal, "the file that dnnl_sgemm was loaded from cannot be named");
  }
  return "dnnl:" + sha256_file(info.dli_fname);
}

}  // namespace collimate

#endif  // COLLIMATE_USE_DNNL
