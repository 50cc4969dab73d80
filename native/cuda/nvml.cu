// The few functions that are used are declared here: the library's header belongs to the toolkit, its ABI is fixed.
#include <dlfcn.h>

#include "cuda/nvml.h"

namespace collimate::cuda {
namespace {

struct Utilisation {
  unsigned int gpu = 0, memory = 0;  // percent
};
using Handle = void*;
constexpr int kSuccess = 0;

class Library {
 public:
  Library() {
    library_ = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library_ == nullptr) return;
    const auto init = function<int (*)()>("nvmlInit_v2");
    handle_by_bus_id_ = function<int (*)(const char*, Handle*)>("nvmlDeviceGetHandleByPciBusId_v2");
    utilisation_ = function<int (*)(Handle, Utilisation*)>("nvmlDeviceGetUtilizationRates");
    usable_ = init && handle_by_bus_id_ && utilisation_ && init() == kSuccess;
  }

  std::optional<double> utilisation(const std::string& pci_bus_id) const {
    Handle device = nullptr;
    Utilisation used;
    if (!usable_ || handle_by_bus_id_(pci_bus_id.c_str(), &device) != kSuccess ||
        utilisation_(device, &used) != kSuccess)
      return std::nullopt;
    return static_cast<double>(used.gpu) / 100.0;
  }

 private:
  template <typename Function>
  Function function(const char* name) const {
    return reinterpret_cast<Function>(dlsym(library_, name));
  }

  // Never closed: it has threads of its own.
  void* library_ = nullptr;
  int (*handle_by_bus_id_)(const char*, Handle*) = nullptr;
  int (*utilisation_)(Handle, Utilisation*) = nullptr;
  bool usable_ = false;
};

}  // namespace

std::optional<double> device_utilisation(const std::string& pci_bus_id) {
  static const Library library;
  return library.utilisation(pci_bus_id);
}

}  // namespace collimate::cuda
