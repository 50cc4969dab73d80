// The passes and losses of DCCF on a device: core/dccf/{propagate,intents,losses}.h with pointers into device memory.
#pragma once

#include <cstdint>
#include <memory>

#include "core/dccf/graph.h"
#include "core/dccf/intents.h"
#include "core/dccf/losses.h"
#include "core/dccf/passes.h"
#include "core/dccf/propagate.h"
#include "cuda/device.h"

namespace collimate::cuda {

// The graph's rows on the device. The graph itself stays the caller's.
class DeviceGraph {
 public:
  DeviceGraph(Device& device, const dccf::Graph& graph);
  struct View {
    int64_t nodes = 0;
    const int64_t* offsets = nullptr;     // [V + 1]
    const int32_t* neighbours = nullptr;  // [2E]
    const float* inverse_root_degree = nullptr;
  };
  View view() const;

 private:
  DeviceArray<int64_t> offsets_;
  DeviceArray<int32_t> neighbours_;
  DeviceArray<float> inverse_root_degree_;
};

void spread(Device& device, const DeviceGraph& graph, const dccf::Spread& args);
void inverse_norms(Device& device, const DeviceGraph& graph, const float* x, int64_t dim, float* result);
void masked_forward(Device& device, const DeviceGraph& graph, const dccf::MaskedForward& args);
void masked_backward(Device& device, const DeviceGraph& graph, const dccf::MaskedBackward& args);
void intents_forward(Device& device, const dccf::IntentsForward& args);
void intents_backward(Device& device, const dccf::IntentsBackward& args);
// `batch` and `nodes` are on the host; so is what is returned.
dccf::RankLossValue rank_loss(Device& device, const dccf::Batch& batch, const dccf::RankLoss& args);
double contrast_loss(Device& device, const dccf::ContrastLoss& args);

constexpr int64_t kDeviceEmbeddingColumnsMax = 256;

// All of it, as the model asks for it. The graph stays the caller's.
std::unique_ptr<dccf::Passes> passes_on_device(Device& device, const dccf::Graph& graph);

}  // namespace collimate::cuda
