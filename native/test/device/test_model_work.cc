// What bench_device times end to end does what the processor does, at sizes that emulated kernels can run.
#include <doctest/doctest.h>

#include <cmath>

#include "bench/device/model_work.h"
#include "cuda/ops_backend.h"

namespace collimate {

TEST_CASE("model work: steps and lists on a device are those of the processor") {
  Pool pool(2);
  const auto here = ops_on_processor(pool), there = cuda::ops_on_device(0);
  const DecoderConfig::Shape shape{.layers = 2, .dim = 32, .heads = 4, .kv_heads = 2, .ffn_dim = 48};
  for (const bool lora : {false, true}) {
    const bench::TrainingCase work{"tiny", shape, 60, lora, {9, 3, 7, 12}, 2, 2, 1, 2};
    const bench::TrainingRate got = bench::time_training(work, *there, pool, Precision::fp32),
                              expected = bench::time_training(work, *here, pool, Precision::fp32);
    CHECK(got.labels == 8);
    CHECK((std::isfinite(got.loss) && std::fabs(got.loss - expected.loss) < 1e-4));
    const bench::TrainingRate rounded = bench::time_training(work, *there, pool, Precision::bf16);
    CHECK((std::isfinite(rounded.loss) && std::fabs(rounded.loss - expected.loss) < 0.02));
  }
  const bench::BeamWork beam{"tiny", shape, 60, 11, 5, 20, 6, 3, 4};
  const float expected = bench::time_beam(beam, *here, pool, Precision::fp32).best_score;
  CHECK(std::fabs(bench::time_beam(beam, *there, pool, Precision::fp32).best_score - expected) < 1e-4f);
  CHECK(std::fabs(bench::time_beam(beam, *there, pool, Precision::bf16).best_score - expected) < 0.05f);
}

}  // namespace collimate
