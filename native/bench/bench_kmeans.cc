// k-means (k 256, 20 iterations) and residual encoding (4 levels of 256 codes) on standard normal rows; JSON lines.
//
// Usage: bench_kmeans [threads] [rows-scale]. Timings are the least and the median of three runs. k-means is timed with
// its initialisation and the final assignment. Not measured: real data, whose clusters are of unequal size and which
// converges early, and reading the rows from files.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <functional>
#include <vector>

#include "core/kmeans.h"
#include "core/philox.h"
#include "core/residual_quantizer.h"
#include "core/safetensors.h"

namespace collimate {
namespace {

struct Timing {
  double least = 0;
  double median = 0;
  double least_cpu = 0;  // of all threads: what a loaded machine disturbs least
};

double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

Timing timed(int repetitions, const std::function<void()>& body) {
  std::vector<double> seconds;
  double least_cpu = 1e30;
  for (int i = 0; i < repetitions; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const double cpu = cpu_seconds();
    body();
    least_cpu = std::min(least_cpu, cpu_seconds() - cpu);
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  return {seconds.front(), seconds[seconds.size() / 2], least_cpu};
}

std::vector<float> normal_rows(Pool& pool, int64_t rows, int64_t dim) {
  std::vector<float> values(rows * dim);
  pool.for_blocks(rows * dim, 65536, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) values[i] = random_normal({.seed = 1}, i);
  });
  return values;
}

void bench_encode(Pool& pool, const RowSource& rows, const ResidualCodebooks& books, int64_t beam) {
  std::vector<int32_t> codes(rows.rows * books.levels);
  std::vector<float> errors(rows.rows);
  const Timing time =
      timed(3, [&] { residual_encode(pool, rows, books, {.beam = beam, .codes = codes, .squared_distance = errors}); });
  const int64_t head = std::min<int64_t>(rows.rows, 10000);
  double error = 0;
  for (int64_t i = 0; i < head; ++i) error += errors[i];
  std::printf(
      "{\"bench\":\"rq_encode\",\"threads\":%d,\"n\":%ld,\"d\":%ld,\"levels\":4,\"k\":256,\"beam\":%ld,"
      "\"rows_s_max\":%.0f,\"rows_s_median\":%.0f,\"cpu_s_min\":%.3f,\"sq_error\":%.4f}\n",
      pool.threads(), rows.rows, rows.dim, beam, rows.rows / time.least, rows.rows / time.median, time.least_cpu,
      error / head);
  std::fflush(stdout);
}

// The same k-means over rows in a file, as `type`, and over residuals, which are made as they are read.
void bench_streamed(Pool& pool, const RowMatrix& rows, const std::vector<float>& values) {
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("collimate-bench-" + std::to_string(getpid()) + ".safetensors");
  SafetensorsWriter writer;
  writer.add_f32("items", {rows.rows, rows.dim}, values);
  writer.write(path);
  const TensorRows file(path, "items");
  const KMeansOptions options{.clusters = 256, .iterations = 5, .seed = 1, .init = KMeansInit::random};
  const std::vector<float> book(values.begin(), values.begin() + 3 * 256 * rows.dim);
  const ResidualCodebooks books{3, 256, rows.dim, book};
  std::vector<int32_t> codes(rows.rows * 3);
  residual_encode(pool, rows, books, {.codes = codes});
  const ResidualRows residuals(rows, books, {codes, 3});
  std::vector<float> kept(values.size());
  residuals.copy(0, rows.rows, kept.data());
  const RowMatrix kept_residuals(kept.data(), rows.rows, rows.dim);
  struct Source {
    const char* name;
    const RowSource& rows;
  };
  for (const Source& source :
       {Source{"memory", rows}, Source{"file", file}, Source{"residuals of 3 levels, kept", kept_residuals},
        Source{"residuals of 3 levels", residuals}}) {
    const Timing time = timed(3, [&] { kmeans(pool, source.rows, options); });
    std::printf(
        "{\"bench\":\"kmeans_rows\",\"threads\":%d,\"n\":%ld,\"d\":%ld,\"k\":256,\"iterations\":5,\"rows\":\"%s\","
        "\"seconds_min\":%.3f,\"seconds_median\":%.3f,\"cpu_s_min\":%.3f}\n",
        pool.threads(), rows.rows, rows.dim, source.name, time.least, time.median, time.least_cpu);
    std::fflush(stdout);
  }
  std::filesystem::remove(path);
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
        "\"seconds_min\":%.3f,\"seconds_median\":%.3f,\"cpu_s_min\":%.3f,\"objective\":%.6g}\n",
        pool.threads(), rows, dim, init == KMeansInit::random ? "random" : "plus_plus", time.least, time.median,
        time.least_cpu, objective);
    std::fflush(stdout);
  }
  const RowMatrix head{values.data(), std::min<int64_t>(rows, 20000), dim};
  const ResidualQuantizer trained =
      residual_quantize(pool, head, {.levels = 4, .codes = 256, .iterations = 10, .seed = 1});
  const ResidualCodebooks books{4, 256, dim, trained.centroids};
  for (const int64_t beam : {1, 5}) bench_encode(pool, matrix, books, beam);
  bench_streamed(pool, matrix, values);
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
