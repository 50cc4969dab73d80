// Every op of the case list (cases/case.h) at its bench shapes, against what the machine allows; one JSON line a case.
//
// Usage: bench_ops [--threads N] [--only TEXT]
//        bench_ops --inputs FILE   writes the tiny cases' inputs, for test/parity/make_op_fixtures.py
// 1. `roof` is the share of the roofline: (the larger of flop / peak and bytes / memory bandwidth) / least seconds. The
//    peaks, which the first line states, are measured just before. That of flop is that of multiply-adds from
//    registers, or that of a large product on the bf16 unit.
// 2. Runs follow each other on the same tensors: what fits in a cache is in it, so a memory-bound op may exceed 1.
// 3. Work is what the op needs at least (cases/case.h). Clustering counts every score, though most of its rounded
//    products are on the bf16 unit where there is one.
// Not measured: ops between others, whose operands another op has just written.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "bench/machine_peaks.h"
#include "cases/case.h"

namespace collimate {
namespace {

using cases::Case;
using cases::Role;
using cases::Tensors;

constexpr double kSecondsPerCase = 0.5;
constexpr int kRunsMin = 5, kRunsMax = 400;

// Sums and in-place results start over, or they would grow from run to run.
void reset(const Tensors& from, Tensors& to) {
  for (auto& [name, tensor] : to.all()) {
    if (tensor.role != Role::accumulated && tensor.role != Role::replaced) continue;
    const auto& original = from.all().at(name).f32;
    std::copy(original.begin(), original.end(), tensor.f32.begin());
  }
}

void bench_case(const Case& one, const cases::Backend& backend, Pool& pool, const bench::MachinePeaks& peaks,
                const bench::MachinePeaks& one_thread) {
  const Tensors original = one.make();
  Tensors tensors = original;
  const auto run = backend.load(one, pool, tensors);
  if (!run) return;
  std::vector<double> seconds;
  const double begin = bench::seconds_now();
  while (static_cast<int>(seconds.size()) < kRunsMax &&
         (static_cast<int>(seconds.size()) < kRunsMin || bench::seconds_now() - begin < kSecondsPerCase)) {
    reset(original, tensors);
    const double start = bench::seconds_now();
    run();
    seconds.push_back(bench::seconds_now() - start);
  }
  std::sort(seconds.begin(), seconds.end());
  const double least = seconds.front();
  const bench::MachinePeaks& peak = one.work.one_thread ? one_thread : peaks;
  const bool on_unit = one.work.bf16_products && peak.bf16_gemm_gflop_s > 0;
  const double flop_floor = one.work.flop / (on_unit ? peak.bf16_gemm_gflop_s : peak.fma_gflop_s) * 1e-9;
  const double bytes_floor = one.work.bytes / peak.read_gb_s * 1e-9;
  std::printf(
      "{\"work\":\"%s\",\"op\":\"%s\",\"backend\":\"%s\",\"threads\":%d,\"us_min\":%.2f,\"us_median\":%.2f,"
      "\"gflop_s\":%.2f,\"gb_s\":%.2f,\"bound\":\"%s\",\"roof\":%.3f}\n",
      one.name.c_str(), one.op.c_str(), backend.name.c_str(), one.work.one_thread ? 1 : pool.threads(), least * 1e6,
      seconds[seconds.size() / 2] * 1e6, one.work.flop / least * 1e-9, one.work.bytes / least * 1e-9,
      flop_floor > bytes_floor ? (on_unit ? "bf16 product" : "multiply-adds") : "memory",
      std::max(flop_floor, bytes_floor) / least);
  std::fflush(stdout);
}

}  // namespace
}  // namespace collimate

int main(int argc, char** argv) {
  using namespace collimate;
  int threads = 1;
  std::string only;
  for (int i = 1; i < argc; i += 2) {
    const std::string flag = argv[i], value = i + 1 < argc ? argv[i + 1] : "";
    if (flag == "--threads") {
      threads = std::max(1, std::atoi(value.c_str()));
    } else if (flag == "--only") {
      only = value;
    } else if (flag == "--inputs" && !value.empty()) {
      cases::write_tiny_inputs(value);
      return 0;
    } else {
      std::fprintf(stderr, "unknown argument %s; usage: bench_ops [--threads N] [--only TEXT] | --inputs FILE\n",
                   flag.c_str());
      return 2;
    }
  }
  prepare_compute_thread();
  const bench::MachinePeaks peaks = bench::measure_peaks(threads);
  const bench::MachinePeaks one_thread = threads == 1 ? peaks : bench::measure_peaks(1);
  std::printf(
      "{\"machine\":\"%s\",\"threads\":%d,\"fma_gflop_s\":%.1f,\"bf16_gemm_gflop_s\":%.1f,\"read_gb_s\":%.1f}\n",
      std::string(isa_name(selected_isa())).c_str(), threads, peaks.fma_gflop_s, peaks.bf16_gemm_gflop_s,
      peaks.read_gb_s);
  Pool pool(threads);
  for (const cases::Backend& backend : cases::backends())
    for (const Case& one : cases::all_cases())
      if (one.scale == cases::Scale::bench && one.name.find(only) != std::string::npos)
        bench_case(one, backend, pool, peaks, one_thread);
  return 0;
}
