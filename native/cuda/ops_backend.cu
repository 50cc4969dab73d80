// The ops on a device, behind the interface that a decoder knows.
#include "cuda/linear_bf16.h"
#include "cuda/ops.h"
#include "cuda/ops_backend.h"
#include "cuda/recorded_work.h"

namespace collimate::cuda {
namespace {

size_t size(int64_t bytes) { return static_cast<size_t>(bytes); }

struct Recorded final : OpsBackend::Recording {
  explicit Recorded(Device& device) : work(device) {}
  RecordedWork work;
};

class DeviceOps final : public OpsBackend {
 public:
  explicit DeviceOps(int index) : device_(index), squares_(device_, 1) {}

  bool is_host() const override { return false; }
  int64_t available_bytes() const override { return static_cast<int64_t>(device_.memory().free_bytes); }
  void* allocate(int64_t bytes) override { return device_.allocate(size(bytes)); }
  void release(void* memory, int64_t) override { device_.release(memory); }
  void upload(void* to, const void* from, int64_t bytes) override { device_.upload(to, from, size(bytes)); }
  void download(void* to, const void* from, int64_t bytes) override { device_.download(to, from, size(bytes)); }
  void copy(void* to, const void* from, int64_t bytes) override { device_.copy(to, from, size(bytes)); }
  void zero(void* memory, int64_t bytes) override { device_.zero(memory, size(bytes)); }
  void synchronize() override { device_.synchronize(); }

  void run_recorded(std::unique_ptr<Recording>& recording, const std::function<void()>& body) override {
    if (!recording) recording = std::make_unique<Recorded>(device_);
    static_cast<Recorded&>(*recording).work.run(body);
  }

  std::unique_ptr<ops::PackedMatrix> pack(const ops::PackedMatrix::Source& source) override {
    const int64_t elements = source.out * source.in;
    const DeviceArray<float> values(device_, elements);
    device_.upload(values.data(), source.values, size(elements * 4));
    ops::PackedMatrix::Source there = source;
    there.values = values.data();
    return std::make_unique<Bf16Matrix>(device_, there);
  }
  void pack_again(ops::PackedMatrix& matrix, const ops::PackedMatrix::Source& source, int64_t first_row) override {
    static_cast<Bf16Matrix&>(matrix).pack_again(device_, source, first_row);
  }

  void embedding_forward(const ops::EmbeddingForward& args) override { cuda::embedding_forward(device_, args); }
  void embedding_backward(const ops::EmbeddingBackward& args) override { cuda::embedding_backward(device_, args); }
  void rmsnorm_forward(const ops::RmsNormForward& args) override { cuda::rmsnorm_forward(device_, args); }
  void rmsnorm_backward(const ops::RmsNormBackward& args) override { cuda::rmsnorm_backward(device_, args); }
  void head_norm_forward(const ops::HeadNormForward& args) override { cuda::head_norm_forward(device_, args); }
  void head_norm_backward(const ops::HeadNormBackward& args) override { cuda::head_norm_backward(device_, args); }
  void unit_rows_forward(const ops::UnitRowsForward& args) override { cuda::unit_rows_forward(device_, args); }
  void unit_rows_backward(const ops::UnitRowsBackward& args) override { cuda::unit_rows_backward(device_, args); }
  void rope(const ops::Rope& args) override { cuda::rope(device_, args); }
  void attention_forward(const ops::AttentionForward& args) override { cuda::attention_forward(device_, args); }
  void attention_backward(const ops::AttentionBackward& args) override { cuda::attention_backward(device_, args); }
  void swiglu_forward(const ops::SwiGluForward& args) override { cuda::swiglu_forward(device_, args); }
  void swiglu_backward(const ops::SwiGluBackward& args) override { cuda::swiglu_backward(device_, args); }
  void linear_forward(const ops::LinearForward& args) override { cuda::linear_forward(device_, args); }
  void linear_backward(const ops::LinearBackward& args) override { cuda::linear_backward(device_, args); }
  void add_bias(const ops::Bias& args) override { cuda::add_bias(device_, args); }
  void bias_backward(const ops::BiasBackward& args) override { cuda::bias_backward(device_, args); }
  void lora_forward(const ops::LoraForward& args) override { cuda::lora_forward(device_, args); }
  void lora_backward(const ops::LoraBackward& args) override { cuda::lora_backward(device_, args); }
  void lora_gradient(const ops::LoraGradient& args) override { cuda::lora_gradient(device_, args); }
  void bf16_linear_forward(const ops::Bf16LinearForward& args) override { cuda::bf16_linear_forward(device_, args); }
  void bf16_linear_backward(const ops::Bf16LinearBackward& args) override { cuda::bf16_linear_backward(device_, args); }
  void cross_entropy(const ops::CrossEntropy& args) override { cuda::cross_entropy(device_, args); }
  void gather_rows(const ops::RowMove& args) override { cuda::gather_rows(device_, args); }
  void scatter_rows(const ops::RowMove& args) override { cuda::scatter_rows(device_, args); }
  void copy_rows(const ops::RowCopy& args) override { cuda::copy_rows(device_, args); }
  void add_rows(const ops::RowSum& args) override { cuda::add_rows(device_, args); }
  void dropout(const ops::Dropout& args) override { cuda::dropout(device_, args); }
  double sum_squares(const float* x, int64_t elements) override {
    double result = 0.0;
    cuda::sum_squares(device_, x, elements, squares_.data());
    device_.download(&result, squares_.data(), sizeof(result));
    return result;
  }
  void adamw(const ops::AdamW& args) override { cuda::adamw(device_, args); }
  void decode_attention(const ops::GroupAttention& args) override { cuda::decode_attention(device_, args); }
  void choose_columns(const ops::ColumnChoice& args) override { cuda::choose_columns(device_, args); }

 private:
  Device device_;
  DeviceArray<double> squares_;  // a sum of them
};

}  // namespace

std::unique_ptr<OpsBackend> ops_on_device(int index) { return std::make_unique<DeviceOps>(index); }

}  // namespace collimate::cuda
