// k-means (k 256, 20 iterations) and residual encoding (4 levels of 256 codes) on standard normal rows; JSON lines.
//
// Usage: bench_kmeans [threads] [rows-scale]. Timings are the least and the median of three runs. k-means is timed with
// its initialisation and the final assignment. Not measured: real data, whose clusters are of unequal size and which
// converges early, and reading the rows from files.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "core/kmeans.h"
#include "core/philox.h"
#include "core/residual_quantizer.h"

namespace collimate {
namespace {

struct Timing {
  double least = 0;
  double median = 0;
};

Timing timed(int repetitions, const std::function<void()>& body) {
  std::vector<double> seconds;
  for (int i = 0; i < repetitions; ++i) {
    const auto start = std::chrono::steady_clock::now();
    body();
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  return {seconds.front(), seconds[seconds.size() / 2]};
}

std::vector<float> normal_rows(Pool& pool, int64_t rows, int64_t dim) {
  std::vector<float> values(rows * dim);
  pool.for_blocks(rows * dim, 65536, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) values[i] = random_normal({.seed = 1}, i);
  });
  return values;
}

void bench_shape(Pool& pool, int64_t rows, int64_t dim) {
  const std::vector<float> values = normal_rows(pool, rows, dim);
  const RowMatrix matrix{values.data(), rows, dim};
  for (const KMeansInit init : {KMeansInit::random, KMeansInit::plus_plus}) {
    double objective = 0;
    const Timing time = timed(3, [&] {
      objective = kmeans(pool, matrix, {.clusters = 256, .iterations = 20, .seed = 1, .init = init}).final_objective;
    });
    std::printf(
        "{\"bench\":\"kmeans\",\"threads\":%d,\"n\":%ld,\"d\":%ld,\"k\":256,\"iterations\":20,\"init\":\"%s\","
        "\"seconds_min\":%.3f,\"seconds_median\":%.3f,\"objective\":%.6g}\n",
        pool.threads(), rows, dim, init == KMeansInit::random ? "random" : "plus_plus", time.least, time.median,
        objective);
    std::fflush(stdout);
  }
  const RowMatrix head{values.data(), std::min<int64_t>(rows, 20000), dim};
  const ResidualQuantizer trained =
      residual_quantize(pool, head, {.levels = 4, .codes = 256, .iterations = 10, .seed = 1});
  const ResidualCodebooks books{4, 256, dim, trained.centroids};
  std::vector<int32_t> codes(rows * 4);
  std::vector<float> errors(rows);
  const Timing time =
      timed(3, [&] { residual_encode(pool, matrix, books, {.codes = codes, .squared_distance = errors}); });
  double error = 0;
  for (int64_t i = 0; i < std::min<int64_t>(rows, 10000); ++i) error += errors[i];
  std::printf(
      "{\"bench\":\"rq_encode\",\"threads\":%d,\"n\":%ld,\"d\":%ld,\"levels\":4,\"k\":256,"
      "\"rows_s_max\":%.0f,\"rows_s_median\":%.0f,\"sq_error\":%.4f}\n",
      pool.threads(), rows, dim, rows / time.least, rows / time.median, error / std::min<int64_t>(rows, 10000));
  std::fflush(stdout);
}

}  // namespace
}  // namespace collimate

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::max(1, std::atoi(argv[1])) : 1;
  const double scale = argc > 2 ? std::atof(argv[2]) : 1.0;
  collimate::prepare_compute_thread();
  collimate::Pool pool(threads);
  collimate::bench_shape(pool, static_cast<int64_t>(200000 * scale), 64);
  collimate::bench_shape(pool, static_cast<int64_t>(50000 * scale), 768);
}
