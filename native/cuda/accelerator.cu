// One CUDA device behind the interface that core/ knows.
#include <algorithm>
#include <memory>
#include <vector>

#include "core/accelerator.h"
#include "core/philox.h"
#include "core/sha256.h"
#include "cuda/accelerator.h"
#include "cuda/clustering.h"
#include "cuda/cublaslt.h"
#include "cuda/dccf.h"
#include "cuda/gemm.h"
#include "cuda/nccl.h"
#include "cuda/nearest_codes.h"
#include "cuda/nvml.h"
#include "cuda/ops.h"
#include "cuda/ops_backend.h"

namespace collimate::cuda {
namespace {

class DeviceClusterer final : public Clusterer {
 public:
  DeviceClusterer(Device& device, Pool& pool, const RowSource& rows, int64_t levels)
      : Clusterer(rows, levels), pool_(pool), there_(device, rows, levels) {}

  LloydStep lloyd_step(const ResidualCodebooks& before, std::span<float> centroids) override {
    return there_.lloyd_step(before, centroids);
  }
  void assign(const ResidualCodebooks& before, std::span<const float> centroids) override {
    there_.assign(before, centroids, {});
    there_.download_codes(codes_, levels_);
  }
  void encode(const ResidualCodebooks& books, const ResidualEncoding& out) override {
    if (out.beam > 1) return residual_encode(pool_, rows_, books, out);
    there_.encode(books, out.squared_distance);
    if (!out.codes.empty()) there_.download_codes(out.codes, books.levels);
  }

 private:
  void codes_changed() override { there_.set_codes(codes_, levels_); }

  Pool& pool_;
  ClusteredRows there_;
};

class CudaAccelerator final : public Accelerator {
 public:
  explicit CudaAccelerator(int index) : index_(index), device_(index) {}
  std::unique_ptr<Transport> connect(std::unique_ptr<Transport> gang, const TcpGang& options) override {
    return connect_nccl(device_, nccl_, std::move(gang), options);
  }
  std::string name() const override { return device_.name(); }
  std::string architecture() const override { return device_.architecture(); }
  AcceleratorMemory memory() const override {
    const DeviceMemory memory = device_.memory();
    return {static_cast<int64_t>(memory.free_bytes), static_cast<int64_t>(memory.total_bytes)};
  }
  std::optional<double> utilisation() const override { return device_utilisation(device_.pci_bus_id()); }
  std::string products() const override { return device_.cublaslt().description(); }
  std::string probe() override;
  std::unique_ptr<Clusterer> cluster(Pool& pool, const RowSource& rows, int64_t levels) override {
    if (levels > kDeviceLevelsMax) return nullptr;
    return std::make_unique<DeviceClusterer>(device_, pool, rows, levels);
  }
  std::unique_ptr<OpsBackend> ops() override { return ops_on_device(index_); }
  std::unique_ptr<dccf::Passes> dccf_passes(const dccf::Graph& graph, int64_t dim) override {
    return dim <= kDeviceEmbeddingColumnsMax ? passes_on_device(device_, graph) : nullptr;
  }

 private:
  int index_;
  Device device_;
  const NcclLibrary nccl_;
};

// Products of both kinds and a softmax.
std::string CudaAccelerator::probe() {
  constexpr int64_t kRows = 67, kColumns = 131, kDepth = 97;
  std::vector<float> values(static_cast<size_t>(std::max(kRows, kColumns) * kDepth));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = random_normal({.seed = 20241218, .site = RandomSite::test, .stream = 1}, i);
  const DeviceArray<float> there(device_, std::span<const float>(values));
  DeviceArray<uint16_t> rounded(device_, there.size());
  round_to_bf16(device_, there.data(), there.size(), 1.0f, rounded.data());
  DeviceArray<float> product(device_, kRows * kColumns), sums(device_, kRows);
  std::vector<float> back(static_cast<size_t>(product.size())), rows(kRows);
  Sha256 hash;
  hash.update(device_.cublaslt().description());
  const auto add = [&] {
    log_sum_exp(device_, {.rows = kRows, .width = kColumns, .x = product.data(), .y = sums.data()});
    product.download(back);
    sums.download(rows);
    hash.update(std::as_bytes(std::span<const float>(back)));
    hash.update(std::as_bytes(std::span<const float>(rows)));
  };
  gemm_fp32(device_, {.transpose_b = true,
                      .m = kRows,
                      .n = kColumns,
                      .k = kDepth,
                      .a = there.data(),
                      .lda = kDepth,
                      .b = there.data(),
                      .ldb = kDepth,
                      .c = product.data(),
                      .ldc = kColumns});
  add();
  gemm_bf16(device_, {.transpose_b = true,
                      .m = kRows,
                      .n = kColumns,
                      .k = kDepth,
                      .a = rounded.data(),
                      .lda = kDepth,
                      .b = rounded.data(),
                      .ldb = kDepth,
                      .c = product.data(),
                      .ldc = kColumns});
  add();
  return hash.finish();
}

}  // namespace

void register_devices() {
  register_accelerators("cuda", [](int index) { return std::make_unique<CudaAccelerator>(index); });
}

}  // namespace collimate::cuda
