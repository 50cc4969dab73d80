// The few functions that are used are declared here: the library's header belongs to the toolkit, its ABI is fixed.
#include "core/dynamic_library.h"
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
    int (*init)() = nullptr;
    usable_ = library_.bind(init, "nvmlInit_v2") &&
              library_.bind(handle_by_bus_id_, "nvmlDeviceGetHandleByPciBusId_v2") &&
              library_.bind(utilisation_, "nvmlDeviceGetUtilizationRates") && init() == kSuccess;
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
  DynamicLibrary library_{"libnvidia-ml.so.1"};
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
