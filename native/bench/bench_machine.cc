// The machine's peaks (bench/machine_peaks.h). One JSON line per thread count.
// Usage: bench_machine [threads ...]   (default: 1 2)
#include <cstdio>
#include <cstdlib>
#include <string>

#include "bench/machine_peaks.h"

int main(int argc, char** argv) {
  using namespace collimate;
  std::vector<int> threads;
  for (int i = 1; i < argc; ++i) threads.push_back(std::max(1, std::atoi(argv[i])));
  if (threads.empty()) threads = {1, 2};
  for (const int count : threads) {
    const bench::MachinePeaks peaks = bench::measure_peaks(count);
    std::printf(
        "{\"work\":\"machine\",\"threads\":%d,\"isa\":\"%s\",\"fma_gflop_s\":%.1f,\"gemm_gflop_s\":%.1f,"
        "\"bf16_unit\":\"%s\",\"bf16_gemm_gflop_s\":%.1f,"
        "\"read_gb_s\":%.1f,\"checksum\":%g}\n",
        count, std::string(isa_name(selected_isa())).c_str(), peaks.fma_gflop_s, peaks.gemm_gflop_s,
        bf16_unit_name(bf16_unit()), peaks.bf16_gemm_gflop_s, peaks.read_gb_s, peaks.checksum);
  }
  return 0;
}
