// What the driver's management library (NVML) knows of a device; loaded when it is first asked, since a machine may
// lack it.
#pragma once

#include <optional>
#include <string>

namespace collimate::cuda {

// Share of the last moments (by the driver's own window, up to a second) in which a kernel ran, 0 to 1; nothing where
// the library, the device or the answer is missing. `pci_bus_id`: as cudaDeviceGetPCIBusId gives it, since the
// library numbers devices in an order of its own.
std::optional<double> device_utilisation(const std::string& pci_bus_id);

}  // namespace collimate::cuda
