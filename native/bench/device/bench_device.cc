// What a CUDA device does at the sizes that peers are timed at; one JSON line a measurement.
//
// Usage: bench_device [--only TEXT]
// 1. Times are medians of wall-clock runs that end with a wait for the device, after two runs that do not count.
// 2. `roof` is the larger of the two floors (flop / peak and bytes / bandwidth) / time; FLOORS.md has what is expected.
// 3. Models are timed end to end as `tune` and `rank` run them (model_work.h), in bf16; `--only "8B model"`, `"1B
//    model"` and `"scratch model"` choose. The 8B shape takes 32 GB of the host.
// 4. Rows for clustering repeat a block of 64 k random ones: a row costs the same wherever it lies.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "bench/device/model_work.h"
#include "bench/machine_peaks.h"
#include "core/philox.h"
#include "core/sequence_bounds.h"
#include "cuda/clustering.h"
#include "cuda/cublaslt.h"
#include "cuda/gemm.h"
#include "cuda/ops.h"
#include "cuda/ops_backend.h"

namespace collimate {
namespace {

using cuda::Device;
using cuda::DeviceArray;

std::vector<float> normal_values(int64_t count, uint64_t stream) {
  std::vector<float> values(static_cast<size_t>(count));
  // A million different numbers are enough to keep the hardware honest.
  const size_t period = std::min<size_t>(values.size(), 1000003);
  for (size_t i = 0; i < values.size(); ++i)
    values[i] =
        i < period ? random_normal({.seed = 17, .site = RandomSite::test, .stream = stream}, i) : values[i - period];
  return values;
}

double median_seconds(Device& device, const std::function<void()>& work) {
  std::vector<double> seconds;
  for (int run = 0; run < 7; ++run) {
    device.synchronize();
    const double start = bench::seconds_now();
    work();
    device.synchronize();
    if (run >= 2) seconds.push_back(bench::seconds_now() - start);
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

struct Peaks {
  double bf16_tflop_s = 0, fp32_tflop_s = 0, copy_gb_s = 0;
};

struct Work {
  double flop = 0, bytes = 0;
  bool fp32 = false;
};

void report(const std::string& name, double seconds, const Work& work, const Peaks& peaks) {
  const double peak = (work.fp32 ? peaks.fp32_tflop_s : peaks.bf16_tflop_s) * 1e12;
  const double floor = std::max(peak > 0 ? work.flop / peak : 0.0, work.bytes / (peaks.copy_gb_s * 1e9));
  std::printf("{\"work\":\"%s\",\"ms\":%.3f,\"tflop_s\":%.1f,\"gb_s\":%.0f,\"floor_ms\":%.3f,\"roof\":%.3f}\n",
              name.c_str(), seconds * 1e3, work.flop / seconds * 1e-12, work.bytes / seconds * 1e-9, floor * 1e3,
              floor / seconds);
  std::fflush(stdout);
}

double product_seconds(Device& device, int64_t size, bool bf16) {
  const std::vector<float> values = normal_values(size * size, 1);
  const DeviceArray<float> a(device, std::span<const float>(values));
  DeviceArray<float> c(device, size * size);
  DeviceArray<uint16_t> b(device, size * size);
  cuda::round_to_bf16(device, a.data(), b.size(), 1.0f, b.data());
  return median_seconds(device, [&] {
    if (bf16)
      cuda::gemm_bf16(device, {.transpose_b = true,
                               .m = size,
                               .n = size,
                               .k = size,
                               .a = b.data(),
                               .lda = size,
                               .b = b.data(),
                               .ldb = size,
                               .c = c.data(),
                               .ldc = size});
    else
      cuda::gemm_fp32(device, {.transpose_b = true,
                               .m = size,
                               .n = size,
                               .k = size,
                               .a = a.data(),
                               .lda = size,
                               .b = a.data(),
                               .ldb = size,
                               .c = c.data(),
                               .ldc = size});
  });
}

// Of an H100's data sheet; what products of ours reach is in their own lines. Bandwidth is measured.
Peaks measure(Device& device) {
  Peaks peaks{.bf16_tflop_s = 778, .fp32_tflop_s = 60};
  const int64_t bytes = int64_t{4} << 30;
  void* from = device.allocate(bytes);
  void* to = device.allocate(bytes);
  device.zero(from, bytes);
  peaks.copy_gb_s =
      2.0 * static_cast<double>(bytes) / median_seconds(device, [&] { device.copy(to, from, bytes); }) * 1e-9;
  device.release(from);
  device.release(to);
  return peaks;
}

// `rows` rows that repeat those of a block.
class RepeatedRows final : public RowSource {
 public:
  RepeatedRows(int64_t row_count, int64_t row_dim)
      : RowSource(row_count, row_dim), block_(normal_values(kBlock * row_dim, 2)) {}
  const float* read(int64_t first, int64_t count, float* scratch) const override {
    if (first / kBlock == (first + count - 1) / kBlock) return block_.data() + first % kBlock * dim;
    for (int64_t i = 0; i < count; ++i)
      std::memcpy(scratch + i * dim, block_.data() + (first + i) % kBlock * dim, static_cast<size_t>(dim) * 4);
    return scratch;
  }

 private:
  static constexpr int64_t kBlock = 65536;
  std::vector<float> block_;
};

void bench_clustering(Device& device, const char* what, int64_t count, int64_t dim, const Peaks& peaks) {
  constexpr int64_t kCodes = 256, kLevels = 4;
  const RepeatedRows rows(count, dim);
  cuda::ClusteredRows there(device, rows, kLevels);
  std::vector<float> books = normal_values(kLevels * kCodes * dim, 3);
  std::span<float> level(books.data(), static_cast<size_t>(kCodes * dim));
  const double row_bytes = 4.0 * static_cast<double>(count * dim);
  const double scores = 2.0 * static_cast<double>(count * dim * kCodes);
  report(std::string("k-means iteration, k 256, ") + what, median_seconds(device, [&] { there.lloyd_step({}, level); }),
         {scores, 2 * row_bytes}, peaks);
  const ResidualCodebooks all{kLevels, kCodes, dim, books};
  report(std::string("residual encode, 4 x 256, ") + what, median_seconds(device, [&] { there.encode(all, {}); }),
         {kLevels * scores, row_bytes}, peaks);
}

struct AttentionShape {
  const char* what;
  int64_t sequences, length, heads, kv_heads, dim;
  bool bf16;
};
void bench_attention(Device& device, const AttentionShape& shape, const Peaks& peaks) {
  const auto [what, sequences, length, heads, kv_heads, dim, bf16] = shape;
  const int64_t rows = sequences * length, width = (heads + 2 * kv_heads) * dim;
  std::vector<int64_t> offsets;
  for (int64_t row = 0; row <= rows; row += length) offsets.push_back(row);
  const SequenceBounds bounds(offsets);
  const DeviceArray<int32_t> first_there(device, bounds.first_row), end_there(device, bounds.end_row);
  const std::vector<float> values = normal_values(rows * width, 4);
  const DeviceArray<float> qkv(device, std::span<const float>(values));
  DeviceArray<float> out(device, rows * heads * dim), lse(device, rows * heads), dqkv(device, rows * width);
  const ops::AttentionForward forward{.heads = heads,
                                      .kv_heads = kv_heads,
                                      .head_dim = dim,
                                      .offsets = offsets,
                                      .first_row = first_there.data(),
                                      .end_row = end_there.data(),
                                      .scale = 0.1f,
                                      .q = qkv.data(),
                                      .k = qkv.data() + heads * dim,
                                      .v = qkv.data() + (heads + kv_heads) * dim,
                                      .q_stride = width,
                                      .k_stride = width,
                                      .v_stride = width,
                                      .out = out.data(),
                                      .log_sum_exp = lse.data(),
                                      .bf16_products = bf16};
  const double pairs = static_cast<double>(rows * heads) * 0.5 * static_cast<double>(length + 1);
  const double bytes = 4.0 * static_cast<double>(rows * (width + heads * dim));
  report(std::string("attention forward, ") + what,
         median_seconds(device, [&] { cuda::attention_forward(device, forward); }),
         {4.0 * pairs * static_cast<double>(dim), bytes, !bf16}, peaks);
  report(std::string("attention backward, ") + what,
         median_seconds(device,
                        [&] {
                          cuda::attention_backward(device, {.forward = forward,
                                                            .dout = out.data(),
                                                            .dq = dqkv.data(),
                                                            .dk = dqkv.data() + heads * dim,
                                                            .dv = dqkv.data() + (heads + kv_heads) * dim});
                        }),
         {10.0 * pairs * static_cast<double>(dim), 2 * bytes, !bf16}, peaks);
}

// A step of a group of users: 20 hypotheses each over a prompt of their user, and two steps.
void bench_decode_attention(Device& device, const AttentionShape& shape, const Peaks& peaks) {
  constexpr int64_t kBeams = 20, kSteps = 2;
  const auto [what, users, prompt, heads, kv_heads, dim, bf16] = shape;
  const int64_t kv_dim = kv_heads * dim, rows = users * kBeams;
  const auto floats = [&](int64_t count, uint64_t stream) {
    return DeviceArray<float>(device, std::span<const float>(normal_values(count, stream)));
  };
  const auto whole = [&](int64_t count, int32_t value) {
    return DeviceArray<int32_t>(device, std::vector<int32_t>(static_cast<size_t>(count), value));
  };
  const auto q = floats(rows * heads * dim, 5), prompt_kv = floats(users * 2 * prompt * kv_dim, 6),
             step_kv = floats(kSteps * 2 * rows * kv_dim, 7);
  const auto live = whole(users, kBeams), prompt_rows = whole(users, static_cast<int32_t>(prompt)),
             step_rows = whole(kSteps, kBeams), ancestors = whole(rows * kSteps, 3);
  DeviceArray<float> out(device, rows * heads * dim);
  const ops::GroupAttention args{.users = users,
                                 .rows = kBeams,
                                 .heads = heads,
                                 .kv_heads = kv_heads,
                                 .head_dim = dim,
                                 .scale = 0.1f,
                                 .q = q.data(),
                                 .q_stride = heads * dim,
                                 .live = live.data(),
                                 .prompt_rows = prompt_rows.data(),
                                 .prompt_k = prompt_kv.data(),
                                 .prompt_v = prompt_kv.data() + prompt * kv_dim,
                                 .prompt_stride = 2 * prompt * kv_dim,
                                 .prompt_max = prompt,
                                 .steps = kSteps,
                                 .step_k = step_kv.data(),
                                 .step_v = step_kv.data() + rows * kv_dim,
                                 .step_stride = 2 * rows * kv_dim,
                                 .step_rows = step_rows.data(),
                                 .ancestors = ancestors.data(),
                                 .ancestors_user_stride = kBeams * kSteps,
                                 .out = out.data()};
  report(std::string("attention of a decoding step, ") + what,
         median_seconds(device, [&] { cuda::decode_attention(device, args); }),
         {4.0 * static_cast<double>(rows * heads * (prompt + kSteps) * dim),
          4.0 * static_cast<double>(2 * users * prompt * kv_dim + 2 * rows * heads * dim), true},
         peaks);
}

constexpr DecoderConfig::Shape k8B{.layers = 32, .dim = 4096, .heads = 32, .kv_heads = 8, .ffn_dim = 14336};
constexpr DecoderConfig::Shape k1B{
    .layers = 16, .dim = 2048, .heads = 32, .kv_heads = 8, .ffn_dim = 8192, .tie_embeddings = true};

// Tokens a second; the floor is that of the products alone. Peers: gpu_peers.py, the same shapes.
void bench_training(const bench::TrainingCase& work, const Peaks& peaks, Precision precision = Precision::bf16) {
  Pool pool(16);
  const auto backend = cuda::ops_on_device(0);
  const bench::TrainingRate rate = bench::time_training(work, *backend, pool, precision);
  std::printf("{\"work\":\"%s\",\"tok_s\":%.0f,\"labels\":%lld,\"loss\":%.4f}\n", work.name.c_str(),
              static_cast<double>(work.tokens()) / rate.seconds, static_cast<long long>(rate.labels), rate.loss);
  report(work.name, rate.seconds, {rate.flop, 0}, peaks);
}

// Users a second; the floor is that of the prompts' products, which the hypotheses add to.
void bench_beam(const bench::BeamWork& work, const Peaks& peaks) {
  Pool pool(16);
  const auto backend = cuda::ops_on_device(0);
  const bench::BeamRate rate = bench::time_beam(work, *backend, pool, Precision::bf16);
  const DecoderConfig c = DecoderConfig::from_shape(work.shape, work.vocabulary);
  const auto users = static_cast<double>(work.users);
  const double rows = users * static_cast<double>(work.prompt + (work.levels - 1) * work.beams);
  const auto layer = static_cast<double>(c.dim * (c.qkv_dim() + c.q_dim()) + 3 * c.dim * c.ffn_dim);
  std::printf("{\"work\":\"%s\",\"users_s\":%.2f,\"best_score\":%.4f}\n", work.name.c_str(), users / rate.seconds,
              static_cast<double>(rate.best_score));
  report(work.name, rate.seconds, {2.0 * static_cast<double>(c.layers) * layer * rows, 0}, peaks);
}

}  // namespace
}  // namespace collimate

int main(int argc, char** argv) {
  using namespace collimate;
  const std::string only = argc == 3 && std::strcmp(argv[1], "--only") == 0 ? argv[2] : "";
  if (argc != 1 && only.empty()) {
    std::fprintf(stderr, "usage: bench_device [--only TEXT]\n");
    return 2;
  }
  if (cuda::device_count() == 0) {
    std::fprintf(stderr, "no CUDA device: nothing was measured\n");
    return 77;
  }
  Device device;
  const Peaks peaks = measure(device);
  std::printf("{\"device\":\"%s\",\"architecture\":\"%s\",\"products\":\"%s\",\"copy_gb_s\":%.0f}\n",
              device.name().c_str(), device.architecture().c_str(), device.cublaslt().description().c_str(),
              peaks.copy_gb_s);
  const auto wanted = [&](const char* name) { return std::string(name).find(only) != std::string::npos; };
  if (wanted("product")) {
    const double flop = 2.0 * 8192.0 * 8192.0 * 8192.0, bytes = 3.0 * 4 * 8192.0 * 8192.0;
    report("product bf16, 8192^3", product_seconds(device, 8192, true), {flop, bytes}, peaks);
    if (device.cublaslt().is_used()) {
      setenv("COLLIMATE_CUBLASLT", "off", 1);
      Device without;
      unsetenv("COLLIMATE_CUBLASLT");
      report("product bf16, 8192^3, own kernel", product_seconds(without, 8192, true), {flop, bytes}, peaks);
    }
    report("product fp32, 8192^3", product_seconds(device, 8192, false), {flop, bytes, true}, peaks);
  }
  if (wanted("clustering")) {
    bench_clustering(device, "4 M x 768", 4'000'000, 768, peaks);
    bench_clustering(device, "10 M x 64", 10'000'000, 64, peaks);
  }
  if (wanted("attention")) {
    for (const bool bf16 : {true, false}) {
      bench_attention(device, {bf16 ? "8B shape, 16 x 512, bf16" : "8B shape, 16 x 512", 16, 512, 32, 8, 128, bf16},
                      peaks);
      bench_attention(
          device, {bf16 ? "scratch shape, 1024 x 128, bf16" : "scratch shape, 1024 x 128", 1024, 128, 8, 8, 32, bf16},
          peaks);
    }
    bench_decode_attention(device, {"8B shape, 64 users, prompt 512", 64, 512, 32, 8, 128, false}, peaks);
    bench_decode_attention(device, {"scratch shape, 64 users, prompt 64", 64, 64, 8, 8, 32, false}, peaks);
  }
  if (wanted("scratch model")) {
    bench_training({"full training, scratch, 512 x 128", bench::kScratchShape, 2048, false,
                    std::vector<int64_t>(512, 128), 0, 1, 2, 5},
                   peaks);
    bench_beam({"beam 20, scratch, prompt 64", bench::kScratchShape, 2048, 64, 2048, 12101, 20}, peaks);
  }
  if (wanted("1B model")) bench_beam({"beam 20, 1B, prompt 512", k1B, 128256, 512, 128, 12101, 20}, peaks);
  if (wanted("8B model")) {
    const std::vector<int64_t> even(16, 512),
        uneven{512, 40, 360, 66, 240, 100, 180, 140, 512, 40, 360, 66, 240, 100, 180, 140};
    bench_training({"LoRA r16, 8B, 16 x 512", k8B, 128256, true, even, 0, 4, 1, 3}, peaks);
    bench_training({"LoRA r16, 8B, 16 x 512, fp8", k8B, 128256, true, even, 0, 4, 1, 3}, peaks, Precision::fp8);
    bench_training({"LoRA r16, 8B, answers only, uneven lengths", k8B, 128256, true, uneven, 5, 4, 1, 3}, peaks);
    bench_beam({"beam 20, 8B, prompt 512", k8B, 128256, 512, 64, 12101, 20}, peaks);
  }
  return 0;
}
