// The CUDA runtime's calls, and what their errors mean to a job.
#include <cuda_runtime.h>

#include "core/failure.h"
#include "cuda/cublaslt.h"
#include "cuda/device.h"
#include "cuda/launch.h"

namespace collimate::cuda {
namespace {

cudaStream_t as_stream(void* stream) { return static_cast<cudaStream_t>(stream); }

void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) fail_cuda(static_cast<int>(error), what);
}

// Errors that stay with the process's context: whatever it asks of the device next fails too.
bool is_lost(cudaError_t error) {
  switch (error) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorAssert:
    case cudaErrorExternalDevice:
    case cudaErrorDevicesUnavailable:
    case cudaErrorUnknown:
      return true;
    default:
      return false;
  }
}

}  // namespace

void fail_cuda(int code, const char* what) {
  const auto error = static_cast<cudaError_t>(code);
  const std::string message =
      std::string(what) + ": " + cudaGetErrorName(error) + " (" + cudaGetErrorString(error) + ")";
  if (error == cudaErrorMemoryAllocation)
    throw JobFailure(FailureCause::out_of_memory,
                     message + "; the job goes on with activations recomputed or fewer lanes at once");
  if (error == cudaErrorInvalidDevice)
    fail_bad_input(message + "; name a device of those that nvidia-smi lists, counted from 0");
  if (error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver)
    fail_bad_input(message + "; this machine has no CUDA device or too old a driver: use cpu, or install the driver");
  if (is_lost(error))
    throw JobFailure(
        FailureCause::device_lost,
        message + "; the worker ends, to be started again. Look for an Xid in the kernel log of its machine");
  throw JobFailure(FailureCause::internal,
                   message + "; if it comes again on this machine, look for an Xid in its kernel log");
}

int device_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

void Device::make_current() const { check(cudaSetDevice(index_), "choosing the device"); }

Device::Device(int index) : index_(index) {
  make_current();
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, index), "reading the device's properties");
  name_ = properties.name;
  architecture_ = "sm_" + std::to_string(10 * properties.major + properties.minor);
  multiprocessors_ = properties.multiProcessorCount;
  char bus_id[32];
  check(cudaDeviceGetPCIBusId(bus_id, sizeof bus_id, index), "reading the device's bus id");
  pci_bus_id_ = bus_id;
  cublaslt_ = std::make_unique<CublasLt>();
  cudaStream_t stream;
  check(cudaStreamCreate(&stream), "making a stream");
  stream_ = stream;
}

Device::~Device() {
  // Errors were reported by what caused them; a destructor has nobody to tell.
  cudaSetDevice(index_);
  cublaslt_.reset();
  if (scratch_) cudaFree(scratch_);
  cudaStreamDestroy(as_stream(stream_));
}

DeviceMemory Device::memory() const {
  make_current();
  DeviceMemory result;
  check(cudaMemGetInfo(&result.free_bytes, &result.total_bytes), "reading the device's free memory");
  return result;
}

void* Device::allocate(size_t bytes) {
  make_current();
  void* memory = nullptr;
  check(cudaMalloc(&memory, bytes > 0 ? bytes : 1), "device memory");
  return memory;
}

void Device::release(void* memory) {
  cudaSetDevice(index_);
  cudaFree(memory);  // an earlier error comes again with the next call that is checked
}

void Device::upload(void* to, const void* from, size_t bytes) {
  make_current();
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, as_stream(stream_)), "copying to the device");
}

void Device::download(void* to, const void* from, size_t bytes) {
  make_current();
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, as_stream(stream_)), "copying from the device");
  synchronize();
}

void Device::copy(void* to, const void* from, size_t bytes) {
  make_current();
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, as_stream(stream_)), "copying on the device");
}

void Device::zero(void* memory, size_t bytes) {
  make_current();
  check(cudaMemsetAsync(memory, 0, bytes, as_stream(stream_)), "clearing device memory");
}

void Device::synchronize() {
  make_current();
  check(cudaStreamSynchronize(as_stream(stream_)), "waiting for the device");
}

bool Device::is_idle() const {
  make_current();
  const cudaError_t state = cudaStreamQuery(as_stream(stream_));
  if (state == cudaErrorNotReady) return false;
  check(state, "asking whether the device is idle");
  return true;
}

void* Device::scratch_bytes(size_t bytes) {
  if (bytes > scratch_size_) {
    if (scratch_) {
      synchronize();  // an earlier op may still read it
      release(scratch_);
      scratch_ = nullptr;
      scratch_size_ = 0;
    }
    scratch_ = allocate(bytes);
    scratch_size_ = bytes;
    ++scratch_generation_;
  }
  return scratch_;
}

}  // namespace collimate::cuda
