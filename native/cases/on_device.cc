// The table of all ops that have a kernel, as a backend of the cases.
#include "cases/on_device.h"

#include "cases/on_device_case.h"

namespace collimate::cases {
namespace {

const Loads& loads() {
  static const Loads table = [] {
    Loads all;
    add_layer_loads(all);
    add_linear_loads(all);
    add_attention_loads(all);
    add_training_loads(all);
    add_clustering_loads(all);
    add_dccf_loads(all);
    return all;
  }();
  return table;
}

}  // namespace

Backend device_backend(const DeviceBackend& options) {
  return {options.name, [options](const Case& one, Pool&, Tensors& tensors) -> std::function<void()> {
            const auto load = loads().find(one.op);
            if (load == loads().end() || (options.tiny_only && one.scale != Scale::tiny)) return {};
            const auto held = std::make_shared<OnDevice>(one, tensors);
            const Run run = load->second(*held);
            if (!run) return {};
            held->device.synchronize();
            return [held, run] {
              run();
              held->bring_back();
            };
          }};
}

std::set<std::string> ops_with_kernels() {
  std::set<std::string> result;
  for (const auto& [op, load] : loads()) result.insert(op);
  return result;
}

}  // namespace collimate::cases
