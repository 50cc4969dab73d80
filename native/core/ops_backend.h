// The machine that a decoder's ops run on: memory, copies, and every op of core/ops.h, core/ops_bf16.h and
// core/rank/decode_ops.h. cpu/ implements it over a pool, cuda/ over a device.
//
// 1. Pointers among an op's arguments point into the backend's memory, but where the argument is said to lie on the
//    host. On the processor that is all memory, and nothing is ever copied.
// 2. Calls take effect in order; download() waits for those before it.
// 3. Tokens and indices are taken as checked: a device cannot fail with a message, so whoever uploads them checks.
// 4. The processor's may be used by several threads at once, a device's by one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>

#include "core/ops.h"
#include "core/ops_bf16.h"
#include "core/rank/decode_ops.h"

namespace collimate {

class OpsBackend {
 public:
  virtual ~OpsBackend() = default;

  // Whether its memory is the host's: then arrays that lie there are read where they are.
  virtual bool is_host() const = 0;
  // Bytes that may still be allocated.
  virtual int64_t available_bytes() const = 0;
  // Without a value until written, on a cache line. std::bad_alloc or JobFailure(out_of_memory).
  virtual void* allocate(int64_t bytes) = 0;
  virtual void release(void* memory, int64_t bytes) = 0;
  virtual void upload(void* to, const void* from_host, int64_t bytes) = 0;
  virtual void download(void* to_host, const void* from, int64_t bytes) = 0;
  virtual void copy(void* to, const void* from, int64_t bytes) = 0;
  virtual void zero(void* memory, int64_t bytes) = 0;
  virtual void synchronize() = 0;

  // What a backend keeps of a sequence of ops, to start them at once the next time. It may not outlive the backend.
  struct Recording {
    virtual ~Recording() = default;
  };
  // Runs `body`, which only calls ops and copy() and zero(): for one recording the same ones with the same arguments
  // each time. The values that they find in memory may differ.
  virtual void run_recorded(std::unique_ptr<Recording>& recording, const std::function<void()>& body) = 0;

  // Null where it has no such products; `source` lies on the host.
  virtual std::unique_ptr<ops::PackedMatrix> pack(const ops::PackedMatrix::Source& source) = 0;
  // When only rows from `first_row` on have changed: no others are read. Here `source` lies in the backend's memory.
  virtual void pack_again(ops::PackedMatrix& matrix, const ops::PackedMatrix::Source& source, int64_t first_row) = 0;

  virtual void embedding_forward(const ops::EmbeddingForward& args) = 0;
  virtual void embedding_backward(const ops::EmbeddingBackward& args) = 0;
  virtual void rmsnorm_forward(const ops::RmsNormForward& args) = 0;
  virtual void rmsnorm_backward(const ops::RmsNormBackward& args) = 0;
  virtual void head_norm_forward(const ops::HeadNormForward& args) = 0;
  virtual void head_norm_backward(const ops::HeadNormBackward& args) = 0;
  virtual void unit_rows_forward(const ops::UnitRowsForward& args) = 0;
  virtual void unit_rows_backward(const ops::UnitRowsBackward& args) = 0;
  virtual void rope(const ops::Rope& args) = 0;
  virtual void attention_forward(const ops::AttentionForward& args) = 0;
  virtual void attention_backward(const ops::AttentionBackward& args) = 0;
  virtual void swiglu_forward(const ops::SwiGluForward& args) = 0;
  virtual void swiglu_backward(const ops::SwiGluBackward& args) = 0;
  virtual void linear_forward(const ops::LinearForward& args) = 0;
  virtual void linear_backward(const ops::LinearBackward& args) = 0;
  virtual void add_bias(const ops::Bias& args) = 0;
  virtual void bias_backward(const ops::BiasBackward& args) = 0;
  virtual void lora_forward(const ops::LoraForward& args) = 0;
  virtual void lora_backward(const ops::LoraBackward& args) = 0;
  virtual void lora_gradient(const ops::LoraGradient& args) = 0;
  virtual void bf16_linear_forward(const ops::Bf16LinearForward& args) = 0;
  virtual void bf16_linear_backward(const ops::Bf16LinearBackward& args) = 0;
  virtual void cross_entropy(const ops::CrossEntropy& args) = 0;
  virtual void gather_rows(const ops::RowMove& args) = 0;
  virtual void scatter_rows(const ops::RowMove& args) = 0;
  virtual void copy_rows(const ops::RowCopy& args) = 0;
  virtual void add_rows(const ops::RowSum& args) = 0;
  virtual void dropout(const ops::Dropout& args) = 0;
  virtual double sum_squares(const float* x, int64_t elements) = 0;
  virtual void adamw(const ops::AdamW& args) = 0;
  virtual void decode_attention(const ops::GroupAttention& args) = 0;
  virtual void choose_columns(const ops::ColumnChoice& args) = 0;
};

// On the pool, which stays the caller's.
std::unique_ptr<OpsBackend> ops_on_processor(Pool& pool);

// An array in a backend's memory, without a value until written.
template <typename T>
class BackendArray {
 public:
  BackendArray() = default;
  BackendArray(OpsBackend& backend, int64_t count)
      : backend_(&backend), data_(static_cast<T*>(backend.allocate(count * kSize))), count_(count) {}
  BackendArray(BackendArray&& other) noexcept { swap(other); }
  BackendArray& operator=(BackendArray&& other) noexcept {
    swap(other);
    return *this;
  }
  ~BackendArray() {
    if (data_ != nullptr) backend_->release(data_, count_ * kSize);
  }

  T* data() const { return data_; }
  int64_t size() const { return count_; }
  void upload(std::span<const T> from) const {
    backend_->upload(data_, from.data(), static_cast<int64_t>(from.size()) * kSize);
  }
  void download(std::span<T> to) const {
    backend_->download(to.data(), data_, static_cast<int64_t>(to.size()) * kSize);
  }

 private:
  static constexpr int64_t kSize = sizeof(T);
  void swap(BackendArray& other) {
    std::swap(backend_, other.backend_);
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
  }

  OpsBackend* backend_ = nullptr;
  T* data_ = nullptr;
  int64_t count_ = 0;
};

// Host values where a backend's ops read them: the values themselves on the processor, a copy on a device.
template <typename T>
class PlacedArray {
 public:
  PlacedArray() = default;
  // `values` must outlive this where the backend is the host.
  PlacedArray(OpsBackend& backend, std::span<const T> values) {
    if (backend.is_host()) {
      data_ = values.data();
      return;
    }
    copy_ = BackendArray<T>(backend, static_cast<int64_t>(values.size()));
    copy_.upload(values);
    data_ = copy_.data();
  }
  const T* data() const { return data_; }

 private:
  BackendArray<T> copy_;
  const T* data_ = nullptr;
};

}  // namespace collimate
