// The ops on the processor: their arguments lie where they are read.
#include "core/ops_backend.h"

#include <cstring>

#include "core/large_buffer.h"
#include "core/memory.h"

namespace collimate {
namespace {

constexpr int64_t kZeroedBytes = int64_t{1} << 18;  // by one thread at a time

class ProcessorOps final : public OpsBackend {
 public:
  explicit ProcessorOps(Pool& pool) : pool_(pool) {}

  bool is_host() const override { return true; }
  int64_t available_bytes() const override { return available_memory_bytes(); }
  void* allocate(int64_t bytes) override { return LargeAllocator<char>().allocate(static_cast<size_t>(bytes)); }
  void release(void* memory, int64_t bytes) override {
    LargeAllocator<char>().deallocate(static_cast<char*>(memory), static_cast<size_t>(bytes));
  }
  void upload(void* to, const void* from, int64_t bytes) override { std::memcpy(to, from, static_cast<size_t>(bytes)); }
  void download(void* to, const void* from, int64_t bytes) override {
    std::memcpy(to, from, static_cast<size_t>(bytes));
  }
  void copy(void* to, const void* from, int64_t bytes) override { std::memcpy(to, from, static_cast<size_t>(bytes)); }
  void zero(void* memory, int64_t bytes) override {
    pool_.for_blocks(bytes, kZeroedBytes, [&](int64_t begin, int64_t end) {
      std::memset(static_cast<char*>(memory) + begin, 0, static_cast<size_t>(end - begin));
    });
  }
  void synchronize() override {}

  void run_recorded(std::unique_ptr<Recording>&, const std::function<void()>& body) override { body(); }

  std::unique_ptr<ops::PackedMatrix> pack(const ops::PackedMatrix::Source& source) override {
    if (bf16_unit() == Bf16Unit::none || source.fp8) return nullptr;
    auto matrix = std::make_unique<ops::Bf16Matrix>();
    matrix->pack(pool_, source);
    return matrix;
  }
  void pack_again(ops::PackedMatrix& matrix, const ops::PackedMatrix::Source& source, int64_t first_row) override {
    static_cast<ops::Bf16Matrix&>(matrix).pack_again(pool_, source, first_row);
  }

  void embedding_forward(const ops::EmbeddingForward& args) override { ops::embedding_forward(pool_, args); }
  void embedding_backward(const ops::EmbeddingBackward& args) override { ops::embedding_backward(pool_, args); }
  void rmsnorm_forward(const ops::RmsNormForward& args) override { ops::rmsnorm_forward(pool_, args); }
  void rmsnorm_backward(const ops::RmsNormBackward& args) override { ops::rmsnorm_backward(pool_, args); }
  void head_norm_forward(const ops::HeadNormForward& args) override { ops::head_norm_forward(pool_, args); }
  void head_norm_backward(const ops::HeadNormBackward& args) override { ops::head_norm_backward(pool_, args); }
  void unit_rows_forward(const ops::UnitRowsForward& args) override { ops::unit_rows_forward(pool_, args); }
  void unit_rows_backward(const ops::UnitRowsBackward& args) override { ops::unit_rows_backward(pool_, args); }
  void rope(const ops::Rope& args) override { ops::rope(pool_, args); }
  void attention_forward(const ops::AttentionForward& args) override { ops::attention_forward(pool_, args); }
  void attention_backward(const ops::AttentionBackward& args) override { ops::attention_backward(pool_, args); }
  void swiglu_forward(const ops::SwiGluForward& args) override { ops::swiglu_forward(pool_, args); }
  void swiglu_backward(const ops::SwiGluBackward& args) override { ops::swiglu_backward(pool_, args); }
  void linear_forward(const ops::LinearForward& args) override { ops::linear_forward(pool_, args); }
  void linear_backward(const ops::LinearBackward& args) override { ops::linear_backward(pool_, args); }
  void add_bias(const ops::Bias& args) override { ops::add_bias(pool_, args); }
  void bias_backward(const ops::BiasBackward& args) override { ops::bias_backward(pool_, args); }
  void lora_forward(const ops::LoraForward& args) override { ops::lora_forward(pool_, args); }
  void lora_backward(const ops::LoraBackward& args) override { ops::lora_backward(pool_, args); }
  void lora_gradient(const ops::LoraGradient& args) override { ops::lora_gradient(pool_, args); }
  void bf16_linear_forward(const ops::Bf16LinearForward& args) override { ops::bf16_linear_forward(pool_, args); }
  void bf16_linear_backward(const ops::Bf16LinearBackward& args) override { ops::bf16_linear_backward(pool_, args); }
  void cross_entropy(const ops::CrossEntropy& args) override { ops::cross_entropy(pool_, args); }
  void gather_rows(const ops::RowMove& args) override { ops::gather_rows(pool_, args); }
  void scatter_rows(const ops::RowMove& args) override { ops::scatter_rows(pool_, args); }
  void copy_rows(const ops::RowCopy& args) override { ops::copy_rows(pool_, args); }
  void add_rows(const ops::RowSum& args) override { ops::add_rows(pool_, args); }
  void dropout(const ops::Dropout& args) override { ops::dropout(pool_, args); }
  double sum_squares(const float* x, int64_t elements) override {
    return ops::sum_squares(pool_, {x, static_cast<size_t>(elements)});
  }
  void adamw(const ops::AdamW& args) override { ops::adamw(pool_, args); }
  void decode_attention(const ops::GroupAttention& args) override { ops::decode_attention(args); }
  void choose_columns(const ops::ColumnChoice& args) override { ops::choose_columns(args); }

 private:
  Pool& pool_;
};

}  // namespace

std::unique_ptr<OpsBackend> ops_on_processor(Pool& pool) { return std::make_unique<ProcessorOps>(pool); }

}  // namespace collimate
