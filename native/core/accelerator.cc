// The registry of accelerators, and the one in use.
#include "core/accelerator.h"

#include <map>
#include <utility>

#include "core/failure.h"

namespace collimate {
namespace {

std::map<std::string, AcceleratorOpener>& openers() {
  static std::map<std::string, AcceleratorOpener> list;
  return list;
}

std::unique_ptr<Accelerator>& in_use() {
  static std::unique_ptr<Accelerator> device;
  return device;
}

// The index behind "<kind>:", or -1.
int index_of(const std::string& text) {
  if (text.empty() || text.size() > 4 || text.find_first_not_of("0123456789") != std::string::npos) return -1;
  return std::stoi(text);
}

}  // namespace

void register_accelerators(const std::string& kind, AcceleratorOpener opener) { openers()[kind] = std::move(opener); }

void use_device(const std::string& device) {
  if (device == "cpu") {
    in_use().reset();
    return;
  }
  const size_t colon = device.find(':');
  const std::string kind = device.substr(0, colon);
  const int index = colon == std::string::npos ? -1 : index_of(device.substr(colon + 1));
  if (index < 0) fail_bad_input("device \"" + device + "\": expected cpu, or cuda:N with N from 0");
  const auto opener = openers().find(kind);
  if (opener == openers().end())
    fail_bad_input("device \"" + device + "\": this build has no " + kind +
                   " kernels; build it where a CUDA compiler is found, or use cpu");
  in_use() = opener->second(index);
}

Accelerator* accelerator() { return in_use().get(); }

std::unique_ptr<Clusterer> make_clusterer(Pool& pool, const RowSource& rows, int64_t levels) {
  if (accelerator() != nullptr) {
    std::unique_ptr<Clusterer> there = accelerator()->cluster(pool, rows, levels);
    if (there) return there;
  }
  return cluster_on_processor(pool, rows, levels);
}

std::unique_ptr<OpsBackend> make_ops_backend(Pool& pool) {
  return accelerator() != nullptr ? accelerator()->ops() : ops_on_processor(pool);
}

std::unique_ptr<dccf::Passes> make_passes(Pool& pool, const dccf::Graph& graph, int64_t dim) {
  if (accelerator() != nullptr) {
    std::unique_ptr<dccf::Passes> there = accelerator()->dccf_passes(graph, dim);
    if (there) return there;
  }
  return dccf::passes_on_processor(pool, graph);
}

}  // namespace collimate
