// One CUDA device and one stream on it: memory, copies, and the errors of both. No CUDA header is needed to include
// this.
//
// 1. Everything on a device runs in the order in which it was called; nothing waits but download() and synchronize().
// 2. Scratch memory belongs to the op that asks for it until the next op asks: order on the stream makes that safe.
// 3. An error is a JobFailure: out of memory as `out_of_memory`, an index without a device as `bad_input`, what
//    leaves the context unusable (a bad address, ECC, an Xid) as `device_lost`, anything else as `internal` with the
//    runtime's name for it. Debug builds wait after each kernel, so that the error names its kernel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

namespace collimate::cuda {

class CublasLt;

// Devices that the driver shows; 0 without a driver.
int device_count();

struct DeviceMemory {
  size_t free_bytes = 0, total_bytes = 0;
};

class Device {
 public:
  explicit Device(int index = 0);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const std::string& name() const { return name_; }
  // 0000:01:00.0
  const std::string& pci_bus_id() const { return pci_bus_id_; }
  int multiprocessors() const { return multiprocessors_; }
  // `sm_90` for compute capability 9.0: results belong to this class.
  const std::string& architecture() const { return architecture_; }
  // Makes it the calling thread's device: every call here does so first.
  void make_current() const;
  void* stream() const { return stream_; }
  CublasLt& cublaslt() const { return *cublaslt_; }
  DeviceMemory memory() const;

  void* allocate(size_t bytes);
  void release(void* memory);
  void upload(void* to, const void* from, size_t bytes);
  void download(void* to, const void* from, size_t bytes);  // waits
  void copy(void* to, const void* from, size_t bytes);
  void zero(void* memory, size_t bytes);
  void synchronize();
  // Whether all that was called has come to its end.
  bool is_idle() const;

  // Another number after each move of the scratch memory.
  uint64_t scratch_generation() const { return scratch_generation_; }
  // Memory for the partial results of the op being called.
  template <typename T>
  T* scratch(int64_t count) {
    return static_cast<T*>(scratch_bytes(static_cast<size_t>(count) * sizeof(T)));
  }

 private:
  void* scratch_bytes(size_t bytes);

  int index_;
  void* stream_ = nullptr;
  std::string name_, pci_bus_id_, architecture_;
  int multiprocessors_ = 0;
  void* scratch_ = nullptr;
  size_t scratch_size_ = 0;
  uint64_t scratch_generation_ = 0;
  std::unique_ptr<CublasLt> cublaslt_;
};

// An array on a device.
template <typename T>
class DeviceArray {
 public:
  DeviceArray() = default;
  DeviceArray(Device& device, int64_t count)
      : device_(&device),
        data_(static_cast<T*>(device.allocate(static_cast<size_t>(count) * sizeof(T)))),
        count_(count) {}
  DeviceArray(Device& device, std::span<const T> values) : DeviceArray(device, static_cast<int64_t>(values.size())) {
    device.upload(data_, values.data(), values.size_bytes());
  }
  DeviceArray(DeviceArray&& other) noexcept { *this = std::move(other); }
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    return *this;
  }
  ~DeviceArray() {
    if (data_) device_->release(data_);
  }

  T* data() const { return data_; }
  int64_t size() const { return count_; }
  void download(std::span<T> to) const { device_->download(to.data(), data_, to.size_bytes()); }

 private:
  Device* device_ = nullptr;
  T* data_ = nullptr;
  int64_t count_ = 0;
};

}  // namespace collimate::cuda
