// The start-up probe: products of several shapes, exp, log and softmax over fixed inputs.
#include "core/numerics_class.h"

#include <exception>
#include <thread>
#include <vector>

#include "core/accelerator.h"
#include "core/gemm.h"
#include "core/gemm_bf16.h"
#include "core/isa.h"
#include "core/math.h"
#include "core/philox.h"
#include "core/pool.h"
#include "core/sha256.h"

namespace collimate {
namespace {

constexpr RandomStream kProbeStream{.seed = 20241218, .site = RandomSite::test, .stream = 0};

std::vector<float> probe_values(size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = random_normal(kProbeStream, i);
  return values;
}

void hash_floats(Sha256& hash, std::span<const float> values) { hash.update(std::as_bytes(values)); }

// A tall, a flat, a deep and a ragged product, each with and without transposes.
void probe_products(Sha256& hash, Pool& pool, std::span<const float> values) {
  constexpr int64_t kShapes[][3] = {{200, 16, 256}, {4, 300, 64}, {64, 64, 3000}, {67, 131, 97}, {256, 512, 64}};
  for (const auto& [m, n, k] : kShapes) {
    for (int flags = 0; flags < 4; ++flags) {
      std::vector<float> c(static_cast<size_t>(m * n), 0.25f);
      const bool transpose_a = (flags & 1) != 0;
      const bool transpose_b = (flags & 2) != 0;
      gemm(pool, {.transpose_a = transpose_a,
                  .transpose_b = transpose_b,
                  .m = m,
                  .n = n,
                  .k = k,
                  .a = values.data(),
                  .lda = transpose_a ? m : k,
                  .b = values.data() + 1000,
                  .ldb = transpose_b ? k : n,
                  .beta = flags == 0 ? 0.0f : 1.0f,
                  .c = c.data(),
                  .ldc = n});
      hash_floats(hash, c);
    }
  }
}

void probe_bf16_products(Sha256& hash, Pool& pool, std::span<const float> values) {
  if (bf16_unit() == Bf16Unit::none) return;
  constexpr int64_t kRows = 67, kColumns = 131, kDepth = 300;
  Bf16Panels panels;
  panels.pack(pool, {.values = values.data() + 1000, .k = kDepth, .n = kColumns, .stride = kColumns});
  std::vector<float> c(kRows * kColumns);
  gemm_bf16(pool, {.m = kRows, .a = values.data(), .lda = kDepth, .b = &panels, .c = c.data(), .ldc = kColumns});
  hash_floats(hash, c);
}

const char* bf16_part() {
  switch (bf16_unit()) {
    case Bf16Unit::amx:
      return "-amx";
    case Bf16Unit::avx512:
      return "-bf16";
    case Bf16Unit::none:
      return "";
  }
  return "";
}

void probe_functions(Sha256& hash, std::span<const float> values) {
  std::vector<float> out(4096);
  for (size_t i = 0; i < out.size(); ++i) out[i] = exp_f32(values[i] * 20.0f);
  hash_floats(hash, out);
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = softplus_f32(values[i]) * sigmoid_f32(values[i]) + log_f32(out[i] + 1.0f);
  hash_floats(hash, out);
  float sum = 0.0f;
  for (size_t i = 0; i < out.size(); ++i) sum += out[i] = exp_f32(values[i]);
  for (float& value : out) value /= sum;
  hash_floats(hash, out);
}

std::string probe() {
  Pool pool(2);
  Sha256 hash;
  hash.update(gemm_identity());
  const std::vector<float> values = probe_values(260000);
  probe_products(hash, pool, values);
  probe_bf16_products(hash, pool, values);
  probe_functions(hash, values);
  const std::string processor = std::string("cpu-") + isa_name(selected_isa()) + bf16_part();
  if (accelerator() == nullptr) return processor + "-" + hash.finish().substr(0, 12);
  hash.update(processor);
  hash.update(accelerator()->probe());
  return "cuda-" + accelerator()->architecture() + "-" + hash.finish().substr(0, 12);
}

}  // namespace

// On a thread of its own, so that the caller's floating-point mode stays as it is.
const std::string& numerics_class() {
  static const std::string name = [] {
    std::string result;
    std::exception_ptr error;
    std::thread([&] {
      try {
        result = probe();
      } catch (...) {
        error = std::current_exception();
      }
    }).join();
    if (error) std::rethrow_exception(error);
    return result;
  }();
  return name;
}

}  // namespace collimate
