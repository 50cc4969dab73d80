// The tensors of one op case on a device, and what makes of a case what runs it there. Internal to on_device*.cc.
//
// Operands are told by the tensors' names, sizes by their shapes, the rest by the case's parameters: as the PyTorch
// reference does.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cases/case.h"
#include "cuda/device.h"

namespace collimate::cases {

using cuda::Device;
using cuda::DeviceArray;

// The tensors of one case on the device.
class OnDevice {
 public:
  OnDevice(const Case& one, Tensors& host) : one_(one), host_(host) {
    for (auto& [name, tensor] : host.all()) {
      if (!tensor.i32.empty())
        i32_[name] = DeviceArray<int32_t>(device, tensor.i32);
      else if (!tensor.f64.empty())
        f64_[name] = DeviceArray<double>(device, tensor.f64);
      else
        f32_[name] = DeviceArray<float>(device, std::span<const float>(tensor.f32));
    }
  }
  void bring_back() {
    if (on_host_) return;
    for (auto& [name, tensor] : host_.all()) {
      if (tensor.role == Role::input || tensor.role == Role::scratch) continue;
      if (!tensor.i32.empty())
        i32_.at(name).download(tensor.i32);
      else if (!tensor.f64.empty())
        f64_.at(name).download(tensor.f64);
      else
        f32_.at(name).download(tensor.f32);
    }
  }
  // Null for a tensor that the case lacks, or that is empty.
  float* f32(const std::string& name) const { return f32_.count(name) == 1 ? f32_.at(name).data() : nullptr; }
  int32_t* i32(const std::string& name) const { return i32_.count(name) == 1 ? i32_.at(name).data() : nullptr; }
  double* f64(const std::string& name) const { return f64_.at(name).data(); }
  Tensor& host(const std::string& name) const { return host_.at(name); }
  void results_are_on_host() { on_host_ = true; }
  int64_t dim(const std::string& name, size_t axis) const { return host_.at(name).shape.at(axis); }
  int64_t elements(const std::string& name) const { return host_.at(name).elements(); }
  double number(const std::string& name) const { return one_.parameters.at(name); }
  float real(const std::string& name) const { return static_cast<float>(number(name)); }
  int64_t whole(const std::string& name) const { return static_cast<int64_t>(number(name)); }
  // More device memory, for as long as the case is loaded.
  template <typename T>
  T* keep(const std::vector<T>& values) {
    auto array = std::make_shared<DeviceArray<T>>(device, std::span<const T>(values));
    kept_.push_back(array);
    return array->data();
  }
  template <typename T>
  T& keep_object(T value) {
    auto object = std::make_shared<T>(std::move(value));
    kept_.push_back(object);
    return *object;
  }

  Device device;

 private:
  const Case& one_;
  Tensors& host_;
  bool on_host_ = false;
  std::map<std::string, DeviceArray<float>> f32_;
  std::map<std::string, DeviceArray<int32_t>> i32_;
  std::map<std::string, DeviceArray<double>> f64_;
  std::vector<std::shared_ptr<void>> kept_;
};

using Run = std::function<void()>;
// Makes, of a case's tensors on the device, what runs it; an empty one where the device does not run this case.
using Load = Run (*)(OnDevice& t);
using Loads = std::map<std::string, Load>;

// Each file's part of the table, by op.
void add_layer_loads(Loads& table);
void add_linear_loads(Loads& table);
void add_attention_loads(Loads& table);
void add_training_loads(Loads& table);
void add_clustering_loads(Loads& table);
void add_dccf_loads(Loads& table);

}  // namespace collimate::cases
