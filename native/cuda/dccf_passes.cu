// DCCF's passes as the model asks for them: parameters are uploaded for a step, its gradient is downloaded.
#include <deque>
#include <map>
#include <vector>

#include "cuda/dccf.h"
#include "cuda/launch.h"
#include "cuda/ops.h"

namespace collimate::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void add_values(float* to, const float* a, const float* b, int64_t count) {
  const int64_t i = global_thread();
  if (i < count) to[i] = a[i] + b[i];
}

__global__ void add_scaled_values(float* to, const float* x, float factor, int64_t count) {
  const int64_t i = global_thread();
  if (i < count) to[i] += factor * x[i];
}

__global__ void add_summands(dccf::Passes::LayerSum a) {
  const int64_t i = global_thread();
  if (i >= a.count) return;
  a.next[i] = (((a.z[i] + a.r[i]) + a.hz[i]) + a.hr[i]) + a.e[i];
  a.final[i] += a.next[i];
}

class DevicePasses final : public dccf::Passes {
 public:
  DevicePasses(Device& device, const dccf::Graph& graph) : device_(device), graph_(device, graph), sum_(device, 1) {}

  float* allocate(int64_t count) override { return buffers_.emplace_back(device_, count).data(); }
  const float* resident(std::span<const float> host) override {
    float* there = of_length(resident_, host.size());
    device_.upload(there, host.data(), host.size_bytes());
    return there;
  }
  float* target(std::span<float> host) override {
    float* there = of_length(targets_, host.size());
    device_.zero(there, host.size_bytes());
    return there;
  }
  void collect(std::span<float> host) override { targets_.at(host.size()).download(host); }
  std::span<const float> on_host(const float* x, int64_t count) override {
    host_.resize(static_cast<size_t>(count));
    device_.download(host_.data(), x, host_.size() * sizeof(float));
    return host_;
  }

  void zero(float* x, int64_t count) override { device_.zero(x, static_cast<size_t>(count) * sizeof(float)); }
  void copy(float* to, const float* from, int64_t count) override {
    device_.copy(to, from, static_cast<size_t>(count) * sizeof(float));
  }
  void add(float* to, const float* a, const float* b, int64_t count) override {
    launch(device_, "add", threads(count), add_values, to, a, b, count);
  }
  void add_scaled(float* to, const float* x, float factor, int64_t count) override {
    launch(device_, "add_scaled", threads(count), add_scaled_values, to, x, factor, count);
  }
  double sum_squares(const float* x, int64_t count) override {
    cuda::sum_squares(device_, x, count, sum_.data());
    double sum = 0;
    sum_.download({&sum, 1});
    return sum;
  }
  void sum_layer(const LayerSum& args) override {
    launch(device_, "sum_layer", threads(args.count), add_summands, args);
  }

  void spread(const dccf::Spread& args) override { cuda::spread(device_, graph_, args); }
  void inverse_norms(const float* x, int64_t dim, float* result) override {
    cuda::inverse_norms(device_, graph_, x, dim, result);
  }
  void masked_forward(const dccf::MaskedForward& args) override { cuda::masked_forward(device_, graph_, args); }
  void masked_backward(const dccf::MaskedBackward& args) override { cuda::masked_backward(device_, graph_, args); }
  void intents_forward(const dccf::IntentsForward& args) override { cuda::intents_forward(device_, args); }
  void intents_backward(const dccf::IntentsBackward& args) override { cuda::intents_backward(device_, args); }
  dccf::RankLossValue rank_loss(const dccf::Batch& batch, const dccf::RankLoss& args) override {
    return cuda::rank_loss(device_, batch, args);
  }
  double contrast_loss(const dccf::ContrastLoss& args) override { return cuda::contrast_loss(device_, args); }

 private:
  using ByLength = std::map<size_t, DeviceArray<float>>;
  float* of_length(ByLength& arrays, size_t length) {
    const auto found = arrays.find(length);
    if (found != arrays.end()) return found->second.data();
    return arrays.emplace(length, DeviceArray<float>(device_, static_cast<int64_t>(length))).first->second.data();
  }
  static Launch threads(int64_t count) { return {blocks_for(count, kThreads), kThreads}; }

  Device& device_;
  DeviceGraph graph_;
  std::deque<DeviceArray<float>> buffers_;
  ByLength resident_, targets_;
  DeviceArray<double> sum_;
  std::vector<float> host_;
};

}  // namespace

std::unique_ptr<dccf::Passes> passes_on_device(Device& device, const dccf::Graph& graph) {
  return std::make_unique<DevicePasses>(device, graph);
}

}  // namespace collimate::cuda
